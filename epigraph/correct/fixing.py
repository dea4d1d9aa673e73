"""``fix``: a handful of corrections learned by a stored prompt without its training data, so that its other answers stay.

    corrections ─┐
    old prompt ──┼─ step ─► new vectors ─ back off ─ the rest by heart ─► counted elsewhere ─ within tolerance? ─► a new version,
    other texts ─┘                                                                                              or a refusal

Nothing is stored before everything is counted, and no text ever is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from jaxtyping import Bool

from epigraph.correct.answers import Changes, right_answers
from epigraph.correct.between import Tried, back_off, mixed
from epigraph.correct.corrections import check_corrections, without
from epigraph.correct.fixed import FixResult, HeldOut, Mastered, compare_scores
from epigraph.correct.heart import learn_by_heart
from epigraph.correct.keep import Kept, given_texts, written_texts
from epigraph.correct.margins import kept_margins, wanted_margins
from epigraph.correct.settings import FixConfig
from epigraph.correct.step import Learned, Vectors, learn
from epigraph.cost import Meter
from epigraph.engine.inspection import answer_looks
from epigraph.errors import DataError, Unsupported
from epigraph.library import StoredPrompt
from epigraph.methods import judge
from epigraph.methods.judge import Answer
from epigraph.methods.solver import PromptedBase
from epigraph.model import PromptModel
from epigraph.prompts import Embedded, Form, KeyValue, plain_forms
from epigraph.tasks.row import Row
from epigraph.tuning.surroundings import Stage

GIVEN, WRITTEN, FEWEST_KEPT = 400, 200, 8  # texts to keep
RESERVE = 0.45  # of the tolerance may be expected to change: up to five times as much does (benchmarks/README.md)
BESIDE_HEART = 0.12  # of the tolerance, where what is given up can still be learned by heart
NEARER = 2.0  # times as many answers turn on texts that the base writes: they lie nearer to where answers change


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
        vectors = Vectors(old, engine.base.device, shared=self.shared)
        learned = self._learn(vectors)
        learn_seconds = meter.seconds - read_seconds
        new = [_plain(form) for form in vectors.forms(learned.moved)]
        taken, tried = self._back_off(new)
        stepped = old if taken is None else mixed(old, new, taken.step)
        by_step = right_answers(self.solver.with_forms(stepped), self.corrections)
        forms = self._by_heart(stepped, by_step)
        right = right_answers(self.solver.with_forms(forms), self.corrections)
        elsewhere = self._elsewhere(forms)
        cost = {
            "seconds": round(meter.seconds, 1),
            "reading_seconds": round(read_seconds, 1),
            "train_seconds": round(learn_seconds, 1),
            "steps": learned.steps,
            "trained_parameters": vectors.size,
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
                given_up=sum(not right[i] for i in learned.given_up),
                by_heart=int((right & ~by_step).sum()),
            ),
            kept=self.kept.source,
            elsewhere=elsewhere,
            expected=learned.expected_share,
            expected_of_all=learned.asked_share,
            held_out=self._held_out(forms) if self.held_out else None,
            tried=tried,
            taken=taken,
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
        if len(kept.rows) < FEWEST_KEPT:
            raise DataError(
                f"there are {len(kept.rows)} texts to keep the answers of ({kept.source}, corrected ones left out); "
                f"{FEWEST_KEPT} are needed.",
                "Give a file of more texts like those that the prompt serves, labels not needed: --keep texts.csv",
            )
        return kept

    @cached_property
    def old_answers(self) -> list[Answer]:
        """What the stored prompt answers to them."""
        rows = self.kept.rows
        self.solver.engine.freeze(
            self.solver.encode([*self.corrections, *rows]),
            lambda done, total: self.stage("reading the texts once", done, total),
        )
        return list(judge.answer(self.solver, rows).given)

    # ---- the step ----------------------------------------------------------------------------------------------------

    @property
    def shared(self) -> bool:
        """Whether several blocks are one."""
        return len(self.old) > 1 and bool(self.model.card.settings.get("share_blocks"))

    def _learn(self, vectors: Vectors) -> Learned:
        wanted = wanted_margins(self.solver, self.corrections)
        kept = kept_margins(self.solver, *self._changeable())
        reserve = BESIDE_HEART if self.heart_fits else RESERVE
        afford = self.config.tolerance * reserve * (1.0 if self.keep else NEARER)
        return learn(
            vectors, wanted, kept, self.config, afford, lambda done, of: self.stage("learning the corrections", done, of)
        )

    def _changeable(self) -> tuple[list[Row], list[Answer]]:
        """The kept texts with their answers, but those with a single choice: no prompt answers them otherwise, by any margin."""
        both = zip(self.kept.rows, self.old_answers, strict=True)
        found = [(row, answer) for row, answer in both if len(row.choices) != 1]
        return [row for row, _ in found], [answer for _, answer in found]

    def _back_off(self, new: Sequence[Form]) -> tuple[Tried | None, list[Tried]]:
        def mastered(t: float) -> int:
            return int(right_answers(self.solver.with_forms(mixed(self.old, new, t)), self.corrections).sum())

        def changed(t: float) -> int:
            return self._elsewhere(mixed(self.old, new, t)).changed

        return back_off(mastered, changed, most=self._most, before=int(self.right_before.sum()))

    @property
    def _most(self) -> int:
        """How many answers to the kept texts may change."""
        return int(self.config.tolerance * len(self.kept.rows) + 1e-9)

    @cached_property
    def heart_fits(self) -> bool:
        """Whether corrections can be learned by heart: one block of keys and values, one label a row, and no text behind the prompt,
        which would look at it as well."""
        rows = self.solver.encode([*self.corrections, *self.kept.rows])
        one = len(self.old) == 1 and isinstance(self.old[0], KeyValue) and len({row.segments[-1] for row in rows}) == 1
        return one and self.model.task.has_labels and not self.solver.engine.plain

    def _by_heart(self, forms: list[Form], right: Bool[np.ndarray, " N"]) -> list[Form]:
        """What the step left, learned where no text looks; the same forms where that is no gain or changes too much."""
        left = [row for row, ok in zip(self.corrections, right, strict=True) if not ok]
        if not left or not self.heart_fits:
            return forms
        rest = [*(row for row, ok in zip(self.corrections, right, strict=True) if ok), *self.kept.rows]
        solver, form = self.solver.with_forms(forms), forms[0]
        assert isinstance(form, KeyValue)
        asked, others = solver.encode(left), solver.encode(rest)
        wanted = answer_looks(solver.engine, asked, forms, solver.tree)
        kept = answer_looks(solver.engine, others, forms, solver.tree, tokens=len(asked[0].segments[-1]))
        told = partial(self.stage, "learning the rest by heart")
        new: list[Form] = [_plain(learn_by_heart(form, wanted_margins(solver, left), wanted, kept, told))]
        gains = right_answers(self.solver.with_forms(new), self.corrections).sum() > right.sum()
        return new if gains and self._elsewhere(new).changed <= self._most else forms

    # ---- what it changes ---------------------------------------------------------------------------------------------

    def _elsewhere(self, forms: Sequence[Form]) -> Changes:
        """Over the kept texts; their labels, where they have any, stay unseen."""
        new = judge.answer(self.solver.with_forms(forms), self.kept.rows).given
        differs = sum(a != b for a, b in zip(self.old_answers, new, strict=True))
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
