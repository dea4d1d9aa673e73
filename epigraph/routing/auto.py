"""``auto``: every text is answered with the prompt of the task it most probably belongs to.

text → query → router → prompt → answer        confidence < threshold: the base alone answers, or nobody does
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from epigraph.base import Base
from epigraph.engine import Engine, generate
from epigraph.errors import BaseMismatch, ConfigError, Corrupt, NotFound
from epigraph.library import Library
from epigraph.library.names import NEWEST, split_reference
from epigraph.library.versions import versions
from epigraph.model import TOGETHER, Given, Prediction, PromptModel
from epigraph.routing.queries import routed_text, text_queries
from epigraph.routing.router import Route, Router
from epigraph.routing.shelf import read_router, write_router
from epigraph.tasks.encode import Encoded
from epigraph.tasks.row import Row

THRESHOLD = 0.5
OTHERWISE = ("refuse", "base")
BASE_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class Routed:
    """An answer and where it came from: ``prompt`` is a reference, "base" where the base alone answered, "" where nobody did."""

    prompt: str
    route: Route
    prediction: Prediction

    @property
    def json(self) -> dict[str, Any]:
        """The object of ``predict`` with the prompt, the confidence and every task's probability."""
        routed = {
            "task": self.route.task,
            "confidence": self.route.confidence,
            "probabilities": dict(self.route.probabilities),
        }
        return {**self.prediction.json, "prompt": self.prompt, "route": routed}


class AutoModel:
    """Answers each text with the prompt that the library's router names.

    ``threshold`` is the confidence below which a text goes to none of them; ``otherwise`` says what then: ``refuse``, or
    ``base`` for what the base alone goes on with. ``prompt_of`` opens a stored prompt by its reference.
    """

    def __init__(
        self,
        router: Router,
        engine: Engine,
        prompt_of: Callable[[str], PromptModel],
        *,
        threshold: float = THRESHOLD,
        otherwise: str = OTHERWISE[0],
    ) -> None:
        if not 0 <= threshold <= 1:
            raise ConfigError(f"a threshold of {threshold} was asked; it must lie between 0 and 1.")
        if otherwise not in OTHERWISE:
            raise ConfigError(f"otherwise {otherwise!r} is not known.", f"Choose one of: {', '.join(OTHERWISE)}.")
        if router.fingerprint != engine.base.fingerprint:
            raise BaseMismatch(
                f"the router was made on a base of fingerprint {router.fingerprint[:12]}…; this base is {engine.base.name} "
                f"(fingerprint {engine.base.fingerprint[:12]}…).",
                "Route its prompts again on this base: epigraph library route NAME --data train.csv",
            )
        self.router, self.engine, self.prompt_of = router, engine, prompt_of
        self.threshold, self.otherwise = threshold, otherwise
        self._open: dict[str, PromptModel] = {}

    def route(self, rows: Sequence[Given]) -> list[Route]:
        """Where each text goes, and how probably it belongs there."""
        return self.router.route(text_queries(self.engine, [_text(row) for row in rows]))

    def predict(self, rows: Sequence[Given], *, min_confidence: float = 0.0) -> list[Routed]:
        """One answer a row, in order; those that go to one prompt are computed together."""
        routes = self.route(rows)
        found: dict[int, Routed] = {}
        groups: dict[str, list[int]] = {}
        for i, route in enumerate(routes):
            sure = route.confidence >= self.threshold
            groups.setdefault(self.router.tasks[route.task].prompt if sure else "", []).append(i)
        for reference, places in groups.items():
            some = [rows[i] for i in places]
            answers = self._answers(reference, some, min_confidence)
            prompt = reference or ("base" if self.otherwise == "base" else "")
            for i, prediction in zip(places, answers, strict=True):
                found[i] = Routed(prompt=prompt, route=routes[i], prediction=prediction)
        if not self.engine.store.keep:
            self.engine.store.forget()
        return [found[i] for i in range(len(rows))]

    def stream(self, rows: Iterable[Given], *, min_confidence: float = 0.0, together: int = TOGETHER) -> Iterator[Routed]:
        """Answers in order, computed ``together`` rows at a time as they arrive."""
        source = iter(rows)
        while chunk := list(islice(source, together)):
            yield from self.predict(chunk, min_confidence=min_confidence)

    def _answers(self, reference: str, rows: Sequence[Given], min_confidence: float) -> list[Prediction]:
        if reference:
            if reference not in self._open:
                self._open[reference] = self.prompt_of(reference)
            model = self._open[reference]
            return model.predict([_fitting(row, model) for row in rows], min_confidence=min_confidence)
        fields = [{"text": _text(row)} for row in rows]
        if self.otherwise == "base":
            return [Prediction(fields=f, output=o) for f, o in zip(fields, self._base_alone(fields), strict=True)]
        return [Prediction(fields=f, label=None, probabilities={}, abstained=True) for f in fields]

    def _base_alone(self, fields: Sequence[Mapping[str, str]]) -> list[str]:
        """How the base goes on from the texts."""
        base = self.engine.base
        room = base.context - BASE_TOKENS - 1
        begin = [base.bos] if base.bos is not None else []
        texts = [(*begin, *base.tokenize(one["text"])[:room]) for one in fields]
        rows = [Encoded((text[:-1], text[-1:])) for text in texts]
        nothing = self.engine.embedded_text(())
        return [base.detokenize(ids).strip() for ids in generate(self.engine, rows, [nothing], BASE_TOKENS)]


def _text(row: Given) -> str:
    return row if isinstance(row, str) else routed_text(row.fields if isinstance(row, Row) else row)


def _fitting(row: Given, model: PromptModel) -> Given:
    """The row under the field names of the prompt's task, where it has as many fields under other names."""
    if isinstance(row, str):
        return row
    fields = row.fields if isinstance(row, Row) else row
    renamed = fitting_names(fields, model.task.template.fields)
    return row if renamed is fields else renamed


def fitting_names(fields: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
    """The fields under these names, where they are as many under others."""
    if len(fields) == len(names) and set(fields) != set(names):
        return dict(zip(names, fields.values(), strict=True))
    return fields


def open_auto(
    library: Path,
    base: Base,
    *,
    engine: Engine | None = None,
    threshold: float = THRESHOLD,
    otherwise: str = OTHERWISE[0],
) -> AutoModel:
    """The library's router on this base. NotFound if the library has none for it; prompts that are gone, or fit another base, are
    no candidates."""
    opened = engine or Engine(base, keep=False)
    shelf = Library(library)
    router = read_router(library, base.fingerprint)
    answering = {said.prompt: answering_version(shelf, said.prompt, base.fingerprint) for said in router.tasks.values()}
    for name, said in router.tasks.items():
        if not answering[said.prompt]:
            router = router.without(name)
    return AutoModel(
        router,
        opened,
        lambda reference: PromptModel(shelf.get(answering[reference]), base, engine=opened),
        threshold=threshold,
        otherwise=otherwise,
    )


def answering_version(library: Library, reference: str, fingerprint: str) -> str:
    """The version that a router's prompt means on the base of this fingerprint: the one it names, or the newest of its name
    that stands on that base. "" where there is none: it was removed, is damaged, or was tuned again on another base."""
    name, wanted = split_reference(reference)
    try:
        numbers = versions(library.root / name)[::-1] if wanted == NEWEST else [library.resolve(reference)[1]]
    except NotFound:
        return ""
    return next((f"{name}@{number}" for number in numbers if _stands_on(library, f"{name}@{number}", fingerprint)), "")


def _stands_on(library: Library, reference: str, fingerprint: str) -> bool:
    try:
        return library.card(reference).base.fingerprint == fingerprint
    except (Corrupt, NotFound):
        return False


def learn_route(
    library: Path, engine: Engine, name: str, rows: Sequence[Row], *, prompt: str, replace: bool = False
) -> Router:
    """Let the library's router send texts like these rows to a prompt; made if there is none. No other task's data is needed."""
    fingerprint = engine.base.fingerprint
    try:
        router = read_router(library, fingerprint)
    except NotFound:
        router = Router(fingerprint=fingerprint)
    if replace:
        router = router.without(name)
    router = router.add(name, text_queries(engine, [routed_text(row.fields) for row in rows]), prompt=prompt)
    write_router(library, router)
    return router
