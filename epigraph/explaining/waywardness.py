"""Prompt waywardness: why the nearest tokens are no explanation, shown on the prompt itself.

    minimise  loss(P) + γ · mean ‖(P − E(unrelated text)) / r‖²       and every vector stays where the text's token is nearest

Source: Khashabi et al. 2022, section 3 (https://arxiv.org/abs/2112.08348). The prompt is tuned anew from an unrelated text and pulled
back whenever a vector's nearest token would be another. It learns the truths (the given prompt's answers where there are none): of
training rows where these are known, so that all other rows are left to measure on, else of half of the rows. If it then answers as
well as the prompt while it reads as that text, a reading by nearest tokens says nothing of what a prompt does.

The reading of a vector is the nearest token of the table (euclidean); of keys and values, the token whose first-layer values are nearest:
these alone are held near the text, keys and later layers are free, and the verdict says so.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from epigraph.base import Base
from epigraph.engine.inspection import first_values
from epigraph.errors import Unsupported
from epigraph.explaining.case import Case, halves, pick, share
from epigraph.explaining.judged import said
from epigraph.metrics import Interval
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.prompts.init import repeat_to
from epigraph.tasks.row import Row
from epigraph.tasks.split import head
from epigraph.tuning.objective import make_objective

UNRELATED = (
    "The ferry to the island leaves at noon and the harbour smells of tar, rope and oranges while gulls circle over "
    "the pier in the wind"
)
PULL, BATCH, SHRINK, TRIES = 0.01, 32, 0.7, 12
RATE = 0.1
MOST_TRAINED = 320
NEAR = 0.05  # the most that may be lost by a prompt of which "answers as well" is said
FIRST_LAYER = (
    "Of these keys and values only the values of the first layer are held near the text, since only they can be read by tokens: keys and "
    "all later layers are free, so this shows less than the study does of vectors."
)


@dataclass(frozen=True, kw_only=True)
class Wayward:
    """The prompt's nearest tokens, and a prompt that reads as the unrelated text: their scores on the same held rows.

    ``change`` is the paired change of the score from the one to the other; ``held_near`` says what alone was held near the text, "" where
    that is all of the prompt."""

    nearest: tuple[str, ...]
    text: str
    reads_as: tuple[str, ...]
    share_of_text: float
    soft: Interval
    before: Interval
    wayward: Interval
    change: Interval
    agreement: Interval
    metric: str
    steps: int
    held_near: str
    verdict: str
    how: str


def measure_waywardness(case: Case, train: Sequence[Row] = (), most_rows: int = 160) -> Wayward:
    """Tune a prompt that reads as an unrelated text, on training rows or half of the others, and score it where it did not learn."""
    if case.engine.plain:
        raise Unsupported("re-tuning towards a text is not done on a base that is run by plain concatenation.")
    lessons, held, how = _lessons(case, train, most_rows)
    pulled = _Pulled(case)
    before = case.answers_of(pulled.forms(), held)
    steps = _tune(case, pulled, lessons)
    with torch.no_grad():
        answers = case.answers_of(pulled.forms(), held)
    whole = [case.answers[i] for i in held]
    change = case.change(whole, answers, held)
    decode = case.engine.base.tokenizer.decode
    reads = [token for number in range(len(pulled.texts)) for token in pulled.reading(number)]
    wanted = [token for text in pulled.texts for token in text]
    keyed = any(isinstance(form, KeyValue) for form in case.forms)
    return Wayward(
        nearest=tuple(decode([t]) for form in case.forms for t in read(case.engine.base, form)),
        text=case.engine.base.detokenize(wanted),
        reads_as=tuple(decode([t]) for t in reads),
        share_of_text=sum(a == b for a, b in zip(reads, wanted, strict=True)) / len(wanted),
        soft=case.score(whole, held),
        before=case.score(before, held),
        wayward=case.score(answers, held),
        change=change,
        agreement=share([a == b for a, b in zip(answers, whole, strict=True)]),
        metric=case.metric_name,
        steps=steps,
        held_near=FIRST_LAYER if keyed else "",
        verdict=_verdict(change, FIRST_LAYER if keyed else ""),
        how=f"Tuned for {steps} steps on {how}; γ = {PULL}." + (f" {FIRST_LAYER}" if keyed else ""),
    )


def _lessons(case: Case, train: Sequence[Row], most_rows: int) -> tuple[list[Row], list[int], str]:
    """Rows to learn from, the numbers of the rows to score on, and both in words."""
    among = pick(case, most_rows, scored=True)
    seen = {_fields(row) for row in train}
    unseen = [i for i in among if _fields(case.rows[i]) not in seen]
    usable = [row for row in train if _answerable(case, row)]
    if len(usable) >= BATCH and 2 * len(unseen) >= len(among):
        lessons = head(usable, MOST_TRAINED, case.config.seed)
        return lessons, unseen, f"{len(lessons)} training rows, scored on {len(unseen)} rows of {case.source}"
    learned, held = halves(among, case.config.seed)
    apart = "others" if set(learned).isdisjoint(held) else "of the same, since there are so few"
    said_so = f"{len(learned)} rows of {case.source}, scored on {len(held)} {apart}"
    return [_taught(case, i) for i in learned], held, said_so


def _fields(row: Row) -> tuple[object, ...]:
    return (*sorted(row.fields.items()), row.choices)


def _verdict(change: Interval, limits: str) -> str:
    """What the paired change of the score says; ``limits`` of what was held near the text."""
    moved, bounds = f"{change.value:+.2f}", f"[{change.low:+.2f} to {change.high:+.2f}]"
    tail = f" {limits}" if limits else ""
    if change.low >= -NEAR:
        return (
            f"A prompt that reads as this unrelated text answers as well ({moved} {bounds}): the nearest tokens are no explanation of "
            f"this prompt.{tail}"
        )
    if change.high >= 0:
        return (
            f"A prompt that reads as this unrelated text changes the score by {moved} {bounds} after a short tuning: it may answer as well "
            f"or worse, these rows do not tell. Do not read the nearest tokens as an explanation.{tail}"
        )
    return (
        f"After this short tuning the prompt that reads as the text changes the score by {moved} {bounds}. That does not make the nearest "
        f"tokens an explanation: longer tunings close the gap in the cited study.{tail}"
    )


class _Pulled:
    """A prompt in the form of the given one that begins as the unrelated text and is kept near it."""

    def __init__(self, case: Case) -> None:
        self.case, base = case, case.engine.base
        ids = base.tokenize(UNRELATED)
        self.texts = [repeat_to(ids, form.length) for form in case.forms]
        self.start: list[list[Tensor]] = []
        for form, text in zip(case.forms, self.texts, strict=True):
            vectors = case.engine.embedded_text(text)
            with torch.no_grad():
                keyed = case.engine.key_values(vectors) if isinstance(form, KeyValue) else None
            parts = [vectors.vectors] if keyed is None else [keyed.keys, keyed.values]
            self.start.append([part.detach().float() for part in parts])
        self.units = [[_unit(part) for part in parts] for parts in self.start]
        self.moved = [[torch.nn.Parameter(torch.zeros_like(part)) for part in parts] for parts in self.start]
        self.table = _Readings(base)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """How far everything has moved, in units of the start's rms."""
        return [part for parts in self.moved for part in parts]

    def forms(self) -> list[Form]:
        """The prompt as it is now."""
        found: list[Form] = []
        for start, unit, moved in zip(self.start, self.units, self.moved, strict=True):
            parts = [s + u * m for s, u, m in zip(start, unit, moved, strict=True)]
            found.append(Embedded(parts[0]) if len(parts) == 1 else KeyValue(parts[0], parts[1]))
        return found

    def reading(self, number: int) -> list[int]:
        """The nearest tokens of a block."""
        with torch.no_grad():
            return self.table.read(self.forms()[number])

    def keep(self) -> None:
        """Draw back every vector whose nearest token is no longer the text's."""
        for number, text in enumerate(self.texts):
            for attempt in range(TRIES + 1):
                wrong = [i for i, (a, b) in enumerate(zip(self.reading(number), text, strict=True)) if a != b]
                if not wrong:
                    break
                factor = SHRINK if attempt < TRIES else 0.0
                last = self.moved[number][
                    -1
                ].data  # vectors [P, H], or values [L, A, P, D], of which the first layer is read
                if last.ndim == 2:
                    last[wrong] *= factor
                else:
                    last[0][:, wrong] *= factor


def _unit(part: Tensor) -> Tensor:
    """The rms: of all vectors, or of each layer's keys or values."""
    if part.ndim == 2:
        return part.pow(2).mean().sqrt().clamp(min=1e-9)
    return part.pow(2).mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=1e-9)


def _tune(case: Case, pulled: _Pulled, lessons: Sequence[Row]) -> int:
    """AdamW on the answers; the steps taken."""
    steps = case.config.wayward_steps
    objective = make_objective(case.method, lessons, [])  # the loss that prompts of this kind of task are tuned by
    adam, rng = torch.optim.AdamW(pulled.parameters, lr=RATE, weight_decay=0.0), random.Random(case.config.seed)
    taken = 0
    for step in range(steps):
        if case.clock.over:
            break
        batch = rng.sample(range(len(lessons)), min(BATCH, len(lessons)))
        pull = sum((part.pow(2).mean() for part in pulled.parameters), torch.zeros(()))
        loss = objective.losses([batch], [pulled.forms()])[0] + PULL * pull.to(case.engine.base.device)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(pulled.parameters, 1.0)
        adam.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / max(1, steps // 10)) * (1 - step / steps)
        adam.step()
        pulled.keep()
        taken += 1
    return taken


def _answerable(case: Case, row: Row) -> bool:
    """Whether the row says what is right, and the prompt could say it."""
    names = row.choices or case.labels
    return row.target is not None and (not names or set(row.labels or (row.target,)) <= {*names, ""})


def _taught(case: Case, number: int) -> Row:
    """The row with its truth, or with the prompt's own answer where that is not to be had."""
    row, answer = case.rows[number], case.answers[number]
    if _answerable(case, row):
        return row
    return replace(row, target=said(answer), labels=answer if isinstance(answer, tuple) else ())


class _Readings:
    """The vocabulary as vectors, or as first-layer values, to read a prompt by."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self._tables: dict[object, Tensor] = {}
        self._moves: bool | None = None

    @torch.no_grad()
    def read(self, form: Form) -> list[int]:
        """The nearest token of every vector."""
        if isinstance(form, Embedded):
            return torch.cdist(form.vectors.float().cpu(), self._vectors()).argmin(1).tolist()
        values = form.values[0].transpose(0, 1).flatten(1).float().cpu()  # [P, A·D]
        tables = [self._values(i) for i in range(len(values))]
        return [int(torch.cdist(v[None], table).argmin()) for v, table in zip(values, tables, strict=True)]

    def _tokens(self) -> Tensor:
        return torch.arange(self.base.embedding.weight.shape[0])

    def _vectors(self) -> Tensor:
        if "vectors" not in self._tables:
            self._tables["vectors"] = self.base.embed(self._tokens()).float().cpu()
        return self._tables["vectors"]

    def _values(self, position: int) -> Tensor:
        """First-layer values at a position: the same everywhere where positions are rotary."""
        if self._moves is None:
            some = self.base.tokenize("a")[:1]
            there, moved = first_values(self.base, some, 0), first_values(self.base, some, 1)
            self._moves = not torch.allclose(there, moved, atol=1e-4)
        key = position if self._moves else 0
        if key not in self._tables:
            parts = [first_values(self.base, part.tolist(), key).float().cpu() for part in torch.split(self._tokens(), 4096)]
            self._tables[key] = torch.cat(parts)
        return self._tables[key]


def read(base: Base, form: Form) -> list[int]:
    """The token nearest to every vector."""
    return _Readings(base).read(form)
