"""The loop alone, under a fake objective whose scores and losses are scripted."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from epigraph.errors import Diverged
from epigraph.methods.watched import Watched
from epigraph.prompts import Embedded, Form, TokenPrompt
from epigraph.tuning.loop import MOST_ROLLBACKS, Loop, Moment, Settings, run_together
from epigraph.tuning.state import load_states

SETTINGS = Settings(epochs=4, batch=2, rate=0.05, warmup=0.1, clip=1.0, patience=4, seed=0)


class Scripted:
    """A quadratic loss over 6 rows; ``spoil`` may change a loss by its number, ``scores`` are given out in turn."""

    metric = "accuracy"
    lengths = (1, 2, 3, 4, 5, 6)

    def __init__(self, scores: Sequence[float] = (), spoil: Callable[[int], float] = lambda _n: 1.0) -> None:
        self.scores, self.spoil = list(scores), spoil
        self.asked = self.watched = 0

    at_once = 100

    def weight(self, rows: Sequence[int]) -> float:
        return float(len(rows))

    def rows_at_once(self, rows: Sequence[int], prompts: int) -> int:
        return self.at_once

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Sequence[Sequence[Form]]) -> list[Tensor]:
        return [self.loss(rows, forms) for rows, forms in zip(chosen, prompts, strict=True)]

    def loss(self, chosen: Sequence[int], forms: Sequence[Form]) -> Tensor:
        self.asked += 1
        (form,) = forms
        assert isinstance(form, Embedded)
        return ((form.vectors - sum(chosen)) ** 2).mean() * self.spoil(self.asked)

    def watch(self, forms: Sequence[Form]) -> Watched:
        self.watched += 1
        score = self.scores[min(self.watched, len(self.scores)) - 1] if self.scores else 0.1 * self.watched
        return Watched(score, -float(self.watched))


def make_loop(objective: Scripted, *, moments: list[Moment] | None = None, **changes: int) -> Loop:
    start = torch.linspace(-1, 1, 6).reshape(2, 3)
    prompt = TokenPrompt([Embedded(start)])
    said = [] if moments is None else moments
    return Loop(prompt, objective, replace(SETTINGS, **changes), said.append)


def vectors(loop: Loop) -> Tensor:
    return loop.prompt.fold()[0].vectors


def broken(*numbers: int) -> Callable[[int], float]:
    return lambda n: float("nan") if n in numbers else 1.0


def test_it_stops_without_a_gain_and_keeps_the_best() -> None:
    kept: list[Tensor] = []
    objective = Scripted([0.2, 0.6, 0.5, 0.6, 0.4, 0.9])
    loop = make_loop(objective, epochs=20, patience=3)
    loop.listener = lambda m: kept.append(vectors(loop)) if m.score is not None else None
    state = loop.run()
    assert (state.stopped, state.best_step, state.best_score) == (True, 6, 0.6)
    assert len(kept) == 5  # validations 3 to 5 gained nothing
    assert torch.equal(vectors(loop), kept[1])
    assert not torch.equal(vectors(loop), kept[4])


def test_a_lower_loss_at_the_same_score_is_better_and_a_gain() -> None:
    """Accuracy on a few rows stands still while the loss falls: a patience that counted scores only stopped far too soon."""

    class Falling(Scripted):
        def watch(self, forms: Sequence[Form]) -> Watched:
            return Watched(0.5, float(super().watch(forms).minus_loss + 100 + 2 * self.watched))

    state = make_loop(Falling([0.5]), epochs=20, patience=3).run()
    assert not state.stopped
    assert state.best_step == state.step == 60


def test_within_a_standard_error_the_lower_loss_is_kept() -> None:
    """A checkpoint that got one more validation row right was kept, and was four points worse on the test rows."""

    class Noisy(Scripted):
        def watch(self, forms: Sequence[Form]) -> Watched:
            score = super().watch(forms).score
            return Watched(score, -1.0 + 0.1 * self.watched, 0.05)

    assert make_loop(Noisy([0.80, 0.90, 0.88, 0.70])).run().best_step == 9
    assert make_loop(Noisy([0.80, 0.90, 0.84, 0.70])).run().best_step == 6


def test_it_validates_every_few_epochs_and_at_the_end() -> None:
    moments: list[Moment] = []
    make_loop(Scripted(), moments=moments, epochs=5, every=2).run()
    assert [m.epoch for m in moments if m.score is not None] == [2, 4, 5]


def test_a_blind_loop_learns_from_its_rows_and_keeps_its_last_prompt() -> None:
    objective = Scripted()
    loop = Loop(make_loop(objective).prompt, objective, SETTINGS, lambda _moment: None, rows=[0, 1, 4], blind=True)
    loop.pause_after(3)
    assert {row for _ in range(1) for row in loop.rows()} <= {0, 1, 4}
    run_together([loop])
    assert (objective.watched, loop.state.step, loop.state.best) == (0, 6, {})


def test_a_round_that_is_interrupted_halfway_is_taken_back(tmp_path: Path) -> None:
    """One of two had taken its step: resumed, they no longer shared their passes, and ended in other last bits."""
    file = tmp_path / "state.safetensors"
    loops = [make_loop(Mean(), seed=n) for n in range(2)]

    def listen(moment: Moment) -> None:
        if moment.step == 5:
            raise KeyboardInterrupt("stop")

    loops[0].listener = listen
    with pytest.raises(KeyboardInterrupt, match="stop"):
        run_together(loops, file)
    assert [state.step for state, _ in load_states(file)] == [4, 4]


def test_it_runs_to_the_end_while_it_gains() -> None:
    objective = Scripted()
    state = make_loop(objective, patience=1).run()
    assert (state.step, state.best_step, state.stopped) == (12, 12, False)
    assert (objective.asked, objective.watched) == (12, 4)


def test_a_loss_that_is_not_finite_rolls_back_with_half_the_rate() -> None:
    moments: list[Moment] = []
    loop = make_loop(Scripted(spoil=broken(5)), moments=moments)
    state = loop.run()
    note = next(i for i, m in enumerate(moments) if m.note)
    assert moments[note].note == "loss nan: back to step 3 with half the rate"
    assert (state.rollbacks, state.scale, state.step) == (1, 0.5, 12)
    assert moments[note + 1].step == 4
    assert moments[note + 1].rate == pytest.approx(moments[3].rate / 2)
    assert torch.isfinite(vectors(loop)).all()


def test_before_the_first_validation_it_rolls_back_to_the_start() -> None:
    loop = make_loop(Scripted(spoil=broken(2)), epochs=1)
    halved = make_loop(Scripted(), epochs=1)
    halved.optimiser.scale = halved.state.scale = 0.5
    loop.run()
    halved.run()
    assert torch.equal(vectors(loop), vectors(halved))


def test_a_gradient_that_is_not_finite_rolls_back_too() -> None:
    """A finite loss with an infinite gradient made every parameter nan in one step."""

    class Steep(Scripted):
        def loss(self, chosen: Sequence[int], forms: Sequence[Form]) -> Tensor:
            found = super().loss(chosen, forms)
            (form,) = forms
            assert isinstance(form, Embedded)
            return found + (form.vectors.sum() * 0).sqrt() if self.asked == 5 else found

    loop = make_loop(Steep())
    assert loop.run().rollbacks == 1
    assert torch.isfinite(vectors(loop)).all()


def test_it_gives_up_after_five_roll_backs() -> None:
    moments: list[Moment] = []
    loop = make_loop(Scripted(spoil=lambda n: float("inf") if n > 3 else 1.0), moments=moments)
    with pytest.raises(Diverged, match=r"the loss was inf after 5 roll-backs, at a rate of .* Lower --rate"):
        loop.run()
    assert sum(bool(m.note) for m in moments) == MOST_ROLLBACKS == 5


@pytest.mark.parametrize("stop", range(1, 12))
@pytest.mark.parametrize("spoilt", [(), (5,), (8, 9)])
def test_resumed_after_any_step_it_ends_the_same(tmp_path: Path, stop: int, spoilt: tuple[int, ...]) -> None:
    """With a roll-back behind or before it.

    The state once did not hold what to roll back to: a resumed tuning went back to where it was resumed, not to the last
    validation, and ended in another prompt.
    """
    whole = make_loop(Scripted(spoil=broken(*spoilt)))
    whole_state = whole.run()
    objective, file = Scripted(spoil=broken(*spoilt)), tmp_path / "state.safetensors"
    first = make_loop(objective)

    def listen(_moment: Moment) -> None:
        if objective.asked == stop:
            raise KeyboardInterrupt("stop")

    first.listener = listen
    with pytest.raises(KeyboardInterrupt, match="stop"):
        first.run(file)
    second = make_loop(objective)
    second.resume(*load_states(file)[0])
    state = second.run(file)
    assert torch.equal(vectors(second), vectors(whole))
    assert (state.step, state.rollbacks, state.scale, state.best_step, state.best_score) == (
        whole_state.step,
        whole_state.rollbacks,
        whole_state.scale,
        whole_state.best_step,
        whole_state.best_score,
    )


def test_a_finished_tuning_that_is_resumed_does_nothing(tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    loop = make_loop(Scripted())
    loop.run(file)
    objective = Scripted()
    again = make_loop(objective)
    again.resume(*load_states(file)[0])
    again.run(file)
    assert objective.asked == 0
    assert torch.equal(vectors(again), vectors(loop))


def test_loops_side_by_side_end_as_each_alone() -> None:
    """Other lengths of training, rates and seeds: each keeps its own order, moments, stop and roll-backs."""
    changes: list[dict[str, int]] = [{"seed": 1}, {"seed": 2, "epochs": 2}, {"seed": 3, "batch": 4}]
    together = [make_loop(Scripted(), **c) for c in changes]
    run_together(together)
    for loop, c in zip(together, changes, strict=True):
        alone = make_loop(Scripted(), **c)
        alone.run()
        assert torch.equal(vectors(loop), vectors(alone))
        assert loop.state.step == alone.state.step


def test_a_loop_that_rolls_back_leaves_its_neighbour_alone() -> None:
    alone = make_loop(Scripted())
    alone.run()
    good = make_loop(Scripted())
    bad = make_loop(Scripted(spoil=broken(5)), seed=9)
    objective = good.objective
    assert isinstance(objective, Scripted)
    good_and_bad = Pair(good, bad)
    good.objective = bad.objective = good_and_bad
    run_together([good, bad])
    assert bad.state.rollbacks == 1
    assert good.state.rollbacks == 0
    assert torch.equal(vectors(good), vectors(alone))


class Pair(Scripted):
    """Gives each of two loops its own scripted objective."""

    def __init__(self, *loops: Loop) -> None:
        super().__init__()
        self.own = {id(loop.prompt): loop.objective for loop in loops}
        self.by_count = [loop.objective for loop in loops]

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Sequence[Sequence[Form]]) -> list[Tensor]:
        if len(chosen) == 2:
            pairs = zip(self.by_count, chosen, prompts, strict=True)
            return [objective.losses([rows], [forms])[0] for objective, rows, forms in pairs]
        return self.by_count[1].losses(chosen, prompts)


class Mean(Scripted):
    """A loss that is a mean over rows, as all real ones are."""

    def loss(self, chosen: Sequence[int], forms: Sequence[Form]) -> Tensor:
        self.asked += 1
        (form,) = forms
        assert isinstance(form, Embedded)
        return torch.stack([((form.vectors - row) ** 2).mean() for row in chosen]).mean()


def test_rows_that_do_not_fit_at_once_are_taken_in_parts_and_end_the_same() -> None:
    whole, parted = Mean(), Mean()
    parted.at_once = 3
    loops = [make_loop(whole, batch=4), make_loop(parted, batch=4)]
    for loop in loops:
        loop.run()
    assert parted.asked > whole.asked
    torch.testing.assert_close(vectors(loops[1]), vectors(loops[0]), atol=1e-6, rtol=1e-6)
