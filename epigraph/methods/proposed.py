"""Hard prompts that a stronger model writes, chosen by DSPy's MIPROv2 on the frozen base, then searched on from there.

    rows + task → instructions by the stronger model → each scored on validation by the frozen base → the best

Source: Opsahl-Ong et al. 2024 (MIPRO), section 4, https://arxiv.org/abs/2406.11695; https://dspy.ai. The program that DSPy
optimises is the house's hard prompt, so the instruction is judged by the label trie like every other method.

The stronger model is any behind an OpenAI-style address. It is shown training rows: name one that may see them.
"""

import importlib
import logging
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any
from urllib.parse import urlsplit

from epigraph import metrics
from epigraph.errors import ConfigError, Unsupported
from epigraph.methods import judge
from epigraph.methods.hard import instruction_first
from epigraph.methods.search import Found, HardPromptSearch, SearchLimits
from epigraph.methods.threshold import with_best_threshold
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task

KEY = "OPENAI_API_KEY"
MOST_SHOWN = 50
FIELD = "place"  # what DSPy hands the program of a row: its place among the rows


@dataclass(frozen=True, kw_only=True)
class Proposer:
    """Who writes: a model's name, and the address where it answers."""

    model: str
    address: str

    def check(self) -> None:
        """Unsupported where no model was named, ConfigError where its address is none."""
        if not self.model or not self.address:
            raise Unsupported(
                "no stronger model was named to write hard prompts.",
                "Pass --prompt-model NAME --prompt-address http://…/v1; its key is read from $OPENAI_API_KEY.",
            )
        parts = urlsplit(self.address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{self.address!r} is no address of a model.", "It begins with http:// or https://.")


def propose(proposer: Proposer, search: HardPromptSearch, limits: SearchLimits) -> Found:
    """Let the model write and MIPROv2 choose, then search on from its instruction with what is left of the limits.

    Raises Unsupported where no model is named, DSPy is not installed, or the model does not answer.
    """
    proposer.check()
    dspy, started = _dspy(), time.monotonic()
    trials = max(2, limits.candidates // 2)
    instruction = _written(dspy, proposer, search, trials, limits.seconds)
    search.task = replace(search.task, instruction=instruction)
    left = None if limits.seconds is None else max(0.0, limits.seconds - (time.monotonic() - started))
    return search.run(SearchLimits(candidates=max(1, limits.candidates - trials), seconds=left))


def _written(dspy: Any, proposer: Proposer, search: HardPromptSearch, trials: int, seconds: float | None) -> str:
    """The instruction that MIPROv2 ends with."""
    rewards = _Rewards(search, seconds)
    key = os.environ.get(KEY) or "none"
    name = f"openai/{proposer.model}"
    model = dspy.LM(name, api_base=proposer.address, api_key=key, num_retries=1, cache=False, timeout=60)
    try:
        model("Answer with the one word: ready")  # MIPROv2 would go on without the model's proposals
        optimiser = dspy.MIPROv2(
            metric=lambda example, said, _trace=None: rewards.of(example, said.instruction),
            prompt_model=model,
            task_model=model,
            auto=None,
            num_candidates=max(2, trials // 2),
            num_threads=1,
            max_bootstrapped_demos=0,
            max_labeled_demos=0,
            seed=search.seed + 1,
        )
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # it prints, and commands print JSON
            found = optimiser.compile(
                _program(dspy, search),
                trainset=_examples(dspy, search, search.train[:MOST_SHOWN]),
                valset=_examples(dspy, search, search.validation),
                num_trials=trials,
                minibatch=False,
                program_aware_proposer=False,
            )
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise Unsupported(
            f"model {proposer.model!r} at {proposer.address} could not write hard prompts: {type(error).__name__}: {said.rstrip('.')}.",
            "Check its name and address, and the key in $OPENAI_API_KEY.",
        ) from error
    return str(found.predict.signature.instructions).strip()


class _Rewards:
    """Scores instructions on the frozen base, all validation rows of one at once."""

    def __init__(self, search: HardPromptSearch, seconds: float | None) -> None:
        self.search = search
        self.until = None if seconds is None else time.monotonic() + seconds
        self.known: dict[str, list[float]] = {}

    def of(self, example: Any, instruction: str) -> float:
        """How good the base's answer to this row is under this instruction; 0 once the time is over."""
        place = int(example[FIELD])
        if place < 0:
            return 0.0  # a training row: shown to the model, not scored
        if instruction not in self.known:
            late = self.until is not None and time.monotonic() > self.until
            rows = self.search.validation
            self.known[instruction] = [0.0] * len(rows) if late else self._scores(instruction, rows)
        return self.known[instruction][place]

    def _scores(self, instruction: str, rows: Sequence[Row]) -> list[float]:
        search = self.search
        solver = instruction_first(search.engine, replace(search.task, instruction=instruction), search.output_tokens)
        solver = with_best_threshold(solver, rows)
        given = judge.answer(solver, rows).given
        return [row_reward(solver.task, row, said) for row, said in zip(rows, given, strict=True)]


def row_reward(task: Task, row: Row, given: judge.Answer) -> float:
    """How good one answer is, 0 to 1: the task's metric of this row alone.

    Kappa says nothing of one row: as for the mean error, how near the answer is counts. BLEU is 0 for what is too short for
    its n-grams: an answer that equals a reference is all right.
    """
    if task.metric in metrics.RANK_SCORES:
        labels = list(task.labels)
        far = metrics.mean_absolute_error(judge.truth_of([row]), [str(given)], labels)
        return 1 - far / max(1, len(labels) - 1)
    if task.writes and metrics.exact_match([str(given)], judge.references_of([row])):
        return 1.0
    if not task.writes and set(given) == set(row.labels) == set():
        return 1.0  # no label was right, and none was given
    return judge.value(task, [row], [given])


def _program(dspy: Any, search: HardPromptSearch) -> Any:
    """The hard prompt as a DSPy program: one predictor, whose instruction is all of it."""
    names = search.task.template.fields
    signature = dspy.Signature({**{name: (str, dspy.InputField()) for name in names}, "answer": (str, dspy.OutputField())})

    class HardPromptProgram(dspy.Module):  # type: ignore[misc]
        """Hands the instruction to the judge, which asks the frozen base."""

        def __init__(self) -> None:
            super().__init__()
            self.predict = dspy.Predict(signature.with_instructions(search.task.instruction))

        def forward(self, **_fields: Any) -> Any:
            return dspy.Prediction(instruction=self.predict.signature.instructions)

    return HardPromptProgram()


def _examples(dspy: Any, search: HardPromptSearch, rows: Sequence[Row]) -> list[Any]:
    names = search.task.template.fields
    places = {id(row): place for place, row in enumerate(search.validation)}
    return [
        dspy.Example(
            **{name: row.fields[name] for name in names},
            **{FIELD: places.get(id(row), -1)},
            answer=answer_shown(search.task, row),
        ).with_inputs(*names)
        for row in rows
    ]


def answer_shown(task: Task, row: Row) -> str:
    """The right answer in the words that the base says, several labels with commas."""
    words: Mapping[str, str] = task.labels
    given = row.labels if task.knows_labels and not task.has_labels else [row.target or ""]
    return ", ".join(words.get(label, label) for label in given)


def _dspy() -> Any:
    """The library, silent; Unsupported if it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = importlib.import_module("dspy")
            importlib.import_module("optuna")
        except ImportError as error:
            raise Unsupported(
                "this method needs DSPy, which is not installed.", 'Run: pip install "epigraph[dspy]"'
            ) from error
    for name in ("dspy", "optuna"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return found
