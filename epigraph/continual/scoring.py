"""Row R[t, …] of a method in the three scenarios, from its answers and the router's.

known      argmax p(label | x, task)
inferred   argmax p(label | x, k̂)          k̂ = argmax p(k | x) by the router
union      argmax over all labels of all tasks learned so far
"""

from collections.abc import Mapping, Sequence

import numpy as np

from epigraph.continual.labels import Answer, Union
from epigraph.continual.learners import Learner
from epigraph.continual.measures import SCENARIOS
from epigraph.continual.world import World

Row = dict[str, list[float | None]]


def score_row(world: World, learner: Learner, t: int) -> Row:
    """R[t, i] for every task i up to t; None for those whose test rows are gone.

    Where what was learned of a task never changes, R[t, i] with the task known must be R[i, i]: it is measured, a difference is
    told, and R[i, i] stands in only where the test rows are gone.
    """
    row: Row = {scenario: [] for scenario in SCENARIOS}
    for i in range(t + 1):
        world.show(f"scoring {learner.name}", i, t + 1)
        found = dict(score_task(world, learner, t, i))
        if learner.frozen and i < t:
            found["known"] = _unchanged(world, learner, i, found["known"])
        for scenario in SCENARIOS:
            row[scenario].append(found[scenario])
    return row


def _unchanged(world: World, learner: Learner, i: int, measured: float | None) -> float | None:
    """What is measured now, told where it is not what it was."""
    earlier = world.stage(learner.name, i).scores
    then = earlier["known"][i] if earlier else measured
    if measured is None:
        return None if then is None else float(then)
    if then is not None and measured != then:
        name = world.tasks[i].name
        world.note(
            f"warning: {learner.name} answered {then:.3f} of {name} right and now {measured:.3f}, with the same prompt"
        )
    return measured


def score_task(world: World, learner: Learner, t: int, i: int) -> Mapping[str, float | None]:
    """R[t, i] in every scenario, also for i = t + 1, which is not learned yet."""
    if not world.tasks[i].tests:
        return dict.fromkeys(SCENARIOS)
    posterior = world.posterior(i, t + 1)
    learned, known = world.union(t + 1), world.union(max(t, i) + 1)
    truth = [known.answer(i, row.target or "") for row in world.tasks[i].tests]
    return {
        "known": _share(_as_task(learner, known, i), truth),
        "inferred": _share(_routed(learner, known, i, posterior), truth),
        "union": _share(_among_all(learner, learned, i, posterior), truth),
    }


def _as_task(learner: Learner, union: Union, i: int) -> list[Answer]:
    labels = list(union.tasks[i].labels)
    return [union.answer(i, labels[c]) for c in learner.on_tests(i, i).argmax(1)]


def _routed(learner: Learner, union: Union, i: int, posterior: np.ndarray) -> list[Answer]:
    chosen = posterior.argmax(1)
    found: list[Answer] = [(-2, "")] * len(chosen)
    for k in np.unique(chosen):
        places = np.flatnonzero(chosen == k)
        labels = list(union.tasks[k].labels)
        for place, column in zip(places, learner.on_tests(int(k), i, places).argmax(1), strict=True):
            found[place] = union.answer(int(k), labels[column])
    return found


def _among_all(learner: Learner, union: Union, i: int, posterior: np.ndarray) -> list[Answer]:
    answers = union.answers
    return [answers[c] for c in learner.union(i, union, posterior).argmax(1)]


def _share(found: Sequence[Answer], truth: Sequence[Answer]) -> float:
    return sum(a == b for a, b in zip(found, truth, strict=True)) / len(truth)
