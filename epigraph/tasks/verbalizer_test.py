import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigraph.errors import TaskError
from epigraph.tasks.cells import count_words
from epigraph.tasks.verbalizer import check_labels, default_words, make_instruction, make_verbalizer, paired_words


@pytest.mark.parametrize(
    ("label", "words"),
    [
        *(("card_arrival", "card arrival"), ("Not-Spam", "Not Spam"), ("a__b--c", "a b c"), ("-1", "-1"), ("3.5", "3.5")),
        *(("tích_cực", "tích cực"), ("负面", "负面"), ("_", "_"), ("10", "10")),
    ],
)
def test_default_words(label, words):
    assert default_words(label) == words


def test_sorted_and_given_words_win():
    assert list(make_verbalizer(["b_c", "a", "b"], {"a": "bill"}).items()) == [("a", "bill"), ("b", "b"), ("b_c", "b c")]


def test_labels_whose_words_collide_keep_their_raw_text():
    words = make_verbalizer(["a_b", "a-b", "a b", "c_d"], {})
    assert words == {"a b": "a b", "a-b": "a-b", "a_b": "a_b", "c_d": "c d"}


@given(st.sets(st.text("ab_- 1", min_size=1).filter(lambda t: t == " ".join(t.split())), min_size=2))
def test_default_words_never_collide(labels):
    words = make_verbalizer(labels, {})
    assert len(set(words.values())) == len(labels)


def test_same_words_name_both_labels():
    with pytest.raises(TaskError, match="labels 'a' and 'b' have the same words 'x'"):
        make_verbalizer(["a", "b"], {"a": "x", "b": "x"})
    forms = [unicodedata.normalize(form, "tốt") for form in ("NFC", "NFD")]
    with pytest.raises(TaskError, match="Unicode form"):
        make_verbalizer(forms, {})
    with pytest.raises(TaskError, match="'a' has empty words"):
        make_verbalizer(["a", "b"], {"a": " "})
    with pytest.raises(TaskError, match=r"names 'bil'.*Did you mean 'bill'"):
        make_verbalizer(["bill", "card"], {"bil": "x"})


def test_labels_that_begin_others_keep_apart():
    assert make_verbalizer(["card", "card_lost", "car"], {}) == {"car": "car", "card": "card", "card_lost": "card lost"}


def test_paired_words_need_one_to_one():
    assert paired_words([("0", "very_bad"), ("1", "good"), ("0", "very_bad")]) == {"0": "very bad", "1": "good"}
    assert paired_words([("0", "bad"), ("0", "good")]) == {}
    assert paired_words([("0", "bad"), ("1", "bad")]) == {}


def test_check_labels():
    check_labels({"a": 1, "b": 1}, "a.csv")
    check_labels({f"label {i}": 1 for i in range(150)}, "a.csv")  # one row a label is few-shot, not a fault
    with pytest.raises(TaskError, match="one label, 'a', in all 9 rows"):
        check_labels({"a": 9}, "a.csv")
    with pytest.raises(TaskError, match="40 distinct labels in 40 rows: they are texts"):
        check_labels({f"this is a sentence number {i}": 1 for i in range(40)}, "a.csv")
    with pytest.raises(TaskError, match="numbers on a scale"):
        check_labels({f"{i}.25": 1 for i in range(40)}, "a.csv")


@given(st.lists(st.text("abc 标", min_size=1).filter(str.strip), max_size=200))
def test_instruction_is_short(words):
    assert count_words(make_instruction(("premise", "hypothesis"), words)) <= 62


def test_instruction():
    assert make_instruction(("text",), ["bad", "good"]) == "Classify the text. Answer with one of: bad, good."
    assert "premise and hypothesis" in make_instruction(("premise", "hypothesis"), ["a", "b"])
    assert "one of 77 labels, such as: w0, w1" in make_instruction(("text",), [f"w{i}" for i in range(77)])
    assert make_instruction(("input",), []) == "Write the output for the input."
