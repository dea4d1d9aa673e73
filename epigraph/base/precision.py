"""Which number format the machine multiplies fastest, measured once and said with its reason.

On CPUs with bf16 instructions bf16 products run about four times as fast as fp32, on CPUs without them several times
slower; so the choice is measured, never assumed.
"""

import time
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from epigraph.errors import ConfigError

NAMES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NEEDED_GAIN = 1.2
RUNS, LOOKS = 16, 3
TOKENS, FEW_TOKENS = 256, 64
FAR = 4.0  # times slower from which on no careful measurement is needed


@dataclass(frozen=True)
class Precision:
    """A dtype and why it was chosen."""

    dtype: torch.dtype
    reason: str

    @property
    def name(self) -> str:
        """The dtype's name without the module, such as ``bfloat16``."""
        return str(self.dtype).removeprefix("torch.")


def choose_precision(asked: str | None, device: torch.device, reason: str = "asked for") -> Precision:
    """The dtype asked for, with ``reason``, or the faster of fp32 and bf16 on this device; ConfigError on an unknown name."""
    if asked and asked != "auto":
        if asked not in NAMES:
            raise ConfigError(f"dtype {asked!r} is not known.", f"Choose one of: auto, {', '.join(NAMES)}.")
        return Precision(NAMES[asked], reason)
    gain = bf16_gain(device.type)
    chosen = torch.bfloat16 if gain >= NEEDED_GAIN else torch.float32
    faster, slower, times = ("bf16", "fp32", gain) if gain >= 1 else ("fp32", "bf16", 1 / gain)
    return Precision(chosen, f"{faster} products run {times:.1f} times as fast as {slower} on this {device.type}")


@cache
def bf16_gain(device_type: str) -> float:
    """How many times as fast as fp32 a bf16 product of transformer size runs here.

    The fastest of several runs of each, in turn and on one thread: whatever else the machine does makes a run slower, never
    faster, and a choice that changed with it would read all texts anew in the other format. Where a short look shows bf16 far
    behind, as without any instructions for it, a careful measurement would take many seconds to say the same.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        look = _gain(device_type, FEW_TOKENS, LOOKS)
        return look if look < 1 / FAR else _gain(device_type, TOKENS, RUNS)
    finally:
        torch.set_num_threads(threads)


def _gain(device_type: str, tokens: int, runs: int) -> float:
    pairs = [_operands(dtype, device_type, tokens) for dtype in (torch.float32, torch.bfloat16)]
    took = [[_time(*pair) for pair in pairs] for _ in range(runs)]
    return min(full for full, _ in took) / min(half for _, half in took)


def _operands(dtype: torch.dtype, device_type: str, tokens: int, width: int = 768) -> tuple[Tensor, Tensor]:
    left = torch.ones(tokens, width, dtype=dtype, device=device_type)
    right = torch.ones(width, 2 * width, dtype=dtype, device=device_type)
    return left, right


def _time(left: Tensor, right: Tensor) -> float:
    start = time.perf_counter()
    (left @ right).sum().item()
    return time.perf_counter() - start
