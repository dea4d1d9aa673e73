"""Scores of generated text: one output and one or more references a row.

    BLEU          BP · exp(¼ Σ_{n=1..4} log p_n),   BP = exp(min(0, 1 − reference length / output length))
                  p_n = n-grams of the outputs that are in a reference / n-grams of the outputs, summed over the corpus
    ROUGE-L       mean over rows of max over references of 2 · LCS / (tokens of output + tokens of reference)
    exact match   share of rows whose output is one of the references
    token F1      mean over rows of max over references of 2 · shared tokens / (tokens of output + tokens of reference),
                  lower-case, without punctuation and English articles; where one has no tokens, 1 if both have none

Sources: Papineni et al. 2002 (https://aclanthology.org/P02-1040) as sacrebleu computes it (Post 2018,
https://arxiv.org/abs/1804.08771), scaled to 0–1; Lin 2004 (https://aclanthology.org/W04-1013); Rajpurkar et al. 2016, section 6.1
(https://arxiv.org/abs/1606.05250), for texts in any script as MLQA has it (Lewis et al. 2020,
https://arxiv.org/abs/1910.07475).
Differs: rouge_score's own tokenizer drops every character that is not a–z or 0–9, so a Chinese output has no tokens and
scores 0. The one handed to it here makes words of any script, and single characters where a script writes no spaces.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from epigraph.errors import DataError
from epigraph.metrics.intervals import Metric, bootstrap, mean_metric, resample_counts, wilson

ORDER = 4
"""The longest n-gram of BLEU."""

ARTICLES = frozenset({"a", "an", "the"})

IDEOGRAPHS = ("CJK", "KANGXI", "IDEOGRAPHIC")
OTHERS_WITHOUT_SPACES = ("HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""First words of Unicode character names: scripts whose words are not separated by spaces."""


def exact_match(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Share of outputs that equal a reference, but for white space around them and the Unicode form (NFC)."""
    return float(matches(outputs, references).mean())


def bleu(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Corpus BLEU, 0–1. Rows may have different numbers of references. For the tokens see `bleu_tokenizer`.

    Texts of fewer than four tokens have no 4-grams: a corpus of nothing else scores 0, whatever it says.
    """
    return float(bleu_metric(outputs, references)(np.arange(len(outputs))[None])[0])


def rouge_l(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean ROUGE-L F-measure, 0–1, of each output against its closest reference."""
    return float(rouge_l_rows(outputs, references).mean())


def token_f1(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Mean token F1, 0–1, of each output against its closest reference."""
    return float(token_f1_rows(outputs, references).mean())


def token_f1_rows(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> Float[np.ndarray, " N"]:
    """Token F1 of every row."""
    _check(outputs, references)
    pairs = zip(outputs, references, strict=True)
    return np.array([max(_overlap(_said(output), _said(r)) for r in row) for output, row in pairs], dtype=np.float64)


def matches(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> Bool[np.ndarray, " N"]:
    """Which outputs equal one of their references."""
    _check(outputs, references)
    pairs = zip(outputs, references, strict=True)
    return np.array([_plain(output) in {_plain(reference) for reference in row} for output, row in pairs], dtype=np.bool_)


def rouge_l_rows(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> Float[np.ndarray, " N"]:
    """ROUGE-L of every row; 0 where output or reference has no tokens."""
    from rouge_score.rouge_scorer import RougeScorer

    _check(outputs, references)
    scorer = RougeScorer(["rougeL"], tokenizer=_Tokenizer())
    pairs = zip(outputs, references, strict=True)
    return np.array(
        [max(scorer.score(r, output)["rougeL"].fmeasure for r in row) for output, row in pairs], dtype=np.float64
    )


def bleu_metric(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> Metric:
    """BLEU for `bootstrap`: the counts of the rows are summed over a resample, no text is read twice."""
    from sacrebleu.metrics.bleu import BLEU

    counts = _bleu_counts(outputs, references).astype(np.float64)  # [N, 2 + 2 · ORDER]

    def score(sums: list[int]) -> float:
        correct, total = sums[2 : 2 + ORDER], sums[2 + ORDER :]
        return float(BLEU.compute_bleu(correct, total, sums[0], sums[1], smooth_method="exp").score) / 100

    def metric(index: Int[np.ndarray, "R N"]) -> Float[np.ndarray, " R"]:
        sums = (resample_counts(index, len(counts)) @ counts).round().astype(np.int64)
        return np.array([score(row) for row in sums.tolist()], dtype=np.float64)

    return metric


def bleu_tokenizer(references: Sequence[Sequence[str]]) -> str:
    """The name of sacrebleu's tokenizer for these references.

    "13a", the standard, splits at spaces and punctuation. A Chinese sentence would be one token to it, so that BLEU is 0
    unless whole sentences agree. So where most characters belong to scripts without spaces it is "zh" (one token an
    ideograph; the rest as 13a), or "char" where many of them are kana, Thai and the like, which "zh" leaves whole.
    """
    characters = [character for row in references for text in row for character in text if character.isalpha()]
    ideographs = sum(_is_of(character, IDEOGRAPHS) for character in characters)
    others = sum(_is_of(character, OTHERS_WITHOUT_SPACES) for character in characters)
    if ideographs + others <= len(characters) / 2:
        return "13a"
    return "char" if others > ideographs / 10 else "zh"


def tokens(text: str) -> list[str]:
    """Lower-case words of letters, digits and their marks; one character a token where a script writes no spaces."""
    found, word = [], ""
    for character in unicodedata.normalize("NFC", text.lower()):
        part = _part(character)
        if part == "in a word":
            word += character
            continue
        if word:
            found.append(word)
        word = ""
        if part == "a word":
            found.append(character)
    return [*found, word] if word else found


def score_generation(outputs: Sequence[str], references: Sequence[Sequence[str]], *, seed: int = 0) -> dict[str, object]:
    """The scores of generated text as JSON holds them; the caller adds the split.

    Intervals cover the test rows only: Wilson's for exact match, which is a share, and 1,000 resamples for the others.
    """
    rows = len(outputs)
    return {
        "bleu": asdict(bootstrap(bleu_metric(outputs, references), rows, seed=seed)),
        "rouge_l": asdict(bootstrap(mean_metric(rouge_l_rows(outputs, references)), rows, seed=seed)),
        "exact_match": asdict(wilson(exact_match(outputs, references), rows)),
        "token_f1": asdict(bootstrap(mean_metric(token_f1_rows(outputs, references)), rows, seed=seed)),
        "rows": rows,
    }


def _said(text: str) -> Counter[str]:
    return Counter(token for token in tokens(text) if token not in ARTICLES)


def _overlap(one: Counter[str], other: Counter[str]) -> float:
    if not one or not other:
        return float(one == other)
    return 2 * (one & other).total() / (one.total() + other.total())


def _bleu_counts(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> Int[np.ndarray, "N M"]:
    """A row's output length, closest reference length, matched n-grams and all n-grams (orders 1…4)."""
    from sacrebleu.metrics.bleu import BLEU

    _check(outputs, references)
    # force: no warning about tokenised text; effective_order: none about sentences. Neither changes the counts.
    scorer = BLEU(tokenize=bleu_tokenizer(references), force=True, effective_order=True)
    scores = (scorer.sentence_score(output, list(row)) for output, row in zip(outputs, references, strict=True))
    return np.array([[score.sys_len, score.ref_len, *score.counts, *score.totals] for score in scores], dtype=np.int64)


class _Tokenizer:
    """What rouge_score asks of a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        return tokens(text)


def _is_of(character: str, scripts: tuple[str, ...]) -> bool:
    return not character.isascii() and unicodedata.name(character, "").startswith(scripts)


@lru_cache(maxsize=1 << 16)
def _part(character: str) -> Literal["in a word", "a word", "between words"]:
    if unicodedata.category(character)[0] not in "LNM":  # letters, numbers, marks
        return "between words"
    return "a word" if _is_of(character, IDEOGRAPHS + OTHERS_WITHOUT_SPACES) else "in a word"


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _check(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(outputs) == 0:
        raise DataError("A score was asked for, of 0 rows.", "Give at least one row with a reference to score on.")
    if len(outputs) != len(references):
        raise DataError(
            f"A score was asked for {len(outputs)} outputs and {len(references)} rows of references.", "Give one a row."
        )
    bare = [number for number, row in enumerate(references, start=1) if len(row) == 0]
    if bare:
        raise DataError(
            f"Row {bare[0]} has no reference ({len(bare)} such rows of {len(outputs)}).", "Leave them out of scoring."
        )
