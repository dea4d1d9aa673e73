"""The trie's leaves, decisions and what must be read for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigraph.errors import TaskError
from epigraph.tasks.trie import ROOT, LabelTrie

END = 99
LABELS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple), min_size=2, max_size=12, unique=True)


def build(sequences: list[tuple[int, ...]]) -> LabelTrie:
    return LabelTrie.build({str(i): s for i, s in enumerate(sequences)}, END)


def test_a_label_that_begins_another_gets_an_end_child() -> None:
    trie = LabelTrie.build({"calendar": [1], "calendar_update": [1, 2]}, END)
    assert trie.decisions(0) == [(trie.paths[0][0], END)]
    assert trie.decisions(1) == [(trie.paths[1][0], 2)]
    assert trie.tokens == (2, END)


def test_labels_with_different_first_tokens_need_nothing_read() -> None:
    trie = build([(1, 5), (2, 5), (3,)])
    assert trie.fed == ()
    assert trie.branching == (ROOT,)
    assert [trie.spoken(i) for i in range(3)] == [[], [], []]


def test_a_common_beginning_decides_nothing() -> None:
    trie = build([(7, 8, 1), (7, 8, 2)])
    assert len(trie.branching) == 1
    assert trie.spoken(0) == [7, 8]
    assert trie.tokens == (1, 2)


@given(LABELS)
def test_every_label_is_told_from_every_other_by_its_decisions(sequences: list[tuple[int, ...]]) -> None:
    trie = build(sequences)
    taken = [tuple(trie.decisions(i)) for i in range(len(sequences))]
    assert len(set(taken)) == len(sequences)
    assert all(taken)


@given(LABELS)
def test_probabilities_sum_to_one_whatever_the_local_ones(sequences: list[tuple[int, ...]]) -> None:
    trie = build(sequences)
    local = {
        (node, token): 1 / len(trie.nodes[node].children) for node in trie.branching for token in trie.nodes[node].children
    }
    total = 0.0
    for label in range(len(sequences)):
        product = 1.0
        for decision in trie.decisions(label):
            product *= local[decision]
        total += product
    assert total == pytest.approx(1.0)


@given(LABELS)
def test_fed_nodes_come_after_their_parents_and_reach_every_branching_node(sequences: list[tuple[int, ...]]) -> None:
    trie = build(sequences)
    seen = {ROOT}
    for node in trie.fed:
        assert trie.nodes[node].parent in seen
        seen.add(node)
    assert set(trie.branching) <= seen


def test_two_labels_of_the_same_tokens_are_refused() -> None:
    with pytest.raises(TaskError, match="'a' and 'b' have the same words"):
        LabelTrie.build({"a": [1], "b": [1]}, END)


def test_a_label_without_words_is_refused() -> None:
    with pytest.raises(TaskError, match="label 'b' has no words"):
        LabelTrie.build({"a": [1], "b": []}, END)


def test_one_label_is_no_classification() -> None:
    with pytest.raises(TaskError, match="needs two labels"):
        LabelTrie.build({"a": [1]}, END)
