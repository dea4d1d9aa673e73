"""What every rival is: a stock model of its own that a loop trains, scored by the house's engine like any method.

    train   logits = head(stock(ids)[where the loss is])        score   PromptedBase(engine, task, …): the exact label trie

FLOPs = (1 + b) · (2 · tokens · weights + 4 · layers · tokens · keys · query width + 2 · logits · H), padding included, as
``engine/trunk.py`` counts them; the backward pass is b = 1 forward pass through a frozen base, b = 2 where all is trained.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from epigraph.base import Base
from epigraph.config import setting
from epigraph.engine import Engine, attention
from epigraph.engine.plain import stock_attention as attention_of
from epigraph.engine.trunk import Trunk
from epigraph.errors import ConfigError
from epigraph.methods.rivals.objective import make_loss
from epigraph.methods.rivals.stock import autocast, stock_base
from epigraph.methods.rivals.trained import Trained
from epigraph.methods.solver import DEFAULT_OUTPUT_TOKENS, Probabilities, PromptedBase
from epigraph.prompts import AnyForm, Embedded
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

FP32_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class RivalSettings:
    """What every rival can be asked; epochs, batch and stop are the loop's."""

    rate: float = setting(1e-3, "AdamW's learning rate")
    seed: int = setting(0, "seed of the first values")
    output_tokens: int = setting(DEFAULT_OUTPUT_TOKENS, "the most tokens of a generated answer")

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "seed" and value <= 0:
                raise ConfigError(f"{name} {value} was asked; it must be above 0.")


S = TypeVar("S", bound=RivalSettings)


class Rival(ABC, Generic[S]):
    """A method of another library in the house: ``module`` and ``objective`` are for the loop, the rest for evaluation."""

    name: ClassVar[str]
    settings_type: ClassVar[type[Any]]

    def __init__(
        self, engine: Engine, task: Task, train: Sequence[Row], validation: Sequence[Row], settings: S | None = None
    ) -> None:
        self.engine, self.task = engine, task
        self.settings: S = settings or self.settings_type()
        self.flops = 0
        self.base = stock_base(engine.base, self._dtype(engine.base))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            self.module = self._prepare()
        self.module.to(self.base.device)
        self.trunk = Trunk(self.base)
        self.solver = self._solver(engine, self.module.fold())
        self.objective = self._objective(train, validation)

    # ---- what a rival says of itself ---------------------------------------------------------------------------------

    @abstractmethod
    def _prepare(self) -> Trained:
        """Make the stock model trainable; what is trained of it."""

    @abstractmethod
    def _states(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T H"]:
        """Last states of these tokens, padded on the right, by the stock forward with gradient."""

    @abstractmethod
    def scoring(self) -> AbstractContextManager[PromptedBase]:
        """The present parameters as a solver of the house, without gradient."""

    def _dtype(self, base: Base) -> torch.dtype:
        """The dtype of the stock model's weights."""
        return base.dtype

    def _objective(self, train: Sequence[Row], validation: Sequence[Row]) -> Any:
        return make_loss(self, train, validation)

    def _backward(self, forward: int, tokens: int) -> int:  # noqa: ARG002 (for those that train weights)
        """FLOPs of the backward pass after a forward pass of ``forward`` FLOPs."""
        return forward

    @property
    def _virtual(self) -> int:
        """Positions that a prompt takes before the tokens, as vectors that are computed or keys that are read."""
        return 0

    # ---- training ----------------------------------------------------------------------------------------------------

    def logits_at(
        self, ids: Int[Tensor, "B T"], row: Int[Tensor, "N"], column: Int[Tensor, "N"], tokens: Sequence[int] | None = None
    ) -> Float[Tensor, "N R"]:
        """fp32 logits at N places, for all of V or for ``tokens`` only; a trained head gets its gradient too."""
        weight = self.base.head.weight
        with autocast(self.base):
            states = self._states(ids)[row, column]
            rows = None if tokens is None else weight.index_select(0, torch.tensor(list(tokens), device=weight.device))
            found = self.base.logits(states, tokens, rows)
        self._count(len(ids), ids.shape[1], found.numel())
        return found

    def _count(self, rows: int, length: int, logits: int) -> None:
        tokens, keys = rows * length, length + self._virtual
        products = 2 * tokens * self.trunk.weights + 4 * self.base.layers * tokens * keys * self.trunk.width
        forward = products + 2 * logits * self.base.hidden
        self.flops += forward + self._backward(forward, tokens)

    # ---- scoring -----------------------------------------------------------------------------------------------------

    def probabilities(self, rows: Sequence[Row]) -> Probabilities:
        """The probability of every label (in the order of ``task.labels``) for every row."""
        with self.scoring() as solver:
            return solver.probabilities(rows)

    def outputs(self, rows: Sequence[Row]) -> list[str]:
        """The generated text of every row."""
        with self.scoring() as solver:
            return solver.outputs(rows)

    def _solver(self, engine: Engine, forms: Sequence[AnyForm]) -> PromptedBase:
        """The task with the prompt before everything, as PEFT has it; an empty prompt where weights are trained."""
        given = list(forms) or [Embedded(torch.zeros(0, engine.base.hidden))]
        template, output_tokens = self.task.template.placed("first"), self.settings.output_tokens
        return PromptedBase(engine, self.task, given, template=template, output_tokens=output_tokens)

    @contextmanager
    def _counting(self, engine: Engine) -> Iterator[None]:
        """Add to ours what the engine counts meanwhile."""
        before = engine.flops
        try:
            yield
        finally:
            self.flops += engine.flops - before

    # ---- costs -------------------------------------------------------------------------------------------------------

    @property
    def trained_parameters(self) -> int:
        """How many numbers are trained."""
        return self.module.trained_parameters

    @property
    def kept_bytes(self) -> int:
        """Bytes to keep for this task beside the base; adapters are kept in fp32."""
        return FP32_BYTES * self.trained_parameters


class PromptRival(Rival[S]):
    """A rival whose trained parameters are a prompt: scored on the frozen base's own engine."""

    @contextmanager
    def scoring(self) -> Iterator[PromptedBase]:
        """The prompt's forms on the engine."""
        with self._counting(self.engine), torch.no_grad():
            yield self._solver(self.engine, self.module.fold())


class WeightRival(Rival[S]):
    """A rival that changes the base's weights: scored by an engine around its live model.

    The model's attention is the engine's for scoring and the stock one otherwise. Nothing of a former scoring is reused:
    the label rows of the head are read anew, and no frozen state is read or left, those of the base included, whose
    fingerprint the live model still has: nothing stands before the (empty) prompt that could be frozen.
    """

    def __init__(
        self, engine: Engine, task: Task, train: Sequence[Row], validation: Sequence[Row], settings: S | None = None
    ) -> None:
        super().__init__(engine, task, train, validation, settings)
        with attention_of(self.base, attention.NAME):
            self.tuned = Engine(self.base)

    @contextmanager
    def scoring(self) -> Iterator[PromptedBase]:
        """The live model without a prompt."""
        self.tuned.store.forget()
        with (
            attention_of(self.base, attention.NAME),
            self._counting(self.tuned),
            autocast(self.base),
            torch.no_grad(),
        ):
            solver = self._solver(self.tuned, ())
            assert not solver.template.segments[0], "a live model has no frozen states"
            yield solver

    def _states(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T H"]:
        found: Tensor = self.base.trunk(input_ids=ids, use_cache=False).last_hidden_state
        return found
