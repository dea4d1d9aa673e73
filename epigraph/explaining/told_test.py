"""What words tell by themselves, in every text of a row."""

from epigraph.explaining.told import Mark, Read, associated
from epigraph.tasks.row import Row


def test_words_go_with_answers_by_what_they_tell() -> None:
    has = [{"a", "x"}, {"a"}, {"b", "x"}, {"b"}] * 3
    assert associated(has, ["1", "1", "2", "2"] * 3)[:2] == ["a", "b"]


def test_a_word_that_decides_in_the_second_text_says_nothing_in_the_first() -> None:
    rows = [
        Row(fields={"premise": f"It is not {i}", "hypothesis": "Not so" if i % 2 else "So"}, target=("yes", "no")[i % 2])
        for i in range(20)
    ]
    read = Read.of(rows, ("premise", "hypothesis"), "rows given")
    first, second = (read.told(Mark("not", field), "no") for field in ("premise", "hypothesis"))
    assert (first.rows, first.decides) == (20, False)
    assert (second.rows, second.purity, second.decides) == (10, 1.0, True)
    assert set(associated(read.marks, [row.target or "" for row in rows])[:1]) == {Mark("not", "hypothesis")}
