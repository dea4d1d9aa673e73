"""Mistakes on similar texts: clusters of the frozen states of their texts.

    q(row) = mean of the last layer's states over the text − the mean over texts of all sorts, of length 1

Agglomerative clustering by average cosine distance (scikit-learn), as many clusters as the silhouette (Rousseeuw 1987,
https://doi.org/10.1016/0377-0427(87)90125-7) finds best. A cluster is shown by the words that are its own (tf-idf) and by the text
nearest to its middle. What stands before a prompt does not depend on it, so these states are there already.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from epigraph.engine import Engine
from epigraph.methods.states import read_states
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

FEWEST, MOST_CLUSTERS, WORDS = 6, 8, 4


@dataclass(frozen=True)
class Cluster:
    """Places of similar rows, the words that are their own, and the place of the most typical."""

    members: tuple[int, ...]
    words: tuple[str, ...]
    typical: int


def similar_rows(engine: Engine, task: Task, rows: Sequence[Row]) -> list[Cluster]:
    """The rows in clusters, the largest first; none where they are too few. Unsupported on a base that keeps no states."""
    if len(rows) < FEWEST:
        return []
    states = read_states(engine, task, rows)[:, 1].astype(np.float64)
    queries = _unit(states - engine.neutral_queries().float().cpu().numpy().mean(0))
    places = _cluster(queries)
    groups = [np.flatnonzero(places == number) for number in sorted(set(places.tolist()))]
    words = _own_words([" ".join(row.fields.values()) for row in rows], groups)
    found = [Cluster(tuple(map(int, g)), w, _typical(queries, g)) for g, w in zip(groups, words, strict=True)]
    return sorted(found, key=lambda cluster: (-len(cluster.members), cluster.members))


def _unit(vectors: Float[np.ndarray, "N H"]) -> Float[np.ndarray, "N H"]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def _cluster(queries: Float[np.ndarray, "N H"]) -> np.ndarray:
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.metrics import silhouette_score

    best, places = -1.0, np.zeros(len(queries), dtype=np.int64)
    if len(np.unique(queries.round(6), axis=0)) < FEWEST:
        return places
    for count in range(2, min(MOST_CLUSTERS, len(queries) // 3) + 1):
        found = AgglomerativeClustering(count, metric="cosine", linkage="average").fit_predict(queries)
        score = float(silhouette_score(queries, found, metric="cosine"))
        if score > best:
            best, places = score, found
    return places


def _typical(queries: Float[np.ndarray, "N H"], group: np.ndarray) -> int:
    return int(group[(queries[group] @ queries[group].mean(0)).argmax()])


def _own_words(texts: Sequence[str], groups: Sequence[np.ndarray]) -> list[tuple[str, ...]]:
    """Of every group the words with the largest mean tf-idf weight over that of all texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        vectorizer = TfidfVectorizer(token_pattern=r"(?u)\b\w\w+\b", sublinear_tf=True)
        weights = vectorizer.fit_transform(texts)
    except ValueError:  # no words at all
        return [() for _ in groups]
    names, mean = vectorizer.get_feature_names_out(), np.asarray(weights.mean(axis=0))[0]
    found = []
    for group in groups:
        own = np.asarray(weights[group].mean(axis=0))[0] - (mean if len(groups) > 1 else 0)
        found.append(tuple(str(names[i]) for i in own.argsort()[::-1][:WORDS] if own[i] > 0))
    return found
