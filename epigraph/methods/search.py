"""The optimised hard prompt: a search over words on the frozen base itself; no other model, no gradient.

    instruction → where it stands → the labels' words → examples → their order        calibrated or not, at every step

Each step keeps the best so far and changes one part of it; the score is the task's metric on at most 64 validation rows,
then the lower loss. It ends when its candidates or seconds are spent. Sources: coordinate search over instructions and
examples as MIPRO has it (Opsahl-Ong et al. 2024, https://arxiv.org/abs/2406.11695), templates instead of a proposing model;
order of examples: Lu et al. 2022, https://arxiv.org/abs/2104.08786; words: ``label_words``; calibration: ``calibration``.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from epigraph.engine import Engine
from epigraph.errors import EpigraphError
from epigraph.methods.calibration import calibrate
from epigraph.methods.choice import CHOOSING_ROWS, LONGEST_IN_PLACE
from epigraph.methods.hard import few_shot, instruction_first, instruction_in_place
from epigraph.methods.label_words import mine_words
from epigraph.methods.ranking import Rank, rank, rank_method
from epigraph.methods.shift import CONTEXTUAL
from epigraph.methods.shots import draw_balanced, draw_random, with_prefix_read
from epigraph.methods.solver import Probabilities, PromptedBase
from epigraph.methods.wording import is_template
from epigraph.metrics import upward
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

SHOTS = (4, 8, 16)
ORDERS = 3


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One hard prompt: what it says, where, in which words for the labels, behind which examples."""

    instruction: str
    in_place: bool = False
    words: Mapping[str, str] = field(default_factory=dict)
    examples: tuple[Row, ...] = ()

    @property
    def name(self) -> str:
        """In a few words."""
        said = self.instruction if len(self.instruction) < 60 else f"{self.instruction[:57]}…"
        words = f", words {'/'.join(self.words.values())}" if self.words else ""
        shots = f", {len(self.examples)} examples" if self.examples else ""
        return f"{said!r}{' in place' if self.in_place else ''}{words}{shots}"


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A candidate with its score on validation."""

    candidate: Candidate
    calibrated: bool
    score: Rank


@dataclass(frozen=True, kw_only=True)
class Found:
    """Where a search ended: the best hard prompt, and all that were tried, in order."""

    method: PromptedBase
    best: Tried
    tried: Sequence[Tried]

    @property
    def reason(self) -> str:
        """Why this one."""
        first, last = (upward(self.method.task.metric, one.score[0]) for one in (self.tried[0], self.best))
        gain = f"{first:.3f} → {last:.3f}"
        return f"best of {len(self.tried)} hard prompts on validation ({gain}): {self.best.candidate.name}"


@dataclass(frozen=True, kw_only=True)
class SearchLimits:
    """When a search ends: after so many candidates, or seconds."""

    candidates: int = 24
    seconds: float | None = None


class HardPromptSearch:
    """One search. ``run`` does it."""

    def __init__(
        self, engine: Engine, task: Task, train: Sequence[Row], validation: Sequence[Row], *, output_tokens: int, seed: int
    ) -> None:
        self.engine, self.task, self.train = engine, task, list(train)
        self.validation, self.output_tokens, self.seed = list(validation)[:CHOOSING_ROWS], output_tokens, seed
        self.tried: list[Tried] = []

    def run(self, limits: SearchLimits) -> Found:
        """The best hard prompt within the limits; at least the first is tried."""
        self.left, self.until = limits.candidates, None
        if limits.seconds is not None:
            self.until = time.monotonic() + limits.seconds
        for step in (self._instructions, self._places, self._words, self._examples, self._orders, self._other_instructions):
            for candidate in step():
                if not self._go_on:
                    break
                self._try(candidate)
        best = max(self.tried, key=lambda one: one.score)
        solver = self._solver(best.candidate)
        method = calibrate(solver, CONTEXTUAL) if best.calibrated else solver
        return Found(method=method, best=best, tried=self.tried)

    # ---- steps: each changes one part of the best so far -------------------------------------------------------------

    def _instructions(self) -> list[Candidate]:
        return [Candidate(instruction=text) for text in instructions(self.task)]

    def _places(self) -> list[Candidate]:
        best = self._best
        short = len(self.engine.base.tokenize(best.instruction)) <= LONGEST_IN_PLACE
        return [replace(best, in_place=True)] if short and best.instruction else []

    def _words(self) -> list[Candidate]:
        if not self.task.knows_labels:
            return []
        best, given = self._best, dict(self.task.labels)
        capital = {label: words[:1].upper() + words[1:] for label, words in given.items()}
        mined = mine_words(self._solver(best), self.train) if self.task.has_labels else {}
        sets = [capital, mined, *({**given, label: word} for label, word in mined.items())]
        return [replace(best, words=words) for words in sets if words and words != given]

    def _examples(self) -> list[Candidate]:
        found = []
        for number, shots in enumerate(SHOTS):
            for draw in (draw_balanced, draw_random):
                examples = draw(self.engine, self.task, self.train, shots, self.seed + 17 * number)
                found.append(replace(self._best, in_place=False, examples=tuple(examples)))
        return [candidate for candidate in found if candidate.examples]

    def _orders(self) -> list[Candidate]:
        best, draw = self._best, random.Random(self.seed)
        if len(best.examples) < 2:
            return []
        orders = [best.examples[::-1], *(draw.sample(best.examples, len(best.examples)) for _ in range(ORDERS - 1))]
        return [replace(best, examples=tuple(order)) for order in orders]

    def _other_instructions(self) -> list[Candidate]:
        best = self._best
        others = [text for text in instructions(self.task) if text != best.instruction]
        return [replace(best, instruction=text) for text in others] if best.examples else []

    # ---- one candidate -----------------------------------------------------------------------------------------------

    def _try(self, candidate: Candidate) -> None:
        self.left -= 1
        try:
            solver = self._solver(candidate)
            if self.task.writes:
                self._note(candidate, rank_method(solver, self.validation))
                return
            found = solver.probabilities(self.validation)
            self._note(candidate, rank(self.task, self.validation, found))
            shifted = self._calibrated(calibrate(solver, CONTEXTUAL), found)
            self._note(candidate, rank(self.task, self.validation, shifted), calibrated=True)
        except EpigraphError:
            if not self.tried:
                raise  # the first must work; a longer one may not fit, or two labels may share their words

    def _calibrated(self, solver: PromptedBase, found: Probabilities) -> Probabilities:
        """The same probabilities calibrated; of a row's own choices they are asked for anew."""
        if solver.shift is None or not self.task.knows_labels:
            return solver.probabilities(self.validation)
        return solver.shift.labels(found) if self.task.has_labels else solver.shift.sets(found)

    def _note(self, candidate: Candidate, score: Rank, *, calibrated: bool = False) -> None:
        self.tried.append(Tried(candidate=candidate, calibrated=calibrated, score=score))

    def _solver(self, candidate: Candidate) -> PromptedBase:
        labels = {**self.task.labels, **candidate.words}
        task = replace(self.task, instruction=candidate.instruction, labels=labels)
        if candidate.examples:
            return with_prefix_read(few_shot(self.engine, task, list(candidate.examples), self.output_tokens))
        build: Callable[..., PromptedBase] = instruction_in_place if candidate.in_place else instruction_first
        return with_prefix_read(build(self.engine, task, self.output_tokens))

    @property
    def _best(self) -> Candidate:
        return max(self.tried, key=lambda one: one.score).candidate

    @property
    def _go_on(self) -> bool:
        in_time = self.until is None or time.monotonic() < self.until
        return not self.tried or (self.left > 0 and in_time)


def instructions(task: Task) -> list[str]:
    """The task's instruction, its author's hard prompts, and plain ways to ask for the same."""
    asked, words = " and ".join(task.template.fields), ", ".join(task.labels.values())
    own = [task.instruction, *(text for text in task.hard_prompts if not is_template(task, text))]
    if not task.has_labels:
        return list(dict.fromkeys([*own, *_asked_otherwise(task, asked, words), "Answer as in the examples.", ""]))
    variants = [
        f"Read the {asked} and choose the label that fits best: {words}.",
        f"Which of these describes the {asked}: {words}?",
        f"You are an expert annotator. Label each {asked} with exactly one of: {words}.",
        f"{words}?",
        "",
    ]
    return list(dict.fromkeys([*own, *variants]))


def _asked_otherwise(task: Task, asked: str, words: str) -> list[str]:
    """Plain ways to ask for a text, for a row's own choice, or for all labels that fit."""
    if task.writes:
        return [f"Read the {asked} and write the output."]
    if not task.knows_labels:
        return [f"Read the {asked} and choose the right answer.", "Which answer is right?"]
    return [f"Read the {asked} and say of each label whether it fits: {words}.", f"Which of these fit the {asked}: {words}?"]
