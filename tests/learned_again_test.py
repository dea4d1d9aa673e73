from collections.abc import Callable
from dataclasses import replace

import pytest

from epigraph.base import Base
from epigraph.config import TuneConfig
from epigraph.tasks.task import Task
from epigraph.tuning import tune
from epigraph.tuning.loop import Listener, Loop
from epigraph.tuning.search import Contender, Lanes
from epigraph.tuning.training import CALMER

CONFIG = TuneConfig(rate=0.3, epochs=6, batch=8, budget="1", keep="soft", readings=1)


@pytest.mark.parametrize(
    ("wild", "said"), [(1, "steps over all rows at the rate 0.12, since a higher one"), (3, "so that one is kept")]
)
def test_a_prompt_that_fails_on_rows_it_has_learned_from_is_not_kept(
    toy: Base, toy_rows: Callable[..., list[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch, wild: int, said: str
) -> None:
    """SST-2: at the rate that validation liked, attention to the prompt saturated where it learned from all rows, which nothing
    watched: .913 on validation rows, .585 on test rows."""
    refit, calls = Lanes.refit, []

    def wilder(lanes: Lanes, contender: Contender, listener: Listener, *, calm: float = 1.0) -> Loop:
        calls.append(calm)
        return refit(lanes, contender, listener, calm=1e4 if len(calls) <= wild else calm)

    monkeypatch.setattr(Lanes, "refit", wilder)
    texts, labels = zip(*toy_rows(60), strict=True)
    result = tune(toy, Task.from_rows(texts, labels), CONFIG)
    assert said in result.reasons["stop"]
    assert calls == list(CALMER[: wild + 1])
    assert ("the prompt then learned from all" in result.reasons.get("validation", "")) is (wild == 1)


def test_another_try_stays_within_the_budget(
    toy: Base, toy_rows: Callable[..., list[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of three tries to learn from all rows took its time, where the budget had been planned for one."""
    refit, calls = Lanes.refit, []

    def wild(lanes: Lanes, contender: Contender, listener: Listener, *, calm: float = 1.0) -> Loop:
        calls.append(calm)
        return refit(lanes, contender, listener, calm=1e4)

    monkeypatch.setattr(Lanes, "refit", wild)
    texts, labels = zip(*toy_rows(60), strict=True)
    config = replace(CONFIG, budget="0.01s", epochs=2)
    result = tune(toy, Task.from_rows(texts, labels), config)
    assert calls == [1.0]
    assert "answered worse at every rate tried (3000)" in result.reasons["stop"]
