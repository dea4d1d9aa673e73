from dataclasses import replace

import pytest

from epigraph.config import TuneConfig, parse_budget
from epigraph.errors import ConfigError
from epigraph.tasks.task import Task
from epigraph.tuning.choices import choose
from epigraph.tuning.search.choosing import Chosen, choose_trials
from epigraph.tuning.search.costs import Costs
from epigraph.tuning.search.space import near_trials, other_trials

TASK = Task.from_rows([f"text {i}" for i in range(8)], ["good", "bad"] * 4)


def chosen(rows: int = 1000, *, costs: Costs | None = None, left: float = 0.0, **settings: object) -> Chosen:
    config = TuneConfig(**settings)  # type: ignore[arg-type]

    def measure() -> Costs:
        assert costs is not None, "measured though the budget is no time"
        return costs

    return choose_trials(
        config,
        choose(config, TASK, rows),
        rows,
        plain=False,
        differs=lambda trial: True,
        measure=measure,
        seconds_left=left,
    )


def test_the_defaults_come_first_and_what_was_asked_is_fixed() -> None:
    config = TuneConfig(rate=0.07, start="vocab")
    trials = near_trials(config, choose(config, TASK, 100), 100)
    assert (trials[0].length, trials[0].place, trials[0].kind) == (8, "template", "kv")
    assert {trial.loop.rate for trial in trials} == {0.07}
    assert {trial.start for trial in trials} == {"vocab"}
    assert [trial.length for trial in trials] == [8, 32]


@pytest.mark.parametrize(("rows", "count"), [(20, 8), (150, 16), (1000, 4)])
def test_few_rows_are_searched_widely(rows: int, count: int) -> None:
    found = chosen(rows)
    assert len(found.trials) == count
    assert found.reason.startswith(f"{count}: with {rows} rows")
    assert len(set(map(str, found.trials))) >= count - 1  # epochs are not in the name


def test_everything_asked_is_no_search() -> None:
    asked = {"rate": 0.1, "length": 4, "start": "text", "epochs": 3}
    assert len(chosen(100, **asked).trials) == 1
    assert len(chosen(100, budget="1").trials) == 1
    assert len(chosen(place="first").trials) == 1  # every text is read anew at every step


def test_a_number_of_trials_goes_on_with_other_seeds() -> None:
    found = chosen(1000, budget="3", rate=0.1, length=4, kind="kv", start="text").trials
    assert [trial.loop.seed for trial in found] == [0, 1, 2]
    assert [trial.loop.seed for trial in chosen(1000, ensemble=3).trials] == [0, 1, 2]
    assert len(chosen(1000, trials=5).trials) == 5


def test_a_number_of_trials_tries_kinds_places_and_starts_before_other_seeds() -> None:
    """``--budget 12`` tuned the first four of eight settings again at another seed, and no other kind, place or start."""
    found = chosen(1000, budget="14").trials
    assert {trial.loop.seed for trial in found[:13]} == {0}
    assert [(trial.kind, trial.place, trial.start) for trial in found[8:13]] == [
        ("token", "template", "text"),
        ("kv", "first", "text"),
        ("token", "first", "text"),
        ("kv", "both", "text"),
        ("kv", "template", "labels"),
    ]
    assert (found[13], found[13].loop.seed) == (replace(found[0], loop=found[13].loop), 1)
    assert {trial.kind for trial in chosen(1000, budget="14", kind="kv").trials} == {"kv"}
    assert {trial.place for trial in chosen(1000, budget="14", place="last").trials} == {"last"}
    assert {trial.place for trial in chosen(1000, budget="14", ensemble=2).trials} == {
        "template"
    }  # members share a template
    few = chosen(150, budget="20").trials
    assert len(set(few)) == 20  # 16 around the defaults, the labels' start among them, and four other kinds and places


def test_starts_that_have_a_length_are_tried_at_it() -> None:
    """A stored prompt of keys and values was "tried" at four times its length, which was the same prompt again."""
    for start in ("prompt:routing@1", "examples"):
        config = TuneConfig(start=start)
        choices = choose(config, TASK, 1000)
        trials = [*near_trials(config, choices, 1000), *other_trials(config, choices, plain=False)]
        assert {trial.length for trial in trials} == {choices.length}
        assert ({trial.kind for trial in trials} == {"kv"}) is start.startswith("prompt:")


def test_a_time_takes_what_fits_and_names_what_does_not() -> None:
    from epigraph.tasks.encode import Encoded

    rows = [Encoded(((1,) * 40, (2, 3)))] * 100
    costs = Costs(rows=rows, held=20, folds=0, seconds_a_token=1e-4, frozen=True)
    config = TuneConfig()
    near = choose(config, TASK, 100)
    one = costs.seconds(near_trials(config, near, 100)[0])
    first, both = (costs.seconds(other_trials(config, near, plain=False)[i]) for i in (1, 3))
    assert both >= first > 10 * one
    short, long = (chosen(100, budget="1s", costs=costs, left=factor * one) for factor in (2.2, 500))
    assert 1 < len(short.trials) < len(long.trials)
    assert any("kv first" in name for name in short.left_out)
    assert {trial.place for trial in long.trials} == {"template", "first", "both"}
    twice = replace(costs, again=1.2)  # what learns from all rows afterwards is in the time
    assert len(chosen(100, budget="1s", costs=twice, left=2.1 * one).trials) == 1
    assert chosen(100, budget="1s", costs=twice, left=2.2 * one).trials[0].loop.epochs == near.loop.epochs
    assert chosen(100, budget="1s", costs=twice, left=1.1 * one).trials[0].loop.epochs == near.loop.epochs // 2
    tight = chosen(100, budget="1s", costs=costs, left=0.4 * one)
    assert len(tight.trials) == 1
    assert tight.trials[0].loop.epochs < near.loop.epochs
    assert Chosen.from_dict(long.to_dict()) == Chosen(
        trials=long.trials, reason=long.reason, left_out=list(long.left_out), seconds=list(long.seconds)
    )


def test_budgets_as_they_are_written() -> None:
    assert [parse_budget(text) for text in ("60s", "5m", "12", "", "1.5m")] == [60.0, 300.0, 12, None, 90.0]
    for wrong in ("soon", "0", "1.5", "0s", "-3", "5 apples"):
        with pytest.raises(ConfigError, match="it is a time or a number of trials"):
            TuneConfig(budget=wrong)
    with pytest.raises(ConfigError, match="both trials 3 and budget 4"):
        TuneConfig(trials=3, budget="4")
    with pytest.raises(ConfigError, match="an ensemble of 3 was asked, but a budget of 2"):
        TuneConfig(ensemble=3, budget="2")
