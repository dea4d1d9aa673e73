from pathlib import Path

import pytest
import torch

from epigraph.errors import Corrupt, NotFound, StorageFailed
from epigraph.tuning.state import State, load_states, save_states


def a_state(step: int = 7) -> State:
    return State(
        step,
        {"a": torch.randn(2, 3), "b": torch.randn(1)},
        moments={"0.step": torch.tensor(7.0)},
        best={"a": torch.ones(2, 3), "b": torch.zeros(1)},
        best_score=0.5,
        scale=0.25,
    )


def equal(left: State, right: State) -> bool:
    for part in ("current", "moments", "best"):
        mine, theirs = getattr(left, part), getattr(right, part)
        if mine.keys() != theirs.keys() or not all(torch.equal(mine[k], theirs[k]) for k in mine):
            return False
    return {k: v for k, v in left.__dict__.items() if not isinstance(v, dict)} == {
        k: v for k, v in right.__dict__.items() if not isinstance(v, dict)
    }


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    state, good = a_state(), a_state(4)
    save_states(tmp_path / "s", [(state, good)])
    found, found_good = load_states(tmp_path / "s")[0]
    assert equal(found, state)
    assert equal(found_good, good)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_state_may_be_its_own_way_back(tmp_path: Path) -> None:
    """safetensors refuses tensors that share memory."""
    state = a_state()
    save_states(tmp_path / "s", [(state, state.copy())])
    save_states(tmp_path / "s", [(state, state)])
    assert equal(load_states(tmp_path / "s")[0][1], state)


def test_a_fresh_state_with_its_infinite_score(tmp_path: Path) -> None:
    state = State(0, {"a": torch.zeros(1)})
    save_states(tmp_path / "s", [(state, state)])
    assert load_states(tmp_path / "s")[0][0].best_minus_loss == float("-inf")


def test_a_copy_is_not_changed_with_its_origin() -> None:
    state = a_state()
    copy = state.copy()
    state.current["a"] = state.current["a"] + 1
    state.moments["0.step"] = state.moments["0.step"] + 1
    assert not torch.equal(copy.current["a"], state.current["a"])
    assert float(copy.moments["0.step"]) == 7


def test_what_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="holds no state to resume from"):
        load_states(tmp_path / "none")
    (tmp_path / "bad").write_bytes(b"\x80\x02junk")
    with pytest.raises(Corrupt, match=r"cannot be read.*Tune again"):
        load_states(tmp_path / "bad")
    with pytest.raises(StorageFailed, match=r"could not be written to .*Free disk space and resume"):
        save_states(tmp_path / "no folder" / "s", [(a_state(), a_state())])
