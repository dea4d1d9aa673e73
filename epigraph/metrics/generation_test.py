"""Against sacrebleu and rouge_score where they apply, and on the scripts where they do not."""

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from epigraph import metrics
from epigraph.errors import DataError
from epigraph.metrics import score_generation
from epigraph.metrics.generation import tokens

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", ",", ".", "far"]
SENTENCE = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
ROWS = st.lists(st.tuples(SENTENCE, st.lists(SENTENCE, min_size=1, max_size=3)), min_size=1, max_size=8)


@settings(deadline=None, max_examples=50)
@given(ROWS)
def test_bleu_equals_sacrebleu_with_any_number_of_references(rows):
    outputs, references = [o for o, _ in rows], [r for _, r in rows]
    most = max(map(len, references))
    streams = [[row[i] if i < len(row) else None for row in references] for i in range(most)]
    assert metrics.bleu(outputs, references) == pytest.approx(BLEU(force=True).corpus_score(outputs, streams).score / 100)


def test_bleu_of_a_resample_is_bleu_of_its_texts():
    generator = np.random.default_rng(0)
    references = [[" ".join(generator.choice(WORDS, 9))] for _ in range(20)]
    outputs = [row[0].replace("cat", "dog") for row in references]
    index = generator.integers(0, 20, size=(10, 20))
    found = metrics.bleu_metric(outputs, references)(index)
    expected = [metrics.bleu([outputs[i] for i in row], [references[i] for i in row]) for row in index]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("The cat sat on the mat.", "13a"),
        ("Con mèo ngồi trên chiếu.", "13a"),
        ("고양이가 매트 위에 앉았다.", "13a"),
        ("", "13a"),
        ("猫坐在垫子上,名字叫 Tom。", "zh"),
        ("猫がマットの上に座っていた。", "char"),
        ("แมวนั่งบนเสื่อ", "char"),
    ],
)
def test_the_tokenizer_follows_the_script(text, name):
    assert metrics.bleu_tokenizer([[text]]) == name


def test_chinese_that_is_almost_right_is_not_worth_nothing():
    """With 13a tokens and rouge_score's own, this pair scored 0 and 0: one long token, and none."""
    outputs, references = ["今天天气很好我们去公园散步吧"], [["今天天气很好我们去公园玩吧"]]
    assert metrics.bleu(outputs, references) > 0.6
    assert metrics.rouge_l(outputs, references) > 0.8


@settings(deadline=None, max_examples=50)
@given(st.text(alphabet=st.characters(max_codepoint=127)), st.text(alphabet=st.characters(max_codepoint=127)))
def test_rouge_l_equals_rouge_score_on_ascii(output, reference):
    expected = RougeScorer(["rougeL"]).score(reference, output)["rougeL"].fmeasure
    assert metrics.rouge_l([output], [[reference]]) == pytest.approx(expected)


@settings(deadline=None, max_examples=50)
@given(SENTENCE, SENTENCE)
def test_rouge_l_equals_rouge_score_on_sentences(output, reference):
    expected = RougeScorer(["rougeL"]).score(reference, output)["rougeL"].fmeasure
    assert metrics.rouge_l([output], [[reference]]) == pytest.approx(expected)


def test_tokens_of_other_scripts_are_words():
    assert tokens("Điện thoại, 3G!") == ["điện", "thoại", "3g"]
    assert tokens("नमस्ते दुनिया") == ["नमस्ते", "दुनिया"]
    assert tokens("我爱Python。") == ["我", "爱", "python"]
    assert tokens(unicodedata.normalize("NFD", "Điện")) == ["điện"]


def test_rouge_l_takes_the_closest_reference():
    assert metrics.rouge_l(["a b c"], [["x y", "a b c"]]) == 1
    assert metrics.rouge_l(["a b c", "x"], [["a b d"], ["y"]]) == pytest.approx((2 / 3 + 0) / 2)


def test_exact_match_looks_through_white_space_and_unicode_forms_only():
    outputs = [" yes\n", unicodedata.normalize("NFD", "Điện"), "Yes", "no"]
    assert metrics.exact_match(outputs, [["yes"], ["Điện"], ["yes"], ["maybe", "no"]]) == 0.75


def test_the_scores_are_the_json_of_the_contract():
    references = [["the cat sat on the mat", "a cat sat there"]] * 12
    scores = score_generation(["the cat sat on the mat"] * 12, references)
    assert json.loads(json.dumps(scores)) == scores
    assert set(scores) == {"bleu", "rouge_l", "exact_match", "token_f1", "rows"}
    for name in ("bleu", "rouge_l", "exact_match", "token_f1"):
        assert scores[name]["value"] == pytest.approx(1)
        assert 0.7 < scores[name]["low"] < 0.8
    assert scores["rows"] == 12


def test_empty_outputs_score_nothing():
    scores = score_generation(["", ""], [["the cat sat on the mat"], ["a dog ran far away"]])
    assert [scores[name]["value"] for name in ("bleu", "rouge_l", "exact_match")] == [0, 0, 0]


def test_rows_without_reference_are_named():
    with pytest.raises(DataError, match=r"Row 2 has no reference \(1 such rows of 2\)"):
        score_generation(["a", "b"], [["a"], []])
    with pytest.raises(DataError, match="1 outputs and 2 rows of references"):
        metrics.exact_match(["a"], [["a"], ["b"]])
    with pytest.raises(DataError, match="of 0 rows"):
        metrics.bleu([], [])
