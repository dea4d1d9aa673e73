"""What it says: descriptions that the base itself gives of the prompt, each with how far it can be trusted.

    h_ls(P) = states of the prompt's vectors after ls layers      request: "… | x x x x"   with   x's states at layer lt := h_ls(P)
    faithfulness(d) = agreement, and Cohen's κ, of the hard prompt "d" with the soft prompt's answers (written answers: ROUGE-L)

Source: InSPEcT, Ramati et al. 2024, section 3 (https://arxiv.org/abs/2410.11660), after Patchscopes (Ghandeharioun et al. 2024,
https://arxiv.org/abs/2401.06102). Differs: a description is judged by what a classifier does that is given nothing else, not by its words
in common with the true task. Keys and values have no states to move: their prompt is put into the request as it is, at all layers or
a third of them. A small base often says nothing to the point; then that is what is reported.
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
from epigraph.explaining.case import Case, kappa, pick
from epigraph.explaining.judged import said
from epigraph.methods import judge
from epigraph.methods.hard import instruction_in_place
from epigraph.methods.judge import Answer
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
    """What the base said of the prompt, from where (``source``), and how a classifier with only that agrees with the prompt."""

    text: str
    source: str
    agreement: float
    kappa: float


@dataclass(frozen=True, kw_only=True)
class Says:
    """The descriptions, the most faithful first; what agreement is worth nothing (the bare base, one answer for all); a verdict."""

    descriptions: tuple[Description, ...]
    bare: float
    constant: float
    instruction: float
    verdict: str
    rows: int
    how: str


def elicit_descriptions(case: Case, most_rows: int = 40) -> Says:
    """Ask the base, over several layers and requests, and test every description."""
    among = pick(case, most_rows)
    texts: dict[str, str] = {}
    for text, source in _elicited(case):
        if text:
            texts.setdefault(text, source)
    found = []
    for text, source in list(texts.items())[:MOST_DESCRIPTIONS]:
        if case.clock.over:
            break
        agreed, k = faithfulness(case, text, among)
        found.append(Description(text=text, source=source, agreement=agreed, kappa=k))
    found.sort(key=lambda d: (-d.kappa, -d.agreement))
    answers = [case.answers[i] for i in among]
    bare = case.answers_of([without(form, []) for form in case.forms], among)
    return Says(
        descriptions=tuple(found),
        bare=_agreement(case, bare, answers),
        constant=max(answers.count(a) for a in set(answers)) / len(answers),
        instruction=faithfulness(case, case.model.task.instruction, among)[0],
        verdict=_verdict(found),
        rows=len(among),
        how=f"The prompt's states put into {len(REQUESTS)} requests for a description, at several layers; every description then used as "
        f"the whole instruction on {len(among)} rows of {case.source}.",
    )


def faithfulness(case: Case, description: str, among: Sequence[int]) -> tuple[float, float]:
    """Agreement and Cohen's κ of a hard prompt of only this description with the soft prompt's answers."""
    task = replace(case.model.task, instruction=description)
    hard = instruction_in_place(case.engine, task, case.method.output_tokens)
    rows = [case.rows[i] for i in among]
    answers = [case.answers[i] for i in among]
    given = judge.answer(hard, rows).given
    agreed = _agreement(case, given, answers)
    return agreed, agreed if case.task.writes else kappa(given, answers).value


def _agreement(case: Case, given: Sequence[Answer], answers: Sequence[Answer]) -> float:
    """The share of equal answers; for written ones ROUGE-L."""
    if case.task.writes:
        return float(metrics.rouge_l([said(one) for one in given], [(said(answer),) for answer in answers]))
    return float(np.mean([a == b for a, b in zip(given, answers, strict=True)]))


def _verdict(found: Sequence[Description]) -> str:
    best = max((d.kappa for d in found), default=0.0)
    if best >= FAITHFUL:
        return "A classifier that is given only the best description answers much like the prompt: it says a good part of what it does."
    if best >= SOME:
        return "The best description explains some of the answers, not most: read it as a hint."
    return (
        "None of these descriptions makes the base answer like the prompt. With this base, what the prompt does cannot be read off in "
        "words this way; do not rely on them."
    )


def _elicited(case: Case) -> list[tuple[str, str]]:
    """(description, where from) over requests and layers."""
    (*_, form) = [f for f in case.forms if f.length]
    found = []
    for number, (before, after) in enumerate(REQUESTS):
        tokens = case.engine.base.tokenize(before), case.engine.base.tokenize(after)
        elicited = _patched(case, form, *tokens) if isinstance(form, Embedded) else _placed(case, form, *tokens)
        found += [(_cleaned(text), f"{where}, request {number + 1}") for text, where in elicited]
    return found


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
