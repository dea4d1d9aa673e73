"""``fix``: a handful of corrections learned by a stored prompt without its training data, so that its other answers stay.

    corrections ──────┐
    old prompt ───────┼─ step ─► new vectors ─► counted on texts apart ─ within tolerance? ─► a new version
    texts to hold ────┘   ▲                                         └─ too many change ─┐
                          └──────── without the corrections that cost most ◄────────────┘    none left: a refusal

Nothing is stored before everything is counted, and no text ever is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool

from epigraph.correct.answers import Changes, right_answers
from epigraph.correct.between import Tried, back_off, mixed, shortened
from epigraph.correct.corrections import Key, check_corrections, text_of, without
from epigraph.correct.fixed import FixResult, HeldOut, Mastered, compare_scores
from epigraph.correct.keep import Kept, given_texts, written_texts
from epigraph.correct.learning import Learned, Learning
from epigraph.correct.margins import Margins, kept_margins, wanted_margins
from epigraph.correct.settings import FixConfig
from epigraph.correct.vectors import Vectors
from epigraph.cost import Meter
from epigraph.errors import DataError, Unsupported
from epigraph.library import StoredPrompt
from epigraph.methods import judge
from epigraph.methods.judge import Answer
from epigraph.methods.solver import PromptedBase
from epigraph.model import PromptModel
from epigraph.prompts import Embedded, Form, KeyValue, plain_forms
from epigraph.tasks.row import Row
from epigraph.tuning.surroundings import Stage

GIVEN, WRITTEN, FEWEST_KEPT = 900, 200, 8  # texts to keep, held and apart


def fix(
    model: PromptModel,
    corrections: Sequence[Row],
    *,
    keep: Sequence[Row] = (),
    held_out: Sequence[Row] = (),
    config: FixConfig | None = None,
    keep_source: str = "those given",
    stage: Stage = lambda _name, _done, _total: None,
) -> FixResult:
    """Learn these corrections and count what changes elsewhere.

    ``keep`` are texts of the kind that the prompt serves, their labels unseen; without them the base writes some. ``held_out``
    are labelled rows that are only measured on. Where the loss elsewhere exceeds ``config.tolerance``, the result is ``refused``.

    Raises DataError for corrections that cannot be learned, Unsupported for ensembles and prompts that depend on the input.
    """
    return Fixing(model, corrections, keep, held_out, config or FixConfig(), keep_source, stage).run()


@dataclass
class Fixing:
    """One correction of one prompt."""

    model: PromptModel
    asked: Sequence[Row]
    keep: Sequence[Row]
    held_out: Sequence[Row]
    config: FixConfig
    keep_source: str
    stage: Stage
    ways: dict[int, tuple[Learned, list[Form]]] = field(default_factory=dict, init=False)

    def run(self) -> FixResult:
        """From the corrections to a result."""
        meter, engine = Meter(), self.solver.engine
        flops, old, before = engine.flops, self.old, self.right_before
        if before.all():
            raise DataError(
                f"all {len(self.corrections)} corrections are answered right already by {self.model.card.reference}: "
                "there is nothing to learn.",
                "Give rows that it answers wrong: epigraph errors NAME --data FILE --csv corrections.csv",
            )
        _ = self.old_answers
        read_seconds = meter.seconds
        taken, tried = self._back_off()
        learn_seconds = meter.seconds - read_seconds
        forms = old if taken is None else self._forms(taken.asked, taken.step)
        right = right_answers(self.solver.with_forms(forms), self.corrections)
        shown = taken or tried[-1]
        cost = {
            "seconds": round(meter.seconds, 1),
            "reading_seconds": round(read_seconds, 1),
            "train_seconds": round(learn_seconds, 1),
            "steps": self.ways[shown.asked][0].steps,
            "trained_parameters": self.learning.vectors.size,
            "flops": engine.flops - flops,
            **meter.energy(),
        }
        return FixResult(
            parent=self.model.card,
            forms=forms,
            mastered=Mastered(
                rows=len(self.corrections),
                mastered=int(right.sum()),
                already=int(before.sum()),
                missed=tuple(row.line for row, ok in zip(self.corrections, right, strict=True) if not ok),
                given_up=len(self.corrections) - shown.asked,
            ),
            kept=self.kept.source,
            elsewhere=self._changed(forms, self.kept.apart),
            learned_from=self._changed(forms, self.kept.rows),
            expected=self.learning.expected(shown.asked),
            expected_of_all=self.learning.expected(len(self.corrections)),
            held_out=self._held_out(forms) if self.held_out else None,
            tried=tried,
            taken=taken,
            hold=self.learning.start.held.hold,
            config=self.config,
            cost=cost,
            warnings=tuple(self._warnings()),
        )

    # ---- what is there before ----------------------------------------------------------------------------------------

    @property
    def solver(self) -> PromptedBase:
        """The stored prompt on its base."""
        return self.model.method

    @cached_property
    def old(self) -> list[Form]:
        """The stored forms."""
        return check_fixable(StoredPrompt(card=self.model.card, forms=self.solver.forms))

    @cached_property
    def corrections(self) -> list[Row]:
        """What is to be learned."""
        return check_corrections(self.model.task, self.asked)

    @cached_property
    def right_before(self) -> Bool[np.ndarray, " N"]:
        """Which corrections the stored prompt answers right already."""
        return right_answers(self.solver, self.corrections)

    @cached_property
    def kept(self) -> Kept:
        """The texts whose answers shall stay. DataError where they are too few."""
        seed, most = self.config.seed, self.config.keep_rows or (GIVEN if self.keep else WRITTEN)
        if self.keep:
            apart = without(self.keep, self.held_out)
            kept = given_texts(apart, self.corrections, most=most, seed=seed, source=self.keep_source)
        else:
            self.stage("writing texts", 0, most)
            kept = written_texts(self.solver.engine, self.model.task, self.corrections, count=most, seed=seed)
            self.stage("writing texts", most, most)
        if len(kept.both) < FEWEST_KEPT:
            raise DataError(
                f"there are {len(kept.both)} texts to keep the answers of (corrected ones left out); {FEWEST_KEPT} are needed.",
                "Give a file of more texts like those that the prompt serves, labels not needed: --keep texts.csv",
            )
        return kept

    @cached_property
    def old_answers(self) -> Mapping[Key, Answer]:
        """What the stored prompt answers to them, by text."""
        rows = self.kept.both
        self.solver.engine.freeze(
            self.solver.encode([*self.corrections, *rows]),
            lambda done, total: self.stage("reading the texts once", done, total),
        )
        given = judge.answer(self.solver, rows).given
        return {text_of(row): answer for row, answer in zip(rows, given, strict=True)}

    # ---- the step ----------------------------------------------------------------------------------------------------

    @property
    def shared(self) -> bool:
        """Whether several blocks are one."""
        return len(self.old) > 1 and bool(self.model.card.settings.get("share_blocks"))

    @cached_property
    def learning(self) -> Learning:
        """The corrections and the texts that are held."""
        vectors = Vectors(self.old, self.solver.engine.base.device, shared=self.shared)
        wanted, kept = wanted_margins(self.solver, self.corrections), self._margins(self.kept.rows)
        return Learning(
            vectors, wanted, kept, self.config, lambda done, of: self.stage("learning the corrections", done, of)
        )

    def _margins(self, rows: Sequence[Row]) -> Margins:
        """By how much the old answers are given, but to texts with a single choice: no prompt answers those otherwise."""
        found = [row for row in rows if len(row.choices) != 1]
        return kept_margins(self.solver, found, [self.old_answers[text_of(row)] for row in found])

    def _back_off(self) -> tuple[Tried | None, list[Tried]]:
        most = int(self.config.tolerance * len(self.kept.apart) + 1e-9)
        before, asked = int(self.right_before.sum()), len(self.corrections)
        return back_off(self._look, self.learning.expected, asked=asked, most=most, before=before)

    def _look(self, count: int) -> Tried:
        """Learn so many corrections, and count."""
        learned = self.learning.learn(count)
        self.ways[count] = learned, [_plain(form) for form in self.learning.vectors.forms(learned.moved)]

        def mastered(t: float) -> int:
            return int(right_answers(self.solver.with_forms(self._forms(count, t)), self.corrections).sum())

        step = shortened(mastered)
        return Tried(count, step, mastered(step), self._changed(self._forms(count, step), self.kept.apart).changed)

    def _forms(self, count: int, step: float) -> list[Form]:
        """The forms at this step towards so many corrections."""
        return mixed(self.old, self.ways[count][1], step)

    # ---- what it changes ---------------------------------------------------------------------------------------------

    def _changed(self, forms: Sequence[Form], rows: Sequence[Row]) -> Changes:
        """Over these texts; their labels, where they have any, stay unseen."""
        new = judge.answer(self.solver.with_forms(forms), rows).given
        differs = sum(self.old_answers[text_of(row)] != answer for row, answer in zip(rows, new, strict=True))
        return Changes(rows=len(new), changed=int(differs))

    def _held_out(self, forms: Sequence[Form]) -> HeldOut | None:
        rows = without(self.held_out, self.corrections)
        if not rows:
            raise DataError("all held-out rows are among the corrections.", "Give rows of which none is corrected: --data.")
        old, new = self.solver, self.solver.with_forms(forms)
        return compare_scores(old, new, rows)

    def _warnings(self) -> list[str]:
        found = []
        twice = len(self.asked) - len(self.corrections)
        if twice:
            found.append(f"{twice} corrections stand there twice; each counts once")
        if self.right_before.any():
            found.append(f"{int(self.right_before.sum())} corrections were answered right already; they are kept so")
        shared = len(without(self.keep, ())) - len(without(self.keep, self.held_out))
        if shared:
            found.append(f"{shared} texts to keep are held out as well; they were only measured on, not kept")
        return found


def check_fixable(stored: StoredPrompt) -> list[Form]:
    """The forms to move. Unsupported for several prompts that vote, and for one that depends on the input."""
    card = stored.card
    if card.members > 1:
        raise Unsupported(
            f"{card.reference} is an ensemble of {card.members} prompts, of which none can be corrected alone.",
            f"Tune one from its best member: epigraph tune train.csv --start prompt:{card.reference}",
        )
    return plain_forms(stored.forms, f"a correction of {card.reference}")


def _plain(form: Form) -> Form:
    """As a folder keeps it: fp32, on the CPU."""
    if isinstance(form, Embedded):
        return Embedded(form.vectors.detach().float().cpu().contiguous())
    return KeyValue(form.keys.detach().float().cpu().contiguous(), form.values.detach().float().cpu().contiguous())
