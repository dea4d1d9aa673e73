"""Keys moved to other positions, on any base: the turn is measured, not derived from an architecture's formula.

    R(t → i) = argmin over orthogonal R of Σ_n ‖k_n(t) R − k_n(i)‖²  =  U Wᵀ,   where Σ_n k_n(t)ᵀ k_n(i) = U S Wᵀ

The probes n are single tokens. A token alone sees itself only, so with rotary positions its states are the same wherever it
stands, and its keys at two positions differ by the turn alone, which depends on the distance. On a base whose positions are
not turns (learned ones, added to the embeddings) no turn explains the difference, and keys stay as they are.

Source of the solution: Schönemann 1966, the orthogonal Procrustes problem, https://doi.org/10.1007/BF02289451.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.engine.attention import Blocks
from epigraph.engine.engine import Engine
from epigraph.engine.trunk import stack_captured

PROBES_A_DIMENSION = 2
MOST_MISSED = 0.1  # of the probes' keys that a turn leaves unexplained
ROWS_AT_ONCE = 512


@torch.no_grad()
def turn_keys(
    engine: Engine, keys: Float[Tensor, "L A P D"], old: Sequence[int], new: Sequence[int]
) -> Float[Tensor, "L A P D"]:
    """These keys as if their tokens, read at the positions ``old``, stood at ``new``."""
    turned = keys.clone()
    shifts = [after - before for before, after in zip(old, new, strict=True)]
    at_zero = _probes(engine, 0)
    turns = {shift: _turn_by(engine, shift, at_zero) for shift in set(shifts) if shift}
    for place, shift in enumerate(shifts):
        turn = turns.get(shift)
        if turn is not None:
            turned[:, :, place] = (keys[:, :, place].float() @ turn.to(keys.device)).to(keys.dtype)
    return turned


@torch.no_grad()
def turn_of(engine: Engine, shift: int) -> Float[Tensor, "L D D"] | None:
    """What turns keys, and queries alike, by ``shift`` positions at every layer; None where positions are no turns."""
    return _turn_by(engine, shift, _probes(engine, 0))


def _turn_by(engine: Engine, shift: int, at_zero: Float[Tensor, "L N D"]) -> Float[Tensor, "L D D"] | None:
    turn = _turn(at_zero, _probes(engine, abs(shift)))
    return turn if turn is None or shift >= 0 else turn.transpose(-1, -2)


def _turn(at_zero: Float[Tensor, "L N D"], shifted: Float[Tensor, "L N D"]) -> Float[Tensor, "L D D"] | None:
    """The turn from position 0 to another at every layer; None where none explains the probes."""
    left, _, right = torch.linalg.svd(at_zero.transpose(-1, -2) @ shifted)
    turn = left @ right
    missed = (at_zero @ turn - shifted).norm() / shifted.norm()
    return turn if float(missed) <= MOST_MISSED else None


def _probes(engine: Engine, position: int) -> Float[Tensor, "L N D"]:
    """The keys of single tokens at a position, those of all heads together."""
    base = engine.base
    count = max(8, math.ceil(PROBES_A_DIMENSION * base.head_size / base.heads))
    table = base.embedding.weight.shape[0]
    ids = torch.arange(0, table, max(1, table // count))[:count]
    found = []
    for some in torch.split(ids, ROWS_AT_ONCE):
        positions = torch.full((len(some), 1), position, device=base.device)
        alone = torch.ones(1, 1, 1, dtype=torch.bool, device=base.device)
        blocks = Blocks(positions, alone, captured={})
        engine.trunk.run(base.embed(some[:, None]), blocks)
        found.append(stack_captured(blocks)[0])
    keys = torch.cat(found, 1)  # [L, N, A, 1, D]
    return keys[:, :, :, 0].flatten(1, 2).float().cpu()
