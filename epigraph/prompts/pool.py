"""A pool of prompt components, mixed for every input by its frozen query: learns task after task and needs no task id.

    α(x) = softmax_m(cos(q ∘ A_m, K_m) / τ)        P(x) = Σ_m α_m(x) P_m        K, A: [N, H]      q: the frozen query

Components are added and trained a task at a time; those of earlier tasks are frozen. The keys of a new task start at the
centres of its queries, less what earlier keys span (Gram-Schmidt); its components start at the task's own start.

Sources: Wang et al. 2022 (L2P), section 4, https://arxiv.org/abs/2112.08654; Smith et al. 2023 (CODA-Prompt), section 4,
https://arxiv.org/abs/2211.13218. Differs: α is a softmax, as sharp as L2P's choice of the nearest and as smooth as CODA's
sum, so that a mixture of keys and values is as large as one of them; queries are centred and scaled by those of neutral
texts, since the states of a language model all point one way; q is cached anyway, where the papers pay a second pass.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from epigraph.prompts.form import Form, KeyValue
from epigraph.prompts.packed import is_packed, pack, unit_of, unpack
from epigraph.prompts.soft import SoftPrompt, Supply

COMPONENTS = 4  # of a task
TEMPERATURE = 0.1
ROUNDS = 5  # of k-means
JITTER = 0.02  # in units of the start: components of a task start apart, or its keys had no gradient


class PoolPrompt(SoftPrompt):
    """Hold this task's components in units of their start's rms, and the frozen ones of the tasks before."""

    kind = "pool"
    start_form = KeyValue
    needs_query = True
    default_rate: ClassVar[float] = 0.04
    frozen_keys: Tensor
    frozen_attention: Tensor
    center: Tensor
    scale: Tensor
    tasks: Tensor

    @classmethod
    def begin(cls, start: Sequence[Form], supply: Supply) -> "PoolPrompt":
        """With keys as long as a frozen query."""
        return cls(start, hidden=supply.hidden)

    def __init__(self, start: Sequence[Form], *, hidden: int = 1, older: "PoolPrompt | None" = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        packed = [pack(form) for form in start]
        for number, block in enumerate(packed):
            self.register_buffer(f"unit{number}", unit_of(block))
            frozen = block.new_zeros(0, *block.shape) if older is None else older.components(number).detach()
            self.register_buffer(f"frozen{number}", frozen)
        self.own = nn.ParameterList(_apart(block / unit_of(block), generator) for block in packed)
        size = hidden if older is None else len(older.center)
        keys, attention = (torch.zeros(0, size), torch.zeros(0, size)) if older is None else older.addresses()
        self.register_buffer("frozen_keys", keys.detach())
        self.register_buffer("frozen_attention", attention.detach())
        self.keys = nn.Parameter(torch.randn(COMPONENTS, size, generator=generator))
        self.attention = nn.Parameter(torch.ones(COMPONENTS, size))
        self.register_buffer("center", torch.zeros(size) if older is None else older.center)
        self.register_buffer("scale", torch.ones(size) if older is None else older.scale)
        self.register_buffer("tasks", torch.tensor(1.0 if older is None else float(older.tasks) + 1))

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "PoolPrompt":
        """The prompt with this state."""
        blocks = [state[f"own.{n}"] for n in range(sum(name.startswith("own.") for name in state))]
        if not blocks or not all(is_packed(block, 1) for block in blocks):
            raise ValueError("it holds no components")
        made = cls([unpack(block[0]) for block in blocks], hidden=len(state["center"]))
        for number in range(len(blocks)):
            made.register_buffer(f"frozen{number}", torch.zeros_like(state[f"frozen{number}"]))
        for name in ("frozen_keys", "frozen_attention"):
            made.register_buffer(name, torch.zeros_like(state[name]))
        made.load_state_dict(dict(state))
        return made

    def behind(self, older: "PoolPrompt") -> "PoolPrompt":
        """This task's components, at their start, behind the frozen ones of the tasks before."""
        start = [unpack(block.detach().mean(0) * self.get_buffer(f"unit{n}")) for n, block in enumerate(self.own)]
        return PoolPrompt(start, older=older)

    @property
    def lengths(self) -> list[int]:
        """P of every block."""
        return [block.shape[-2] for block in self.own]

    def components(self, number: int) -> Tensor:
        """All components of a block, oldest first."""
        own = self.own[number] * self.get_buffer(f"unit{number}")
        return torch.cat([self.get_buffer(f"frozen{number}"), own])

    def addresses(self) -> tuple[Float[Tensor, "N H"], Float[Tensor, "N H"]]:
        """Keys and attention of all components, oldest first."""
        return torch.cat([self.frozen_keys, self.keys]), torch.cat([self.frozen_attention, self.attention])

    def standardised(self, query: Float[Tensor, "B H"]) -> Float[Tensor, "B H"]:
        """The query as the keys see it."""
        return (query.float() - self.center) / self.scale

    def prepare(self, queries: Float[Tensor, "N H"], neutral: Float[Tensor, "M H"]) -> None:
        """The first task settles how queries are centred and scaled; every task's keys start at the centres of its queries."""
        if not len(self.frozen_keys):
            self.center, self.scale = neutral.mean(0), neutral.std(0).clamp(min=1e-6)
        centres = _centres(torch.nn.functional.normalize(self.standardised(queries), dim=-1), COMPONENTS)
        keys = orthogonal_to(centres, self.frozen_keys)
        with torch.no_grad():
            self.keys.copy_(torch.nn.functional.normalize(keys, dim=-1))

    def weights(self, query: Float[Tensor, "B H"]) -> Float[Tensor, "B N"]:
        """α(x) over all components, oldest first."""
        keys, attention = self.addresses()
        seen = self.standardised(query)[:, None] * attention[None]
        return torch.softmax(torch.cosine_similarity(seen, keys[None], dim=-1) / TEMPERATURE, -1)

    def form(self, query: Float[Tensor, "B H"] | None = None) -> list[Form]:
        """The mixture of each block, for every input."""
        assert query is not None, "a pool is asked with the frozen query"
        weights = self.weights(query)
        return [unpack(torch.einsum("bm,m...->b...", weights, self.components(n))) for n in range(len(self.own))]


def orthogonal_to(vectors: Float[Tensor, "M H"], others: Float[Tensor, "N H"]) -> Float[Tensor, "M H"]:
    """The vectors less their part in the span of ``others``: one round of Gram-Schmidt; as they are where nothing is left."""
    if not len(others):
        return vectors
    basis = torch.linalg.svd(others, full_matrices=False)
    spanned = basis.Vh[1e-5 * basis.S.max() < basis.S]
    rest = vectors - vectors @ spanned.T @ spanned
    left = rest.norm(dim=-1, keepdim=True) > 1e-4 * vectors.norm(dim=-1, keepdim=True)
    return torch.where(left, rest, vectors)


def _centres(points: Float[Tensor, "N H"], count: int) -> Float[Tensor, "M H"]:
    """The centres of ``count`` clusters (k-means from evenly spaced points); means of all where there are fewer points."""
    centres = points[torch.linspace(0, len(points) - 1, count).long()].clone()
    for _ in range(ROUNDS):
        nearest = torch.cdist(points, centres).argmin(1)
        for m in range(count):
            mine = points[nearest == m]
            centres[m] = mine.mean(0) if len(mine) else points.mean(0)
    return centres


def _apart(block: Tensor, generator: torch.Generator) -> Tensor:
    """The components of a task: its start, each a little apart; together they are the start."""
    noise = torch.randn(COMPONENTS, *block.shape, generator=generator)
    return block + JITTER * (noise - noise.mean(0))
