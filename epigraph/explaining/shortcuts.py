"""Single words that decide: put into rows that lack them, and taken out of rows that have them.

    adds(w, label)  = mean over rows of   log-odds(label | row with w put in) − log-odds(label | row)      nats
    flips(w, label) = share of rows with another answer that get ``label`` once w is put in
    hangs(w)        = rows that have w and answer otherwise without it, as a share of all rows

Candidates: the words that go most with the answers, with the wrong answers, and with the labels of the training rows where these are
known; and single tokens of the vocabulary by a first-order estimate, (E_v − E_0) · ∂ log p(label) / ∂E (HotFlip: Ebrahimi et al. 2018,
section 3, https://arxiv.org/abs/1712.06751), so that a word is found which is in none of the rows. Each is tried on a few rows; those
that add most are measured on other rows, against words drawn at random. What counts is the counterfactual, not the association alone:
Feder et al. 2022, section 2 (https://arxiv.org/abs/2109.00725).

    t(w) = (adds(w) − mean of adds(c)) / (s √(1 + 1/k))        over k words c drawn at random, s their standard deviation; k − 1 degrees

The rows share a word, so they say nothing of how much words differ: a word's mean effect is held against the spread of other words'
mean effects (prediction of one more draw), corrected for the words measured.

A word is suspicious where it surely adds to a label, and not just a little, and, besides,
    it alone tells the label of many training (or given) rows: a shortcut that the data offers and the prompt takes; or
    the answers go with it and the truths do not; or
    it turns many answers although the truths of the rows say nothing of it.
A word that adds to a label, and that the truths of some few rows support, is what the task is about.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from epigraph.engine.inspection import Look, inspect, label_tail, tree_scores
from epigraph.errors import Unsupported
from epigraph.explaining.case import Case, share
from epigraph.explaining.judged import is_right, said
from epigraph.explaining.words import begins_word, longest_field, place_of, put_in, spellings, take_out, with_text, words_of
from epigraph.methods import judge
from epigraph.metrics import Interval
from epigraph.tasks.row import Row

TRIED, CONTROLS, MEASURED, OFFERED = 10, 16, 8, 4
FIRST_ROWS, ROWS, CONTROL_ROWS = 8, 32, 16
FEWEST_CONTROLS, LEAST_SPREAD = 5, 0.01
LEAST_ADDED, LEAST_FLIPS, SURE_FLIPS, ALPHA = 0.5, 0.25, 0.4, 0.01
COMMON, COMMON_ROWS, BELIEVED, SUPPORT = 0.15, 8, 0.8, 0.1
GRADIENT_ROWS, GRADIENT_TOKENS, GRADIENT_LABELS = 4, 4, 4
BY_GRADIENT = "the gradient points to it"
PLACEHOLDER = " the"


@dataclass(frozen=True, kw_only=True)
class Told:
    """How far a word alone tells the label in some rows: ``share`` of the rows have it, ``purity`` of these have the label."""

    rows: int
    share: float
    purity: float
    prior: float
    where: str

    @property
    def decides(self) -> bool:
        """Whether many rows could be answered by the word alone."""
        return self.share >= COMMON and self.purity >= max(BELIEVED, self.prior + SUPPORT)


@dataclass(frozen=True, kw_only=True)
class Word:
    """What one word does. ``word`` is in lower case, ``spelled`` as the texts mostly have it and as it was put in. ``adds`` nats to
    ``label`` with the p-value of a word drawn at random adding as much; ``flips`` of ``tried`` rows with another answer; ``rows`` have
    it, ``answered`` and ``true`` (None where not known) of these with the label. ``why`` is empty where it is no shortcut."""

    word: str
    label: str
    adds: float
    p: float
    flips: Interval
    tried: int
    removal: Interval
    hangs: float
    rows: int
    answered: float | None
    true: float | None
    place: float
    found_by: str
    told: Told | None
    spelled: str
    why: str = ""

    @property
    def seriousness(self) -> float:
        """How much hangs on it, 0 to 3: a word that decides many rows first, then what it turns."""
        return (1.0 if self.why else 0.0) + (1.0 if self.why and self.told else 0.0) + 0.5 * (self.flips.value + self.hangs)


@dataclass(frozen=True, kw_only=True)
class Shortcuts:
    """The words that were measured, the most suspicious first, and how often words drawn at random flip an answer."""

    words: tuple[Word, ...]
    ordinary: Interval
    tried: int
    how: str

    @property
    def suspicious(self) -> list[Word]:
        """Those that are no part of the task."""
        return [word for word in self.words if word.why]


def measure_shortcuts(case: Case, train: Sequence[Row] = ()) -> Shortcuts:
    """Try many words on few rows, and measure those that add most. ``train`` are the training rows where they are known."""
    given, trained = _read(case, case.rows, "rows given"), _read(case, train, "training rows")
    has = [set(words) for words in given.words]
    candidates = _candidates(case, has, trained)
    rng = random.Random(case.config.seed)
    order = rng.sample(range(len(case.rows)), len(case.rows))
    first, later = order[:FIRST_ROWS], order[FIRST_ROWS : FIRST_ROWS + ROWS]
    apart = len(later) >= FIRST_ROWS
    later = later if apart else order[:ROWS]
    spelled, known = spellings([*given.texts, *trained.texts]), [*given.words, *trained.words]
    ways = {word: _Way(word, spelled.get(word, word), place_of(known, word)) for word in candidates}
    ordinary_ways = [_Way(w, spelled.get(w, w), place_of(given.words, w)) for w in _controls(has, set(candidates), rng)]
    controls = [_put(case, has, way, later[:CONTROL_ROWS]) for way in ordinary_ways]
    ordinary = np.array([c.most for c in controls])
    tried: dict[str, float] = {}
    for word, way in ways.items():
        if case.clock.over and tried:
            break
        tried[word] = _put(case, has, way, first).most
    offered = [word for word in tried if _offered(case, word, (trained, given))][:OFFERED]
    chosen = list(dict.fromkeys([*offered, *sorted(tried, key=lambda w: -tried[w])]))[:MEASURED]
    found = [_measure(case, has, ways[word], later, candidates[word]) for word in chosen]
    judged = [_judged(word, ordinary, len(chosen), (trained, given)) for word in found]
    judged.sort(key=lambda w: -w.seriousness)
    rows = f"{len(later)} other rows" if apart else f"{len(later)} rows, these among them, since there are so few"
    few = "" if len(controls) >= FEWEST_CONTROLS else " These are too few to say of any word that it does more than others."
    return Shortcuts(
        words=tuple(judged),
        ordinary=share([flip for c in controls for flip in c.flips]),
        tried=len(tried),
        how=f"{len(tried)} words put into {len(first)} rows of {case.source} each; the {len(chosen)} that add most measured on {rows}, "
        f"and taken out of the rows that have them; {len(controls)} words drawn at random for comparison, on "
        f"{len(later[:CONTROL_ROWS])} of the same rows: a word counts where its mean effect is beyond the spread of theirs.{few}",
    )


@dataclass(frozen=True)
class _Read:
    """Rows as their texts, the words of these, and their truths where they say any."""

    where: str
    texts: list[str]
    words: list[list[str]]
    truth: list[str | None]

    def told(self, word: str, label: str) -> Told:
        """How far the word alone tells this label, among the rows that say a truth."""
        known = [
            (word in words, truth == label) for words, truth in zip(self.words, self.truth, strict=True) if truth is not None
        ]
        inside = [right for has, right in known if has]
        return Told(
            rows=len(inside),
            share=len(inside) / max(1, len(known)),
            purity=sum(inside) / max(1, len(inside)),
            prior=sum(right for _, right in known) / max(1, len(known)),
            where=self.where,
        )


def _read(case: Case, rows: Sequence[Row], where: str) -> _Read:
    fields = case.model.task.template.fields
    texts = [row.fields[longest_field(row, fields)] for row in rows]
    return _Read(where, texts, [words_of(text) for text in texts], [row.target for row in rows])


def _candidates(case: Case, has: Sequence[set[str]], trained: _Read) -> dict[str, str]:
    """Word → how it was found, at most ``TRIED`` from each source."""
    found: dict[str, str] = {}
    answers = [said(answer) for answer in case.answers]
    sources = [("it goes with the answers", associated(has, answers))]
    if case.labelled:
        beyond = ["" if is_right(row, answer) else answer for row, answer in zip(case.rows, answers, strict=True)]
        sources.append(
            ("it goes with the wrong answers", associated([has[i] for i in case.known], [beyond[i] for i in case.known]))
        )
    if trained.words:
        going = associated([set(words) for words in trained.words], [truth or "" for truth in trained.truth])
        sources.append(("it goes with the labels of the training rows", going))
    for how, going in sources:
        for word in going[:TRIED]:
            found.setdefault(word, how)
    for word in _by_gradient(case):
        found.setdefault(word, BY_GRADIENT)
    return found


def associated(has: Sequence[set[str]], answers: Sequence[str]) -> list[str]:
    """Words by how much their presence tells of the answer (mutual information), the most first; words of one row left out."""
    total, with_word = Counter(answers), dict[str, Counter[str]]()
    for words, answer in zip(has, answers, strict=True):
        for word in words:
            with_word.setdefault(word, Counter())[answer] += 1
    rows = len(has)
    gains = {}
    for word, inside in with_word.items():
        n = inside.total()
        if max(2, 0.005 * rows) <= n < rows:
            outside = total - inside
            gains[word] = sum(_told_by(part, total, rows) for part in (inside, outside))
    return sorted(gains, key=lambda w: -gains[w])


def _told_by(part: Counter[str], total: Counter[str], rows: int) -> float:
    """What being in this part of the rows tells of the answer, in nats."""
    n = part.total()
    return sum(count / rows * math.log(count / n / (total[answer] / rows)) for answer, count in part.items())


def _by_gradient(case: Case) -> list[str]:
    """Single tokens that, put behind the text, would raise a label's probability most to first order."""
    try:
        gradients = _slot_gradients(case)
    except Unsupported:
        return []
    base = case.engine.base
    table = base.embed(torch.arange(base.embedding.weight.shape[0])).float()
    found: list[str] = []
    for gradient in gradients:
        tokens = [
            t for t in (table @ gradient).topk(min(len(table), 200)).indices.tolist() if begins_word(base.tokenizer, t)
        ]
        texts = [base.tokenizer.decode([t]).strip().lower() for t in tokens]
        words = [text for text in texts if text.isalpha() and len(text) > 2]
        found += list(dict.fromkeys(words))[:GRADIENT_TOKENS]
    return found


def _slot_gradients(case: Case) -> list[torch.Tensor]:
    """For every label (of the first few) the mean gradient of its log-probability at a token put behind the text [H]."""
    engine, tree, fields = case.engine, case.method.tree, case.model.task.template.fields
    labels = range(min(GRADIENT_LABELS, len(case.labels)))
    sums = [torch.zeros(engine.base.hidden, device=engine.base.device) for _ in labels]
    for row in case.rows[:GRADIENT_ROWS]:
        field = longest_field(row, fields)
        longer = with_text(row, field, row.fields[field].rstrip() + PLACEHOLDER)
        (before,), (after,) = case.method.encode([row]), case.method.encode([longer])
        ids, old = [t for s in after.segments for t in s], [t for s in before.segments for t in s]
        slot = next((i for i, (a, b) in enumerate(zip(ids, old, strict=False)) if a != b), len(old) - 1)
        forms = case.forms
        with torch.no_grad():
            plain = inspect(engine, [after], forms, label_tail(tree, 1))
        column = _column(plain.stream.ids[0].tolist(), slot)
        embedded = plain.embedded.detach().clone().requires_grad_()
        seen = inspect(engine, [after], forms, label_tail(tree, 1), Look(embedded=embedded))
        scores = tree_scores(engine, seen.hidden, seen.stream.ends, tree)[0]
        for label in labels:
            (gradient,) = torch.autograd.grad(scores[label], embedded, retain_graph=True)
            sums[label] += gradient[0, column].float()
    return sums


def _column(ids: Sequence[int], slot: int) -> int:
    """The column of the text's token number ``slot``, prompt vectors not counted."""
    return [i for i, token in enumerate(ids) if token >= 0][slot]


def _controls(has: Sequence[set[str]], taken: set[str], rng: random.Random) -> list[str]:
    counts = Counter(word for each in has for word in each)
    ordinary = sorted(w for w, n in counts.items() if w not in taken and n >= 2) or sorted(set(counts) - taken)
    return rng.sample(ordinary, min(CONTROLS, len(ordinary)))


@dataclass(frozen=True)
class _Effect:
    """Log-odds of every label with the word minus those without [n, C], and the flips to the label that gains most."""

    shifts: Float[np.ndarray, "N C"]
    label: int
    flips: list[bool]

    @property
    def most(self) -> float:
        """The mean gain of that label, in nats."""
        return float(self.shifts[:, self.label].mean()) if len(self.shifts) else 0.0


@dataclass(frozen=True)
class _Way:
    """How a word is put in: spelled and placed as the texts have it."""

    word: str
    spelled: str
    place: float


def _put(case: Case, has: Sequence[set[str]], way: _Way, among: Sequence[int]) -> _Effect:
    """What the word does in those of these rows that lack it."""
    lacking = [i for i in among if way.word not in has[i]]
    if not lacking:
        return _Effect(np.zeros((0, len(case.labels))), 0, [])
    with case.engine.store.passing():
        after = case.method.probabilities(
            [_changed(case, i, lambda text: put_in(text, way.spelled, way.place)) for i in lacking]
        )
    shifts = _log_odds(after) - _log_odds(case.probabilities[lacking])
    label = int(shifts.mean(0).argmax())
    answers = judge.read(case.task, [case.rows[i] for i in lacking], after).given
    before, turned = case.chosen[lacking], [case.labels.index(said(answer)) for answer in answers]
    return _Effect(shifts, label, [bool(t == label) for t, b in zip(turned, before, strict=True) if b != label])


def _log_odds(p: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
    p = np.clip(p.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(p) - np.log(1 - p))


def _changed(case: Case, number: int, change: Callable[[str], str]) -> Row:
    row = case.rows[number]
    field = longest_field(row, case.model.task.template.fields)
    return with_text(row, field, change(row.fields[field]) or "-")


def _measure(case: Case, has: Sequence[set[str]], way: _Way, among: Sequence[int], found_by: str) -> Word:
    """What the word does on these rows."""
    word, effect = way.word, _put(case, has, way, among)
    label = case.labels[effect.label]
    having = [i for i in range(len(has)) if word in has[i]]
    some = having[:ROWS]
    without = case.answers_to([_changed(case, i, lambda text: take_out(text, word)) for i in some]) if some else ()
    gone = [a != case.answers[i] for i, a in zip(some, without, strict=True)]
    return Word(
        word=word,
        label=label,
        adds=effect.most,
        p=1.0,
        flips=share(effect.flips),
        tried=len(effect.flips),
        removal=share(gone),
        hangs=(sum(gone) / len(gone) if gone else 0.0) * len(having) / len(has),
        rows=len(having),
        answered=_part([case.answers[i] == label for i in having]),
        true=_part([case.truth[i] == label for i in case.known if word in has[i]]),
        place=way.place,
        found_by=found_by,
        told=None,
        spelled=way.spelled,
    )


def _part(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None


def _judged(word: Word, ordinary: Float[np.ndarray, "K"], tried: int, parts: Sequence[_Read]) -> Word:
    """The word with its p-value, what it tells by itself, and the reason why it is suspicious, if it is."""
    told = [part.told(word.word, word.label) for part in parts]
    p = min(1.0, tried * beyond_others(word.adds, ordinary))
    judged = replace(word, p=p, told=next((t for t in told if t.decides), None))
    return replace(judged, why=_suspicion(judged, told))


def _offered(case: Case, word: str, parts: Sequence[_Read]) -> bool:
    """Whether the rows could be answered by this word alone, for any label."""
    return any(part.told(word, label).decides for part in parts for label in case.labels)


def beyond_others(adds: float, ordinary: Float[np.ndarray, "K"]) -> float:
    """The one-sided p-value of a mean effect as one more draw of the words drawn at random; 1 where these are too few."""
    from scipy.stats import t

    k = len(ordinary)
    if k < FEWEST_CONTROLS or adds <= ordinary.mean():
        return 1.0
    spread = max(float(ordinary.std(ddof=1)), LEAST_SPREAD) * math.sqrt(1 + 1 / k)
    return float(t.sf((adds - float(ordinary.mean())) / spread, k - 1))


def _suspicion(word: Word, told: Sequence[Told]) -> str:
    if word.p > ALPHA or word.adds < LEAST_ADDED:
        return ""
    if word.told is not None:
        return f"it stands in {word.told.share:.0%} of the {word.told.where}, {word.told.purity:.0%} of them {word.label!r}"
    if word.rows >= COMMON_ROWS and word.true is not None and (word.answered or 0) > word.true + SUPPORT:
        return f"the answers go with it in {word.answered:.0%} of {word.rows} rows, the truths in {word.true:.0%}"
    seen = [t for t in told if t.rows >= 2]
    if any(t.purity > t.prior + SUPPORT for t in seen):
        return ""
    if word.flips.value < LEAST_FLIPS or (word.found_by == BY_GRADIENT and word.flips.low < SURE_FLIPS):
        return ""
    return "the truths do not go with it" if seen else "none of these rows says anything of it"
