"""What it says: descriptions that the base itself gives of the prompt, each with how far it can be trusted.

    h_ls(P) = states of the prompt's vectors after ls layers      request: "… | x x x x"   with   x's states at layer lt := h_ls(P)
    faithfulness(d) = agreement, and Cohen's κ, of the hard prompt "d" with the soft prompt's answers (written answers: ROUGE-L)

Source: InSPEcT, Ramati et al. 2024, section 3 (https://arxiv.org/abs/2410.11660), after Patchscopes (Ghandeharioun et al. 2024,
https://arxiv.org/abs/2401.06102). Differs: a description is judged by what a classifier does that is given nothing else, not by its words
in common with the true task; and the best is chosen on one half of the rows, while all that is told of it is of the other half, since
the best of many looks better than it is. Keys and values have no states to move: their prompt is put into the request as it is, at
all layers or a third of them. A small base often says nothing to the point; then that is what is reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from epigraph import metrics
from epigraph.engine import generate
from epigraph.engine.engine import Pass
from epigraph.engine.generation import go_on
from epigraph.engine.inspection import Look, inspect
from epigraph.engine.stream import Tail
from epigraph.explaining.case import Case, halves, kappa, pick, share
from epigraph.explaining.judged import said
from epigraph.methods import judge
from epigraph.methods.hard import instruction_in_place
from epigraph.methods.judge import Answer
from epigraph.methods.solver import PromptedBase
from epigraph.metrics import Interval
from epigraph.prompts import Embedded, Form, KeyValue
from epigraph.prompts.shown import show, without
from epigraph.tasks.encode import Encoded

REQUESTS = (
    (
        "Find the language of this sentence | Say whether this email is spam or not spam | Name the topic of this article |",
        "",
    ),
    ("The task is described by the words", ". In other words, the task is to"),
)
TOKENS, MOST_DESCRIPTIONS = 16, 8
FAITHFUL, SOME = 0.6, 0.3


@dataclass(frozen=True, kw_only=True)
class Description:
    """What the base said of the prompt, from where (``source``), and how a classifier with only that agrees with the prompt.

    ``chosen_by`` is its κ (written answers: ROUGE-L) on the rows that the best is chosen on, all else is of the other rows; ``kappa`` is
    None where answers are written, and ``agreement`` then ROUGE-L."""

    text: str
    source: str
    chosen_by: float
    agreement: Interval
    kappa: Interval | None

    @property
    def faithful(self) -> Interval:
        """How far it can be trusted."""
        return self.kappa or self.agreement


@dataclass(frozen=True, kw_only=True)
class Says:
    """The descriptions, the one that was chosen as most faithful first; what agreement is worth nothing (the bare base, one answer for
    all); a verdict. ``rows`` were measured on."""

    descriptions: tuple[Description, ...]
    bare: Interval
    constant: Interval
    instruction: Interval
    verdict: str
    rows: int
    how: str


def elicit_descriptions(case: Case, most_rows: int = 80) -> Says:
    """Ask the base, over several layers and requests, and test every description."""
    among = pick(case, most_rows)
    choosing, judged = halves(among, case.config.seed)
    texts: dict[str, str] = {}
    for text, source in _elicited(case):
        if text:
            texts.setdefault(text, source)
    found: list[Description] = []
    for text, source in list(texts.items())[:MOST_DESCRIPTIONS]:
        if case.clock.over:
            break
        found.append(_tested(case, text, source, choosing, judged))
    found.sort(key=lambda d: -d.chosen_by)
    answers = [case.answers[i] for i in judged]
    bare = case.answers_of([without(form, []) for form in case.forms], judged)
    commonest = max(answers, key=answers.count)
    rows = f"the best chosen on {len(choosing)} rows of {case.source}, all figures of {len(judged)} others"
    same = f"chosen and measured on the same {len(judged)} rows of {case.source}, since there are so few: too favourable"
    return Says(
        descriptions=tuple(found),
        bare=_agreement(case, bare, answers),
        constant=share([answer == commonest for answer in answers]),
        instruction=_agreement(case, _given(case, case.model.task.instruction, judged), answers),
        verdict=_verdict(found),
        rows=len(judged),
        how=f"The prompt's states put into {len(REQUESTS)} requests for a description, at several layers; {len(found)} of {len(texts)} "
        f"different descriptions then used as the whole instruction; {rows if set(choosing).isdisjoint(judged) else same}.",
    )


def _tested(case: Case, text: str, source: str, choosing: Sequence[int], judged: Sequence[int]) -> Description:
    """A description as the whole instruction of a hard prompt: how far it answers as the soft prompt does."""
    first, second = ((_given(case, text, rows), [case.answers[i] for i in rows]) for rows in (choosing, judged))
    seed, writes = case.config.seed, case.task.writes
    return Description(
        text=text,
        source=source,
        chosen_by=(_agreement(case, *first) if writes else kappa(*first, seed)).value,
        agreement=_agreement(case, *second),
        kappa=None if writes else kappa(*second, seed),
    )


def _given(case: Case, description: str, among: Sequence[int]) -> Sequence[Answer]:
    """What a hard prompt of only this description answers."""
    return judge.answer(described(case, description), [case.rows[i] for i in among]).given


def described(case: Case, description: str) -> PromptedBase:
    """The base under nothing but this description."""
    task = replace(case.model.task, instruction=description)
    return instruction_in_place(case.engine, task, case.method.output_tokens)


def _agreement(case: Case, given: Sequence[Answer], answers: Sequence[Answer]) -> Interval:
    """The share of equal answers; for written ones ROUGE-L."""
    if not case.task.writes:
        return share([a == b for a, b in zip(given, answers, strict=True)])
    rows = metrics.rouge_l_rows([said(one) for one in given], [(said(answer),) for answer in answers])
    return metrics.bootstrap(metrics.mean_metric(np.asarray(rows, dtype=np.float64)), len(rows), seed=case.config.seed)


def _verdict(found: Sequence[Description]) -> str:
    """What the description that was chosen does on the rows that it was not chosen on."""
    best = found[0].faithful if found else Interval(0.0, 0.0, 0.0)
    if best.value >= FAITHFUL and best.low > SOME:
        return "A classifier that is given only the best description answers much like the prompt: it says a good part of what it does."
    if best.value >= SOME and best.low > 0:
        return "The best description explains some of the answers, not most: read it as a hint."
    return (
        "None of these descriptions surely makes the base answer like the prompt. With this base, what the prompt does cannot be read off "
        "in words this way; do not rely on them."
    )


def _elicited(case: Case) -> list[tuple[str, str]]:
    """(description, where from) over layers and requests, these in turn, so that the first few are of all."""
    (*_, form) = [f for f in case.forms if f.length]
    found = []
    for number, (before, after) in enumerate(REQUESTS):
        tokens = case.engine.base.tokenize(before), case.engine.base.tokenize(after)
        elicited = _patched(case, form, *tokens) if isinstance(form, Embedded) else _placed(case, form, *tokens)
        found.append([(_cleaned(text), f"{where}, request {number + 1}") for text, where in elicited])
    return [one for turn in zip(*found, strict=True) for one in turn]


def _cleaned(text: str) -> str:
    """One line, up to where the next description would begin."""
    return text.split("|")[0].strip().split("\n")[0].strip(" .:;,").strip()


def _placed(case: Case, form: KeyValue, before: Sequence[int], after: Sequence[int]) -> list[tuple[str, str]]:
    """The keys and values in the request, seen at all layers or at a third of them."""
    L = case.engine.base.layers
    ranges = {
        "all layers": (0, L),
        "early layers": (0, L // 3),
        "middle layers": (L // 3, 2 * L // 3),
        "late layers": (2 * L // 3, L),
    }
    row = Encoded((tuple(_begun(case, before)), tuple(after) or tuple(case.engine.base.tokenize(" "))))
    found = []
    for name, (first, last) in ranges.items():
        shown = torch.zeros(L, form.length, dtype=torch.bool)
        shown[first:last] = True
        if shown.any():
            (ids,) = generate(case.engine, [row], [show(form, shown)], TOKENS)
            found.append((case.engine.base.detokenize(ids), f"keys and values at {name}"))
    return found


@torch.no_grad()
def _patched(case: Case, form: Embedded, before: Sequence[int], after: Sequence[int]) -> list[tuple[str, str]]:
    """The prompt's states after ls layers put in place of x's at layer lt, one pass a pair."""
    engine, L = case.engine, case.engine.base.layers
    alone = inspect(engine, [Encoded(((), ()))], [Embedded(form.vectors)], Tail([()]), Look(states=True))
    row = Encoded((tuple(_begun(case, before)), tuple(after)))
    places: list[Form] = [Embedded(engine.embedded_text([_x(case)] * form.length).vectors)]
    found = []
    for source, target in sorted(
        {(0, 0), (L // 4, 0), (L // 2, 0), (L // 2, L // 4), (L // 2, L // 2), (3 * L // 4, L // 4)}
    ):
        columns = slice(len(row.segments[0]), len(row.segments[0]) + form.length)

        def put(states: Tensor, columns: slice = columns, source: int = source) -> Tensor:
            return torch.cat(
                [states[:, : columns.start], alone.states[source].to(states.dtype), states[:, columns.stop :]], 1
            )

        seen = inspect(engine, [row], places, Tail([()]), Look(patches={target: put}, capture=True))
        (ids,) = go_on(engine, Pass(seen.hidden, seen.stream, seen.blocks), TOKENS)
        found.append((engine.base.detokenize(ids), f"states after {source} layers put in at layer {target}"))
    return found


def _x(case: Case) -> int:
    return case.engine.base.tokenize(" x")[0]


def _begun(case: Case, tokens: Sequence[int]) -> list[int]:
    return [*([case.engine.base.bos] if case.engine.base.bos is not None else []), *tokens]
