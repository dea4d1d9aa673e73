"""The texts on which the old answers are kept: those that the user gives, or ones that the base writes itself.

    correction's text ⏎ another's ⏎ … ⏎ ─ base, sampled ─► a new text of that sort, up to the line's end

Every field of the template is written by itself, behind up to four values that corrections have there (few-shot, Brown et al. 2020,
https://arxiv.org/abs/2005.14165), each token drawn from the nucleus of Holtzman et al. 2020, section 3.1,
https://arxiv.org/abs/1904.09751, among the 100 likeliest. No answer is asked for: that is the old prompt's. The texts are seeded and
never stored.

Two thirds are held by the step; the others it never sees: on them is counted what it changes elsewhere.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
from jaxtyping import Float, Int
from torch import Tensor

from epigraph.correct.corrections import text_of, without
from epigraph.engine import Engine, generate
from epigraph.prompts import Embedded
from epigraph.tasks.encode import Encoded, opening
from epigraph.tasks.row import Row
from epigraph.tasks.split import head
from epigraph.tasks.task import Task

SHOWN, LEADS = 4, 8  # values before a new one; different beginnings
NUCLEUS, LIKELIEST, MOST_TOKENS = 0.95, 100, 48
SPARE = 1.15  # written for one that is wanted: some come out empty or twice


@dataclass(frozen=True)
class Kept:
    """Texts whose answers shall stay: ``rows`` that the step holds, ``apart`` on which its changes are counted, and what the
    latter are, in words."""

    rows: Sequence[Row]
    apart: Sequence[Row]
    source: str

    @property
    def both(self) -> list[Row]:
        """All of them."""
        return [*self.rows, *self.apart]


def given_texts(rows: Sequence[Row], corrections: Sequence[Row], *, most: int, seed: int, source: str) -> Kept:
    """The user's texts without those that are corrected, at most so many drawn at random, held and apart."""
    found = without(rows, corrections)
    return divided(head(found, most, seed), f"texts of {source}")


def written_texts(engine: Engine, task: Task, corrections: Sequence[Row], *, count: int, seed: int) -> Kept:
    """Texts that the base writes in the manner of the corrections."""
    draw = random.Random(seed)
    wanted = int(count * SPARE) + 1
    blank = [draw.choice(corrections) for _ in range(wanted)]
    own = [name for name, column in task.columns.fields.items() if column and name in task.template.fields]
    values = {name: _written(engine, [row.fields[name] for row in corrections], wanted, draw) for name in own}
    rows = [
        replace(row, fields={**row.fields, **{name: values[name][i] for name in own}}, target=None, labels=(), references=())
        for i, row in enumerate(blank)
    ]
    full = [row for row in rows if all(row.fields[name] for name in own)]
    kept = without(list({text_of(row): row for row in full}.values()), corrections)[:count]
    return divided(kept, "texts that the base wrote in the manner of the corrections")


def divided(rows: Sequence[Row], what: str) -> Kept:
    """Two thirds of the rows to hold, and a third apart."""
    held = len(rows) * 2 // 3
    apart = len(rows) - held
    return Kept(
        list(rows[:held]), list(rows[held:]), f"{apart} {what}, which the step did not learn from ({held} others were held)"
    )


def _written(engine: Engine, values: Sequence[str], count: int, draw: random.Random) -> list[str]:
    """New values like these, a line each; "" where the base wrote none."""
    base = engine.base
    leads = []
    for _ in range(min(LEADS, count)):
        shown = draw.sample(list(values), min(SHOWN, len(values)))
        text = "".join(f"{' '.join(value.split())}\n" for value in shown)
        leads.append([*opening(base, chat=False), *base.tokenize_plainly(text)][-(base.context - MOST_TOKENS - 1) :])
    rows = [Encoded((tuple(leads[i % len(leads)][:-1]), tuple(leads[i % len(leads)][-1:]))) for i in range(count)]
    usual = median(len(base.tokenize_plainly(value)) for value in values)
    nothing = Embedded(torch.zeros(0, base.hidden, device=base.device))
    generator = torch.Generator().manual_seed(draw.getrandbits(62))
    limit = min(MOST_TOKENS, int(usual) + 8)
    found = generate(engine, rows, [nothing], limit, ("\n",), lambda logits: _drawn(logits, generator))
    return [base.detokenize(ids).partition("\n")[0].strip() for ids in found]


def _drawn(logits: Float[Tensor, "B V"], generator: torch.Generator) -> Int[Tensor, "B"]:
    """A token of each row's nucleus, among the likeliest."""
    weights, order = torch.softmax(logits.float(), -1).cpu().topk(min(LIKELIEST, logits.shape[-1]))
    weights = weights.masked_fill(weights.cumsum(-1) - weights >= NUCLEUS, 0.0)
    place = torch.multinomial(weights, 1, generator=generator)
    return order.gather(1, place)[:, 0].to(logits.device)
