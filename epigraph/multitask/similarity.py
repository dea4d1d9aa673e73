"""Which tasks are alike, and which help which.

    cosine[i, j] = mean over layers of cos(mean over positions of P_i, of P_j), keys and values alike
    gain[i, j]   = score of task j tuned on a few rows from P_i, less the same from its own text start, with the 95% interval of
                   the difference on the same test rows; where it contains 0, nobody knows whether i helps j

Source: Vu et al. 2022 (SPoT), section 3.3, https://arxiv.org/abs/2110.07904: the cosine of prompts averaged over their tokens
foretells transfer. How far it does here is said by ``agreement``, the rank correlation of both over the pairs of tasks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.prompts import Form
from epigraph.prompts.packed import pack

Table = list[list[float | None]]
Colour = Callable[[int, int], str]
GREY = "#e7e5e4"
CELL, LEFT, TOP = 58, 130, 96


@dataclass(frozen=True)
class Gains:
    """What each task (row) brings to each other one (column), and the bounds of its interval; None where there is none."""

    value: Table
    low: Table
    high: Table

    @classmethod
    def none(cls, tasks: int) -> "Gains":
        """Nothing measured yet."""

        def empty() -> Table:
            return [[None] * tasks for _ in range(tasks)]

        return cls(value=empty(), low=empty(), high=empty())

    def put(self, i: int, j: int, found: tuple[float, float | None, float | None]) -> None:
        """What was measured: value, low, high."""
        self.value[i][j], self.low[i][j], self.high[i][j] = found

    def sure(self, i: int, j: int) -> bool:
        """Whether the interval lies on one side of 0."""
        low, high = self.low[i][j], self.high[i][j]
        return low is not None and high is not None and (low > 0 or high < 0)

    def sentences(self, names: Sequence[str]) -> list[str]:
        """Who helps whom, and who harms whom, as far as it is sure."""
        return [
            f"{a} {'helps' if (self.value[i][j] or 0) > 0 else 'harms'} {b} "
            f"({self.value[i][j]:+.2f} [{self.low[i][j]:+.2f} to {self.high[i][j]:+.2f}])"
            for i, a in enumerate(names)
            for j, b in enumerate(names)
            if self.sure(i, j)
        ]

    def to_dict(self, names: Sequence[str]) -> dict[str, object]:
        """As the command prints it."""
        return {"gain": self.value, "gain_low": self.low, "gain_high": self.high, "helps": self.sentences(names)}


def cosines(prompts: Sequence[Sequence[Form]]) -> Table:
    """The cosine of every two tasks' prompts."""
    pooled = [torch.cat([_pooled(form) for form in forms]) for forms in prompts]
    return [[float(torch.cosine_similarity(a, b, dim=-1).mean()) for b in pooled] for a in pooled]


def _pooled(form: Form) -> Float[Tensor, "X D"]:
    """The mean over positions: one vector a layer for keys and for values, or one at the embedding layer."""
    mean = pack(form).mean(-2)
    return mean[None] if mean.ndim == 1 else mean.flatten(0, 1).flatten(1)


def agreement(similar: Table, gains: Table) -> float | None:
    """Spearman's rank correlation of similarity and gain over the pairs of different tasks; None with fewer than three."""
    pairs = [
        (similar[i][j], gains[i][j])
        for i in range(len(similar))
        for j in range(len(similar))
        if i != j and similar[i][j] is not None and gains[i][j] is not None
    ]
    if len(pairs) < 3:
        return None
    ranks = np.array([_ranks([float(pair[side] or 0) for pair in pairs]) for side in (0, 1)])
    return None if ranks.std(1).min() == 0 else float(np.corrcoef(ranks)[0, 1])


def _ranks(values: Sequence[float]) -> list[float]:
    """The rank of every value, the mean one among equals."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) - 1) / 2 for value in values]


def similarity_svg(names: Sequence[str], similar: Table, gains: Gains | None) -> str:
    """Both tables side by side; a green cell helps, a red one harms, of a grey one it is not sure."""
    width = LEFT + CELL * len(names) + 40
    tables: list[tuple[str, Table, Colour]] = [("cosine of prompts", similar, lambda i, j: _by_size(similar[i][j] or 0))]
    if gains:
        coloured = gains

        def by_gain(i: int, j: int) -> str:
            return _by_sign(coloured.value[i][j] or 0) if coloured.sure(i, j) else GREY

        tables.append(("gain by transfer, grey: not sure", gains.value, by_gain))
    height = TOP + CELL * len(names) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * len(tables)} {height}" font-family="sans-serif">',
        f'<rect width="{width * len(tables)}" height="{height}" fill="white"/>',
    ]
    for n, (title, table, colour) in enumerate(tables):
        parts.append(f'<g transform="translate({n * width},0)">{_table(title, names, table, colour)}</g>')
    return "".join([*parts, "</svg>\n"])


def _table(title: str, names: Sequence[str], table: Table, colour: Colour) -> str:
    parts = [f'<text x="8" y="18" font-size="14" fill="#1c1917">{escape(title)}: row → column</text>']
    for i, name in enumerate(names):
        x, y = LEFT + CELL * i + CELL / 2, TOP + CELL * i + CELL / 2 + 4
        parts.append(f'<text transform="translate({x},{TOP - 8}) rotate(-35)" font-size="11">{escape(name[:16])}</text>')
        parts.append(f'<text x="{LEFT - 8}" y="{y}" font-size="11" text-anchor="end">{escape(name[:18])}</text>')
        for j, value in enumerate(table[i]):
            left, top = LEFT + CELL * j, TOP + CELL * i
            fill = "#fafaf9" if value is None else colour(i, j)
            shown = "–" if value is None else f"{value:.2f}"
            parts.append(
                f'<rect x="{left + 1}" y="{top + 1}" width="{CELL - 2}" height="{CELL - 2}" fill="{fill}" stroke="#e7e5e4"/>'
            )
            parts.append(
                f'<text x="{left + CELL / 2}" y="{top + CELL / 2 + 4}" font-size="12" text-anchor="middle">{shown}</text>'
            )
    return "".join(parts)


def _by_size(value: float) -> str:
    share = min(1.0, max(0.0, value))
    return f"rgb({255 - round(110 * share)},{255 - round(70 * share)},255)"


def _by_sign(value: float) -> str:
    share = min(1.0, abs(value) * 4)
    light = 255 - round(115 * share)
    return f"rgb({light},255,{light})" if value >= 0 else f"rgb(255,{light},{light})"
