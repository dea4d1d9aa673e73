"""Methods that train: a linear probe on frozen states, soft prompts of any kind, rivals such as LoRA and full fine-tuning.

All see the same rows for as many passes, choose on the same validation rows, and may try as many learning rates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psutil
import torch

from epigraph.compare.general import loss_on
from epigraph.compare.method import Fitted, Job, Reading
from epigraph.compare.tokens import added_tokens, without_prompt
from epigraph.config import TuneConfig
from epigraph.cost import MemoryWatch, Meter, processor_power
from epigraph.errors import Unsupported
from epigraph.methods.probe import LinearProbe, fit_probe
from epigraph.methods.rivals import RIVALS
from epigraph.methods.rivals.rival import PromptRival, Rival
from epigraph.metrics import upward
from epigraph.prompts import AnyForm, kept_numbers
from epigraph.tasks.row import Split
from epigraph.tasks.task import Task
from epigraph.tuning import tune
from epigraph.tuning.choices import choose, laid_out
from epigraph.tuning.loop import Loop, Settings
from epigraph.tuning.search.space import RATES
from epigraph.tuning.surroundings import Surroundings

FACTORS = (1.0, 2.5, 0.4, 5.0, 0.16)  # of the default learning rate, in the order they are tried
SOFT_FACTORS = (*RATES, 0.64)  # those that ``tune`` tries
RIVAL_BATCH = 16
FULL_COPIES = 10
"""fp32 copies of all weights that full fine-tuning holds: weights, gradients, two moments; the present, best and last states."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A logistic regression on frozen states."""

    name: str = "probe"
    title: str = "linear probe on frozen states"
    family: str = "probe"
    seeded: bool = True
    curved: bool = True
    trained: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    def rates(self, job: Job) -> list[float]:  # noqa: ARG002 (the contract of every method)
        """None: nothing is trained by steps."""
        return []

    def fit(self, job: Job) -> Fitted:
        """Read the states and fit; C chosen on validation, and whether rows are read as often as a soft prompt reads them."""
        often = choose(TuneConfig(), job.task, len(job.train)).readings
        probes = {n: fit_probe(job.engine, laid_out(job.task, "template", n), job.train, job.validation) for n in {1, often}}
        readings = max(probes, key=lambda n: probes[n].rank)
        found = probes[readings]
        size = found.parameters
        return Fitted(
            method=found,
            settings={"strength": found.strength, "readings": readings},
            reasons={"strength": found.reason, "readings": _readings_reason(job.task, probes)},
            added_tokens=added_tokens(job, without_prompt(job, found.task)),
            trained_parameters=size,
            kept_parameters=size,
            kept_bytes=8 * size,
            held_bytes=8 * size,
        )


def _readings_reason(task: Task, probes: Mapping[int, LinearProbe]) -> str:
    tried = ", ".join(f"{n}: {upward(task.metric, probe.rank[0]):.3f}" for n, probe in sorted(probes.items()))
    return f"how often rows are read, best on validation ({tried})" if len(probes) > 1 else "rows are not short"


@dataclass(frozen=True, kw_only=True)
class SoftPrompt:
    """A soft prompt of one kind, tuned as ``epigraph tune`` does it."""

    kind: str
    family: str = "soft"
    seeded: bool = True
    curved: bool = True
    trained: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its kind."""
        return self.kind

    @property
    def title(self) -> str:
        """As the report says it."""
        return f"soft prompt `{self.kind}`"

    def rates(self, job: Job) -> list[float]:
        """The kind's rate for this task, and multiples of it."""
        first = choose(self._config(job, None), job.task, len(job.train), plain=job.engine.plain).loop.rate
        return _multiples(first, job, SOFT_FACTORS)

    def fit(self, job: Job) -> Fitted:
        """Tune; the rows ``tune`` scores at its end are validation rows, so no test row is touched here."""
        held, meter, read = Split(rows=tuple(job.validation[:8])), Meter(), list[Reading]()
        given = replace(job.task, test=held)
        with MemoryWatch() as memory:

            def stage(name: str, done: int, _total: int) -> None:
                if name == "scoring" and not done:  # the prompt is made: what follows scores and compares it
                    read.append(Reading.of(meter, processor_power(), memory))

            around = Surroundings(stage=stage, book=job.book)
            result = tune(job.engine.base, given, self._config(job, job.rate), engine=job.engine, around=around)
        method = result.model.method
        return Fitted(
            method=method,
            settings=result.settings,
            reasons=result.reasons,
            trained_parameters=int(result.cost["trained_parameters"]),
            kept_parameters=int(result.cost["kept_parameters"]),
            kept_bytes=int(result.cost["kept_bytes"]),
            held_bytes=_held(method.forms, job.engine.base.dtype),
            added_tokens=added_tokens(job, method),
            meter_read=read[0] if read else None,
            counted=int(result.cost["flops"]),
        )

    def _config(self, job: Job, rate: float | None) -> TuneConfig:
        return TuneConfig(
            kind=self.kind, rate=rate, seed=job.seed, epochs=job.budget.epochs, validation=job.validation_share
        ).single


@dataclass(frozen=True, kw_only=True)
class RivalMethod:
    """A rival of ``methods/rivals``, trained by the house's loop."""

    rival: str
    family: str = "weights"
    seeded: bool = True
    curved: bool = True
    trained: bool = True
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name among the rivals."""
        return self.rival

    @property
    def title(self) -> str:
        """As the report says it."""
        return {"lora": "LoRA, all linear layers", "full": "full fine-tuning"}.get(self.rival, self.rival)

    def rates(self, job: Job) -> list[float]:
        """The rival's own rate and multiples of it."""
        return _multiples(float(RIVALS[self.rival].settings_type().rate), job, FACTORS)

    def fit(self, job: Job) -> Fitted:
        """Train; Unsupported where the memory for it is not there."""
        kind = RIVALS[self.rival]
        if self.rival == "full":
            check_memory(job.engine.base.parameters)
        given = {"seed": job.seed, "output_tokens": job.output_tokens}
        asked = kind.settings_type(**(given if job.rate is None else {**given, "rate": job.rate}))
        rival = kind(job.engine, job.task, job.train, job.validation, asked)
        loop = Loop(rival.module, rival.objective, _loop_settings(job, asked.rate), lambda _moment: None)
        loop.run()
        return _fitted(rival, loop, job)


def check_memory(parameters: int) -> None:
    """Unsupported where full fine-tuning of so many parameters does not fit into the free memory."""
    needed, free = 4 * FULL_COPIES * parameters, psutil.virtual_memory().available
    if needed > free:
        raise Unsupported(
            f"full fine-tuning of {parameters / 1e6:.0f} million parameters takes about {needed / 1e9:.1f} GB; "
            f"{free / 1e9:.1f} GB are free.",
            "Run it on a machine with more memory; the other methods need far less.",
        )


def _fitted(rival: Rival[Any], loop: Loop, job: Job) -> Fitted:
    weights, state = not isinstance(rival, PromptRival), loop.state
    forms = [] if weights else list(rival.module.fold())
    best = (
        f"best {job.task.metric} {state.best_score:.3f} on {len(job.validation)} validation rows at step {state.best_step}"
    )
    stop = f"{'no gain for long' if state.stopped else 'all epochs done'} after {state.step} steps; {best}"
    return Fitted(
        method=rival,
        settings={"rate": rival.settings.rate, "seed": job.seed, "epochs": job.budget.epochs, "batch": RIVAL_BATCH},
        reasons={"stop": stop},
        trained_parameters=rival.trained_parameters,
        kept_parameters=rival.trained_parameters,
        kept_bytes=rival.kept_bytes,
        held_bytes=rival.kept_bytes if weights else _held(forms, job.engine.base.dtype),
        added_tokens=added_tokens(job, rival.solver.with_forms(forms) if forms else rival.solver),
        own_base=rival.name == "full",
        flops=lambda: rival.flops,
        serving=rival.scoring,
        loss_on=(lambda text: loss_on(rival.base, text)) if weights else None,
    )


def _loop_settings(job: Job, rate: float) -> Settings:
    usual = TuneConfig()
    return Settings(
        epochs=job.budget.epochs,
        batch=RIVAL_BATCH,
        rate=rate,
        warmup=usual.warmup,
        clip=usual.clip,
        patience=usual.patience,
        seed=job.seed,
    )


def _multiples(first: float, job: Job, factors: Sequence[float]) -> list[float]:
    return [first * factor for factor in factors[: job.budget.trials]]


def _held(forms: Sequence[AnyForm], dtype: torch.dtype) -> int:
    """Bytes of the forms in memory, in the base's dtype."""
    return kept_numbers(forms) * dtype.itemsize
