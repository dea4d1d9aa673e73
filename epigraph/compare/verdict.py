"""The verdict in words: what to take, what it gives up against the best, what it costs; only differences that were tested.

"not significant" says that the rows and seeds at hand cannot tell the two apart, not that they are equal.
"""

from collections.abc import Sequence

from epigraph.compare.amounts import gain_bounds, gap_text
from epigraph.compare.comparison import Comparison, Pair, Result
from epigraph.compare.spent import made
from epigraph.metrics import LOWER_IS_BETTER, upward
from epigraph.report.numbers import bytes_text, share_text, times_text

FLOORS = {"accuracy": "always the most frequent label", "micro_f1": "always the same labels"}
"""What a reader compares with, for the metrics of which the scores have it."""
ROUNDING = 1e-9
WORDS = ("hard", "few-shot", "optimised")
LEAST = {"seconds": 0.01, "flops": 1}
"""What a cost is taken for at least, where costs are divided by it."""


def verdict(comparison: Comparison) -> list[str]:
    """Sentences, the most important first."""
    done = comparison.done
    if not done:
        return ["No method could be run: see the reasons in the table."]
    found = [_first(comparison) + _useless(comparison) + _known_rows(comparison)]
    best_soft = _best(done, "soft")
    if best_soft is not None:
        rivals = [r for r in done if r.method.family == "weights"]
        found += [_against(comparison, best_soft, rival) for rival in rivals]
        for family in ("hard", "few-shot", "optimised", "probe"):
            if (other := _best(done, family)) is not None:
                found.append(_against(comparison, best_soft, other))
        found += _curve(comparison, best_soft)
    found += _forgetting(done)
    found += [f"{r.method.title}: {r.status}: {r.reason}" for r in comparison.results if not r.done]
    if len(done) > 1:
        count = len(comparison.pairs)
        pairs = f"{count} pairs of methods were" if count > 1 else "1 pair of methods was"
        found.append(
            f"{pairs} tested on the same rows; differences called significant are so at 5% after "
            "Holm's correction for all of them."
        )
    found += _one_seed(comparison)
    if _several_in_a_family(done):
        found.append(
            "Where several methods are of one kind (hard prompts, few-shot, soft prompts), the one named is the best of them by "
            "its test score, so that this score is a little flattered."
        )
    return found


def _useless(comparison: Comparison) -> str:
    """That even the best says no more than an answer that ignores the text; else a verdict reads as if something worked."""
    best = comparison.done[0]
    floor = best.scores.get("majority") if comparison.metric in FLOORS else None
    if floor is not None and best.value <= float(floor) + ROUNDING:
        return f" But no method is better than {FLOORS[comparison.metric]} ({share_text(float(floor))})."
    if floor is None and comparison.material.task.writes and best.value <= 0:
        return f" But no method has any {comparison.metric}: none writes what was asked."
    return ""


def _known_rows(comparison: Comparison) -> str:
    """What makes every score of a trained method too good, said with the verdict itself."""
    shared, tests = comparison.material.shared, len(comparison.material.test)
    return f" But {shared} of {tests} test rows stand among the training rows too." if shared else ""


def _first(comparison: Comparison) -> str:
    """What to take: the cheapest of those that cannot be told apart from the best and, if any does, surely beat the hard
    prompt."""
    done, hard = comparison.done, _best(comparison.done, "hard")
    best = done[0]
    better = [r for r in done if hard is not None and r is not hard and _beats(comparison, r, hard)]
    if hard is not None and not better:
        if len(done) == 1:
            return f"Only the hard prompt was run: {comparison.metric} {share_text(hard.value)}."
        return _none_better(comparison, best, hard)
    level = [r for r in done if r is best or not comparison.pair(r.name, best.name).significant]
    open_ = [r for r in level if r in better] or better if better else level
    taken = min(open_, key=lambda r: (made(r.cost, "flops"), made(r.cost, "seconds")))
    said = f"Take {_named(taken)}: {comparison.metric} {share_text(taken.value)}"
    if taken is not best:
        return f"{said}. {_runner_up(comparison, taken, best)}"
    if len(done) == 1:
        return f"{said}."
    if len(level) == 1:
        return f"{said}, significantly better than every other method{_that_was_run(comparison)}."
    if len(open_) > 1:
        return f"{said}, the best, and the cheapest to make of the {len(open_)} that cannot be told apart from it."
    others, do = ("1 other", "does") if len(level) == 2 else (f"{len(level) - 1} others", "do")
    return f"{said}, the best; {others} cannot be told apart from it, but {do} not surely beat the hard prompt."


def _runner_up(comparison: Comparison, taken: Result, best: Result) -> str:
    """What is given up against the best, whether the paired test can tell, and what the best costs."""
    pair, metric = comparison.pair(taken.name, best.name), comparison.metric
    gap = f"{gap_text(metric, pair.difference.value)} {_more(metric)}{_rows_of(comparison, pair)}"
    return f"{_capital(_named(best))} scored {gap}, {_significance(comparison, pair)}, and is {_times(taken, best)} to make."


def _none_better(comparison: Comparison, best: Result, hard: Result) -> str:
    """That the hard prompt was not beaten, and whether the rows at hand could have told."""
    score = f"({comparison.metric} {share_text(hard.value)})"
    said = f"No method{_that_was_run(comparison)} beats the hard prompt {score}"
    if best is hard or comparison.gain(hard, best) <= 0:
        trained = any(r.method.trained for r in comparison.done)
        return f"{said}: nothing needs to be trained." if trained else f"{said}; none that trains was run."
    pair = comparison.pair(hard.name, best.name)
    gap = gap_text(comparison.metric, pair.difference.value)
    tested = _significance(comparison, pair)
    return f"{said} by more than chance: the best, {_named(best)}, is {gap} better on {pair.rows} test rows, {tested}."


def _that_was_run(comparison: Comparison) -> str:
    """What "every method" leaves out, where some have no scores."""
    return "" if all(r.done for r in comparison.results) else " that was run"


def _against(comparison: Comparison, soft: Result, other: Result) -> str:
    """The issue's sentence: by how much, whether it is significant, and what the difference costs."""
    pair, metric = comparison.pair(other.name, soft.name), comparison.metric
    gap = upward(metric, pair.difference.value)
    where = ("better" if gap > 0 else "worse") + " than" if metric in LOWER_IS_BETTER else "over" if gap > 0 else "under"
    if abs(gap) < 5e-4:
        said = f"{_capital(_named(soft))} scores the same as {_named(other)}"
    else:
        said = f"{_capital(_named(soft))} is {gap_text(metric, gap)} {where} {_named(other)}"
    return f"{said}{_rows_of(comparison, pair)}, {_significance(comparison, pair)}{_cheaper(soft, other)}."


def _rows_of(comparison: Comparison, pair: Pair) -> str:
    """Which rows a difference is of, where they are not all."""
    return f" on the {pair.rows} rows that both answered" if pair.rows < len(comparison.material.test) else ""


def _more(metric: str) -> str:
    return "nearer" if metric in LOWER_IS_BETTER else "more"


def _one_seed(comparison: Comparison) -> list[str]:
    """What no interval says where methods that a seed changes have one seed."""
    alone = [r.method.title for r in comparison.done if not r.training_variance]
    if not alone:
        return []
    return [
        f"Training variance is not in the intervals and tests of methods with one seed ({', '.join(alone)}): another seed may differ "
        "by more than they say. Ask for --seeds 3."
    ]


def _several_in_a_family(done: Sequence[Result]) -> bool:
    families = [r.method.family for r in done if r.method.family != "weights"]
    return len(families) > len(set(families))


def _significance(comparison: Comparison, pair: Pair) -> str:
    """What the test says, with the interval of this pair alone; why both can be where they seem to disagree."""
    ends = pair.difference.low, pair.difference.high
    low, high = gain_bounds(comparison.metric, *ends)
    bounds = f"95%: {low} to {high}" + ("" if pair.training_variance else ", over the test rows only")
    if pair.significant:
        return f"significant ({bounds})"
    if ends[0] <= 0 <= ends[1]:
        return f"not significant ({bounds})"
    count = len(comparison.pairs)
    tested = f"of the {count} pairs together" if count > 1 else "of the tests"
    return f"not significant (p {share_text(pair.p)} {tested}; of this pair alone {bounds})"


def _cheaper(soft: Result, other: Result) -> str:
    """How many times cheaper in training, its search for a learning rate with it, by seconds and by counted FLOPs; only where
    the other is trained as well."""
    if other.method.family in WORDS or other.method.family == "probe":
        more = soft.cost["added_tokens"] - other.cost["added_tokens"]
        tokens = f"{abs(more)} {'more' if more > 0 else 'fewer'} tokens a request" if more else "as many tokens a request"
        return f"; it adds {tokens}"
    seconds, flops = (made(other.cost, what) / max(made(soft.cost, what), least) for what, least in LEAST.items())
    return f"; {_ratio(seconds)} to train (seconds; {_ratio(flops)} by counted FLOPs)"


def _ratio(other_over_own: float) -> str:
    """Cheaper or dearer, each measure with its own direction."""
    if f"{other_over_own:.1f}" == "1.0":
        return "about as dear"
    if other_over_own >= 1:
        return f"{times_text(other_over_own)} cheaper"
    return f"{times_text(1 / other_over_own)} dearer" if other_over_own > 0 else "dearer"


def _curve(comparison: Comparison, soft: Result) -> list[str]:
    """Where the soft prompt starts to pay against the best words, read off the curve."""
    hard = _best(comparison.done, "hard")
    if hard is None or len(soft.curve) < 2:
        return []
    points = {
        rows: upward(comparison.metric, value) > upward(comparison.metric, hard.value) for rows, value, *_ in soft.curve
    }
    stays = next((n for n in points if all(better for rows, better in points.items() if rows >= n)), None)
    if stays is None:
        return [f"On the data curve {_named(soft)} never stays better than the hard prompt."]
    return [f"On the data curve {_named(soft)} is better than the hard prompt from {stays} rows on (read off, not tested)."]


def _forgetting(done: Sequence[Result]) -> list[str]:
    found = []
    for result in done:
        if "after" in result.forgetting:
            before, after = result.forgetting["before"], result.forgetting["after"]
            named = _capital(result.method.title)
            if f"{before:.3f}" == f"{after:.3f}":
                found.append(f"{named} left the model's loss on a general text at {before:.3f} nats a token.")
                continue
            word = "raised" if after > before else "lowered"
            found.append(
                f"{named} {word} the model's loss on a general text from {before:.3f} to {after:.3f} nats a token; "
                "prompts leave the model as it is."
            )
    return found


def _best(done: Sequence[Result], family: str) -> Result | None:
    return next((r for r in done if r.method.family == family), None)


def _beats(comparison: Comparison, result: Result, other: Result) -> bool:
    pair = comparison.pair(other.name, result.name)
    return pair.significant and upward(comparison.metric, pair.difference.value) > 0


def _named(result: Result) -> str:
    size = float(result.cost["kept_bytes"])
    trained = result.method.family in ("soft", "weights", "probe")
    return f"{result.method.title} ({bytes_text(size)})" if trained else result.method.title


def _times(cheap: Result, dear: Result) -> str:
    ratio = made(dear.cost, "seconds") / max(made(cheap.cost, "seconds"), 0.01)
    return f"{times_text(ratio)} dearer" if ratio >= 1 else f"{times_text(1 / ratio)} cheaper"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
