import math
import tomllib
from datetime import date
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigraph.errors import BaseMismatch, Corrupt, DataError, NotFound
from epigraph.library.card import check_base
from epigraph.library.cardfile import read_card, write_card
from epigraph.library.toys_test import OTHER, TOY, toy_card


def test_a_card_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = write_card(tmp_path, toy_card(version=3, lengths=(3, 4)))
    assert read_card(tmp_path) == written
    assert written.reference == "routing@3"
    assert "instruction" not in written.task
    assert written.settings["schedule"] == [1, 2.5]


def test_a_card_is_plain_toml(tmp_path: Path) -> None:
    write_card(tmp_path, toy_card())
    table = tomllib.loads((tmp_path / "card.toml").read_text())
    assert table["scores"]["accuracy"]["value"] == 0.91
    assert table["base"]["hidden"] == 16


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (np.float64(0.25), 0.25),
        (np.int64(3), 3),
        (np.ones(2), [1.0, 1.0]),
        (date(2026, 1, 2), "2026-01-02"),
        (True, True),
        (Path("a/b"), "a/b"),
        (("x", 1), ["x", 1]),
        (Enum("E", "a").a, 1),
    ],
)
def test_values_become_plain(tmp_path: Path, value: object, stored: object) -> None:
    write_card(tmp_path, toy_card(settings={"x": value}))
    found = read_card(tmp_path).settings["x"]
    assert (found, type(found)) == (stored, type(stored))


def test_none_in_a_list_keeps_its_place(tmp_path: Path) -> None:
    matrix = write_card(tmp_path, toy_card(scores={"matrix": [[1.0, None], [0.5, 1.0]]})).scores["matrix"]
    assert math.isnan(matrix[0][1])
    assert matrix[1] == [0.5, 1.0]


@given(
    st.recursive(
        st.text(st.characters(exclude_categories=["Cs"]))
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False)
        | st.booleans(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
        max_leaves=8,
    )
)
def test_any_plain_value_survives(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    folder = tmp_path_factory.mktemp("card")
    write_card(folder, toy_card(settings={"x": value}))
    assert read_card(folder).settings["x"] == value


def test_half_a_surrogate_pair_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"card\.task\.label holds a broken character"):
        write_card(tmp_path, toy_card(task={"label": "\ud800"}))


def test_comments_may_be_added_but_values_not_changed(tmp_path: Path) -> None:
    written = write_card(tmp_path, toy_card())
    path = tmp_path / "card.toml"
    path.write_text("# checked by Ann\n" + path.read_text())
    assert read_card(tmp_path) == written
    path.write_text(path.read_text().replace("0.91", "0.99"))
    with pytest.raises(Corrupt, match=r"card\.toml was changed: sha256 expected [0-9a-f]{12}…, found [0-9a-f]{12}"):
        read_card(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"name = ", b"a" + b".a" * 5000 + b" = 1", b"x = " + b"[" * 5000])
def test_what_is_no_card_is_corrupt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "card.toml").write_bytes(content)
    with pytest.raises(Corrupt, match=r"card\.toml"):
        read_card(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": {"../evil": "00"}}, "outside the folder"),
        ({"files": {"a\\b": "00"}}, "outside the folder"),
        ({"files": {"..": "00"}}, "outside the folder"),
        ({"version": "three"}, "'version' cannot be 'three'"),
        ({"files": {"a": 3}}, "'files' cannot be"),
        ({"place": "nowhere"}, "'place' cannot be 'nowhere'"),
    ],
)
def test_a_card_with_a_valid_seal_is_not_trusted_blindly(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    from dataclasses import asdict

    import tomli_w

    from epigraph.library import cardfile

    content = cardfile._plain({**asdict(toy_card()), **changes}, "card")
    (tmp_path / "card.toml").write_text(tomli_w.dumps({**content, "card_sha256": cardfile._seal(content)}))
    with pytest.raises(Corrupt, match=message):
        read_card(tmp_path)


def test_no_card_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"holds no card\.toml\. Give the folder of a stored prompt"):
        read_card(tmp_path)
    with pytest.raises(NotFound, match="there is no folder"):
        read_card(tmp_path / "nowhere")


def test_another_base_is_refused_with_both_fingerprints() -> None:
    check_base(toy_card(), TOY)
    message = (
        r"prompt 'routing@2' was trained on base toy \(fingerprint 1a2b1a2b1a2b…, H=16\); "
        r"this base is other \(fingerprint 9f9f9f9f9f9f…, H=32\)\. Tune it again, or pass --base toy\."
    )
    with pytest.raises(BaseMismatch, match=message):
        check_base(toy_card(version=2), OTHER)
