"""A readable twin: the hard prompt that answers most like the soft one, and what is lost by it.

    minimise  KL( p_soft(label | x) ‖ p_hard(label | x) )   over tokens, on half of the rows
    choose    the largest κ of the answers on that half, then the smallest divergence; measured on the other half

The divergence has a gradient, but prefers a hard prompt that is sure of nothing to one that is mostly right; so it guides the search and
does not choose. Three searches, each going on from the best so far: (1) candidate instructions, and the best of them with
demonstrations that carry the soft prompt's own answers; (2) PEZ: continuous vectors whose projection to the nearest tokens gives the
gradient (Wen et al. 2023, algorithm 1, https://arxiv.org/abs/2302.03668); (3) GCG: of the token swaps that the gradient favours the one
that lowers the loss most (Zou et al. 2023, algorithm 1, https://arxiv.org/abs/2307.15043). Differs: all candidates of a step are tried
side by side in one pass.
Tokens stand in the prompt's place, so that the frozen states of the rows serve every candidate. Only strings that tokenise back to the
same tokens count, so that the twin can be copied out as text; what is shown is what was scored, with all that stands around it.

    fluency = exp( −mean log p(token | tokens before it) )       perplexity under the base
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from epigraph.engine.inspection import inspect, label_scores
from epigraph.engine.stream import Tail
from epigraph.errors import EpigraphError, Unsupported
from epigraph.explaining.case import Case, halves, kappa, pick, share
from epigraph.explaining.judged import said
from epigraph.explaining.words import begins_word
from epigraph.methods import judge
from epigraph.methods.hard import GAP, as_written, few_shot, instruction_in_place, shown_example
from epigraph.methods.judge import Answer
from epigraph.methods.solver import PromptedBase
from epigraph.methods.wording import is_template, template_prompt
from epigraph.metrics import Interval
from epigraph.prompts import Embedded, Form
from epigraph.tasks.encode import Encoded
from epigraph.tasks.row import Row
from epigraph.tasks.template import Template

SHOTS, DRAWS = 8, 6  # examples before the rows, at least one of each answer; and how many draws of them
INSTRUCTION, TEMPLATE = "an instruction in the prompt's place", "a template of its own, written by hand"
BATCH, SWAPS, TOP = 12, 8, 32
PEZ_RATE = 0.3  # in units of the table's rms


@dataclass(frozen=True, kw_only=True)
class Hard:
    """A hard prompt: its words as they were scored and how it was made; ``whole`` is all that the base reads, with fields by name;
    how it agrees with the soft prompt, its score, its perplexity. ``divergence`` and ``seen_kappa`` are of the searching half."""

    text: str
    whole: str
    how: str
    divergence: float
    seen_kappa: float
    agreement: Interval
    kappa: Interval
    score: Interval
    perplexity: float


@dataclass(frozen=True, kw_only=True)
class Twin:
    """The best hard prompt found beside the soft prompt's score, the task's own instruction, and the best hard prompt written by hand
    (by its score on the searching half; None where none was written). ``change`` is the twin's score minus the soft prompt's, paired."""

    best: Hard
    instruction: Hard
    written: Hard | None
    others: tuple[Hard, ...]
    soft: Interval
    metric: str
    change: Interval
    rows: int
    stopped: str
    how: str


@dataclass(frozen=True)
class _Candidate:
    """A hard prompt that is in the search; divergence, κ and score are of the searching half. ``words`` is the bare instruction."""

    text: str
    whole: str
    how: str
    method: PromptedBase
    divergence: float
    kappa: float
    score: float
    words: str = ""

    @property
    def unlike(self) -> tuple[float, float]:
        """How little it answers like the soft prompt: the best has the least."""
        return -self.kappa, self.divergence


def search_twin(case: Case, descriptions: Sequence[str] = (), most_rows: int = 120) -> Twin:
    """Search within the budget, and measure on rows that the search has not seen. Unsupported where answers are no single labels."""
    if not case.has_labels:
        raise Unsupported(no_twin(case))
    search = _Search(case, pick(case, most_rows, scored=True))
    candidates = search.instructions(descriptions)
    candidates += search.demonstrations(candidates)
    found, stopped = search.tokens(candidates)
    candidates += found
    own = next((c for c in candidates if c.words == case.model.task.instruction), candidates[0])
    by_hand = max(search.by_hand(candidates), key=lambda c: c.score, default=None)
    candidates.sort(key=lambda c: c.unlike)
    measured = {id(c): search.measure(c) for c in [*candidates[:4], own, *([by_hand] if by_hand else [])]}
    best, soft = measured[id(candidates[0])], [case.answers[i] for i in search.held]
    apart = "other rows" if set(search.seen).isdisjoint(search.held) else "rows, the same, since there are so few"
    return Twin(
        best=best,
        instruction=measured[id(own)],
        written=measured[id(by_hand)] if by_hand else None,
        others=tuple(measured[id(c)] for c in candidates[1:4]),
        soft=case.score(soft, search.held),
        metric=case.metric_name,
        change=case.change(soft, search.said(candidates[0]), search.held),
        rows=len(search.held),
        stopped=stopped,
        how=f"{len(candidates)} hard prompts tried on {len(search.seen)} rows of {case.source}; the one most alike (κ) measured on "
        f"{len(search.held)} {apart}. {stopped}",
    )


def no_twin(case: Case) -> str:
    """Why no twin is searched for where answers are no single labels."""
    ways = {
        "generation": "writes text",
        "choice": "chooses among a row's own choices",
        "multilabel": "may give several labels",
    }
    return f"a twin is searched for where answers are labels; this prompt {ways.get(case.task.kind, 'does not give one label')}."


class _Search:
    """The rows of a search and what is tried on them."""

    def __init__(self, case: Case, among: Sequence[int]) -> None:
        self.case = case
        self.seen, self.held = halves(among, case.config.seed)
        self.rows = [case.rows[i] for i in self.seen]
        self.target = torch.tensor(np.log(np.maximum(case.probabilities[self.seen], 1e-9)), dtype=torch.float32)
        self.rng = random.Random(case.config.seed)

    def instructions(self, descriptions: Sequence[str]) -> list[_Candidate]:
        """What a person, the task or the base itself would say."""
        task = self.case.model.task
        words = list(task.labels.values())
        either = f"{', '.join(words[:-1])} or {words[-1]}"
        texts = [task.instruction, *task.hard_prompts, f"Answer {either}.", f"Is this {either}?", either, *descriptions]
        return [found for text in dict.fromkeys(t for t in texts if t.strip()) if (found := self._worded(text)) is not None]

    def _worded(self, text: str) -> _Candidate | None:
        """An instruction in the prompt's place, or a whole template where the text names a field; None where it leaves no room."""
        task, tokens = self.case.model.task, self.case.method.output_tokens
        try:
            if is_template(task, text):
                method = template_prompt(self.case.engine, task, text, tokens)
                return self._tried(text, text, TEMPLATE, method, text)
            method = instruction_in_place(self.case.engine, replace(task, instruction=text), tokens)
        except EpigraphError:
            return None
        fitted = as_written(text, task.template.segments[0])
        return self._tried(fitted.strip("\n"), _whole(task.template, fitted), INSTRUCTION, method, text)

    def by_hand(self, candidates: Sequence[_Candidate]) -> list[_Candidate]:
        """Those that a person wrote: the task's hard prompts, and its instruction unless it was made of the labels."""
        task = self.case.model.task
        written = {*task.hard_prompts, *(() if task.instruction_generated else (task.instruction,))}
        return [c for c in candidates if c.words in written]

    def demonstrations(self, candidates: Sequence[_Candidate]) -> list[_Candidate]:
        """The best instruction before examples that carry the soft prompt's answers."""
        usable = [c for c in candidates if c.how == INSTRUCTION]
        if not usable:
            return []
        task = replace(self.case.model.task, instruction=min(usable, key=lambda c: c.unlike).words)
        found = []
        for _ in range(DRAWS):
            if self.case.clock.over:
                break
            examples = [_answered(self.case, i) for i in self._turns()]
            try:
                method = few_shot(self.case.engine, task, examples, self.case.method.output_tokens)
                text = GAP.join([task.instruction, *("".join(shown_example(task, e)) for e in examples)]) + GAP
                how = f"an instruction and {len(examples)} examples with the prompt's answers"
                found.append(self._tried(text.rstrip("\n"), _whole(task.template.placed("first"), text), how, method))
            except EpigraphError:  # they leave no room for a row
                continue
        return found

    def _turns(self) -> list[int]:
        """Rows of the searching half, one of each answer in turn."""
        by: dict[str, list[int]] = {}
        for i in self.rng.sample(self.seen, len(self.seen)):
            by.setdefault(said(self.case.answers[i]), []).append(i)
        turns = [i for turn in zip_longest(*by.values()) for i in turn if i is not None]
        return turns[: max(SHOTS, len(by))]

    def _tried(self, text: str, whole: str, how: str, method: PromptedBase, words: str = "") -> _Candidate:
        with self.case.engine.store.passing():
            p = method.probabilities(self.rows)
        found = torch.tensor(np.log(np.maximum(p, 1e-9)), dtype=torch.float32)
        given = judge.read(self.case.task, self.rows, p).given
        alike = kappa(given, [self.case.answers[i] for i in self.seen]).value
        away = float(divergence(self.target, found).mean())
        return _Candidate(text, whole, how, method, away, alike, self.case.score(given, self.seen).value, words)

    def tokens(self, candidates: Sequence[_Candidate]) -> tuple[list[_Candidate], str]:
        """PEZ, then GCG, from the best candidate that stands in the prompt's place; and how far the search came, or why it did not."""
        case, usable = self.case, [c for c in candidates if c.how == INSTRUCTION]
        if reason := self._no_tokens(usable):
            return [], f"No tokens were searched: {reason}."
        best = min(usable, key=lambda c: c.unlike)
        words = TokenSearch(case, self.target, [case.encoded[i] for i in self.seen], self.rng)
        ids = words.begin(case.engine.base.tokenize(" " + best.words), case.config.twin_tokens)
        steps = case.config.twin_steps
        ids, taken = words.project(ids, steps // 2)
        first = ids
        ids, more = words.swap(ids, steps - steps // 2)
        stopped = f"{taken} projected and {more} swapped steps over {len(ids)} tokens" + (
            ", until the budget was spent." if case.clock.over else "."
        )
        found = []
        for tokens, how in ((first, "tokens found by projection (PEZ)"), (ids, "tokens found by swaps (GCG)")):
            text = case.engine.base.detokenize(tokens)
            whole = _whole(case.model.task.template, text)
            found.append(self._tried(text, whole, how, case.method.with_forms(words.forms(tokens)).with_shift(None)))
        return found, stopped

    def _no_tokens(self, usable: Sequence[_Candidate]) -> str:
        """Why no tokens are searched; "" where they are."""
        if self.case.clock.over:
            return "the budget was spent"
        if self.case.engine.plain:
            return "this base is run by plain concatenation, which is not searched over"
        if self.case.no_forms:
            return "they take the place of one prompt that is the same for every text"
        return "" if usable else "no instruction was there to begin with"

    def said(self, candidate: _Candidate) -> list[Answer]:
        """What a candidate answers to the rows that were not searched on."""
        with self.case.engine.store.passing():
            return list(judge.answer(candidate.method, [self.case.rows[i] for i in self.held]).given)

    def measure(self, candidate: _Candidate) -> Hard:
        """A candidate on the rows that were not searched on."""
        case, given = self.case, self.said(candidate)
        answers = [case.answers[i] for i in self.held]
        return Hard(
            text=candidate.text,
            whole=candidate.whole,
            how=candidate.how,
            divergence=candidate.divergence,
            seen_kappa=candidate.kappa,
            agreement=share([a == b for a, b in zip(given, answers, strict=True)]),
            kappa=kappa(given, answers, case.config.seed),
            score=case.score(given, self.held),
            perplexity=perplexity(case, candidate.text),
        )


def _whole(template: Template, text: str) -> str:
    """All that the base reads with this text in the first block: fields by name, the other blocks empty."""
    first, *rest = [Template.source(pieces) for pieces in template.segments]
    return first + text.replace("{", "{{").replace("}", "}}") + "".join(rest)


class TokenSearch:
    """Discrete tokens in the prompt's place that imitate its label probabilities."""

    def __init__(self, case: Case, target: Tensor, rows: Sequence[Encoded], rng: random.Random) -> None:
        self.case, self.rows, self.rng = case, rows, rng
        self.engine, self.tree = case.engine, case.method.tree
        self.target = target.to(case.engine.base.device)
        self.allowed = allowed_tokens(case)
        self.table = self.engine.base.embed(self.allowed).float()
        tokenizer = self.engine.base.tokenizer
        self.words = [i for i in self.allowed.tolist() if begins_word(tokenizer, i)] or self.allowed.tolist()
        self.unit = self.engine.base.table_rms

    def begin(self, ids: Sequence[int], length: int) -> list[int]:
        """The first tokens of an instruction, those that may not be used replaced; it tokenises back to itself."""
        usable = set(self.allowed.tolist())
        kept = [token for token in ids if token in usable][:length]
        while len(kept) < length:
            kept.append(self.rng.choice(kept or self.allowed.tolist()))
        for _ in range(50):
            if self.stable(kept):
                return kept
            kept[self.rng.randrange(length)] = self.rng.choice(self.words)
        return kept

    def forms(self, ids: Sequence[int]) -> list[Form]:
        """These tokens in the first block, nothing in the others."""
        return self._placed(self.engine.embedded_text(ids).vectors)

    def _placed(self, vectors: Tensor) -> list[Form]:
        blank = Embedded(self.engine.embedded_text([]).vectors.view(0, self.engine.base.hidden))
        return [Embedded(vectors), *[blank] * (len(self.case.forms) - 1)]

    def stable(self, ids: Sequence[int]) -> bool:
        """Whether the tokens' text has these tokens."""
        base = self.engine.base
        return base.tokenize(base.detokenize(ids)) == list(ids)

    def losses(self, prompts: Sequence[Sequence[Form]], batch: Sequence[int]) -> Tensor:
        """The mean divergence of each prompt over these rows, in nats."""
        rows = [self.rows[i] for _ in prompts for i in batch]
        scores = label_scores(self.engine, rows, prompts, self.tree).view(len(prompts), len(batch), -1)
        return divergence(self.target[list(batch)][None], scores).mean(1)

    def gradient(self, vectors: Tensor, batch: Sequence[int]) -> tuple[float, Tensor]:
        """The divergence under these vectors, and its gradient in them."""
        leaf = vectors.detach().clone().requires_grad_()
        loss = self.losses([self._placed(leaf)], batch)[0]
        (found,) = torch.autograd.grad(loss, leaf)
        return float(loss.detach()), found

    def batch(self) -> list[int]:
        """A few rows."""
        return self.rng.sample(range(len(self.rows)), min(BATCH, len(self.rows)))

    def project(self, ids: Sequence[int], steps: int) -> tuple[list[int], int]:
        """PEZ from these tokens: the best projection met, judged on rows that stay the same; and the steps taken."""
        vectors = self.engine.embedded_text(ids).vectors.float().clone()
        parameter = torch.nn.Parameter(vectors / self.unit)
        adam = torch.optim.AdamW([parameter], lr=PEZ_RATE, weight_decay=0.0)
        judge = self.batch()
        best, least, taken = list(ids), self._judged(ids, judge), 0
        for _ in range(steps):
            if self.case.clock.over:
                break
            tokens = self.nearest(parameter.detach() * self.unit)
            _, gradient = self.gradient(self.engine.embedded_text(tokens).vectors, self.batch())
            parameter.grad = gradient.float() * self.unit
            adam.step()
            tokens, taken = self.nearest(parameter.detach() * self.unit), taken + 1
            if tokens != best and self.stable(tokens) and (loss := self._judged(tokens, judge)) < least:
                best, least = tokens, loss
        return best, taken

    @torch.no_grad()
    def _judged(self, ids: Sequence[int], batch: Sequence[int]) -> float:
        return float(self.losses([self.forms(ids)], batch)[0])

    def nearest(self, vectors: Tensor) -> list[int]:
        """The allowed token nearest to each vector, by cosine."""
        unit = torch.nn.functional.normalize
        return [int(self.allowed[i]) for i in (unit(vectors, dim=-1) @ unit(self.table, dim=-1).T).argmax(1).tolist()]

    def swap(self, ids: Sequence[int], steps: int) -> tuple[list[int], int]:
        """GCG: each step takes the best of several swaps that the gradient favours, or none; and the steps taken."""
        ids, taken = list(ids), 0
        for _ in range(steps):
            if self.case.clock.over:
                break
            batch = self.batch()
            _, gradient = self.gradient(self.engine.embedded_text(ids).vectors, batch)
            favoured = (-(gradient.float() @ self.table.T)).topk(min(TOP, len(self.allowed))).indices
            tried = [ids]
            for _ in range(3 * SWAPS):
                at = self.rng.randrange(len(ids))
                token = int(self.allowed[favoured[at, self.rng.randrange(favoured.shape[1])]])
                swapped = [*ids[:at], token, *ids[at + 1 :]]
                if swapped not in tried and self.stable(swapped):
                    tried.append(swapped)
                if len(tried) > SWAPS:
                    break
            with torch.no_grad():
                losses = self.losses([self.forms(one) for one in tried], batch)
            ids, taken = tried[int(losses.argmin())], taken + 1
        return ids, taken


def divergence(target: Tensor, found: Tensor) -> Tensor:
    """KL(target ‖ found) of log probabilities, in nats."""
    return (target.exp() * (target - found.clamp(min=-30))).sum(-1)


def allowed_tokens(case: Case) -> Tensor:
    """Tokens of printable text: no special ones, no parts of characters."""
    base = case.engine.base
    special = set(base.tokenizer.all_special_ids)
    size = min(base.embedding.weight.shape[0], len(base.tokenizer))
    texts = base.tokenizer.batch_decode([[i] for i in range(size)])
    kept = [
        i for i, text in enumerate(texts) if i not in special and text.strip() and text.isprintable() and "�" not in text
    ]
    return torch.tensor(kept)


@torch.no_grad()
def perplexity(case: Case, text: str) -> float:
    """How surprising the text is to the base; 0 where it has fewer than two tokens or the base is not looked into."""
    base = case.engine.base
    ids = [*([base.bos] if base.bos is not None else []), *base.tokenize(text)][: base.context]
    if len(ids) < 2 or case.engine.plain:
        return 0.0
    seen = inspect(case.engine, [Encoded((tuple(ids),))], [], Tail([()]))
    said = torch.log_softmax(case.engine.trunk.logits(seen.hidden[0, :-1]), -1)
    return math.exp(-float(said[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].mean()))


def _answered(case: Case, number: int) -> Row:
    return replace(case.rows[number], target=said(case.answers[number]))
