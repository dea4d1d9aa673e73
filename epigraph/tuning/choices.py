"""What ``tune`` chooses when it is not told: every derived value keeps its reason."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from epigraph.config import TuneConfig
from epigraph.errors import ConfigError, TaskError, Unsupported
from epigraph.prompts import KINDS, Embedded, SoftPrompt
from epigraph.tasks.task import Task, default_template
from epigraph.tuning.data import FEW_ROWS
from epigraph.tuning.loop import Settings

DEFAULT_KIND, PLAIN_KIND = "kv", "token"
EXAMPLES_SEEN = {"classification": 3000, "ordinal": 3000, "multilabel": 3000, "choice": 3000, "generation": 2500}
FEWEST_EPOCHS, MOST_EPOCHS = 3, 40
LENGTHS = {"classification": 8, "ordinal": 8, "multilabel": 8, "choice": 8, "generation": 16}
EXAMPLES, EXAMPLES_LENGTH = "examples", KINDS["context"].default_length or 128  # few rows fit into less
MOST_VALIDATIONS = 16
FEW_BATCH, BATCH = 16, 32
MANY_LABELS, MANY_LABELS_LENGTH = 20, 32
SHORT_ROW = (
    200  # bytes, some fifty tokens: of longer rows a second reading costs much, and AG News (240 bytes) gained nothing
)
SEEN_POWER = 0.5  # how the examples seen grow with the labels, in units of two of them


@dataclass(frozen=True, kw_only=True)
class Choices:
    """All settings of one tuning, and why those that were not asked for are what they are."""

    task: Task
    kind: str
    length: int
    place: str
    start: str
    loop: Settings
    reasons: Mapping[str, str]
    readings: int = 1
    members: int = 1
    share_blocks: bool = False

    def to_dict(self) -> dict[str, object]:
        """The settings as the contract's ``settings`` object."""
        loop = {name: getattr(self.loop, name) for name in self.loop.__dataclass_fields__}
        own = {"kind": self.kind, "length": self.length, "place": self.place, "start": self.start, "readings": self.readings}
        more = {"members": self.members, "template": self.task.template.text, "share_blocks": self.share_blocks}
        return own | loop | more

    def of(self, task: Task, *, kind: str, length: int, place: str, start: str, readings: int, loop: Settings) -> "Choices":
        """The same with what a trial of this task was tuned with."""
        laid = laid_out(task, place, readings)
        share = self.share_blocks and laid.template.blocks > 1
        trial = {"kind": kind, "length": length, "place": place, "start": start, "readings": readings, "loop": loop}
        return replace(self, task=laid, share_blocks=share, **trial)  # type: ignore[arg-type]


def laid_out(task: Task, place: str, readings: int) -> Task:
    """The task with its prompt at this place, its rows said so often before it."""
    template = task.template.placed(place)
    return replace(task, template=template.reread() if readings > 1 else template)


def choose(config: TuneConfig, task: Task, rows: int, *, plain: str = "") -> Choices:
    """Settle every setting for ``rows`` training rows.

    ``plain`` is the engine's reason to run the base by plain concatenation, where it does: then prompts are vectors.
    ConfigError on a kind that does not exist, Unsupported on one that this base cannot have.
    """
    reasons: dict[str, str] = {}
    kind = _kind(config, plain)
    if plain and not config.kind and not config.portable:
        reasons["kind"] = f"{kind}: this base is run by plain concatenation: {plain}"
    own = KINDS[kind]
    if config.ensemble > 1 and not task.has_labels:
        raise Unsupported(
            f"an ensemble of {config.ensemble} was asked, but members vote on labels and a {task.kind} task has none.",
            "Leave --ensemble out; --trials keeps the best of several.",
        )
    place = "first" if config.portable else config.place or own.default_place
    readings, why = _readings(config, task, place, plain)
    if config.readings is None:
        reasons["readings"] = f"{readings}: {why}"
    placed = laid_out(task, place, readings)
    _check_something_follows(placed)
    _check_shared(config, placed, kind)
    default_length, of = _length(config, task, kind)
    length = config.length or default_length
    batch = config.batch or _batch(rows, task)
    epochs = config.epochs or _epochs(rows, task)
    if config.length is None:
        reasons["length"] = f"{length} vectors a block: the default for {of}"
    if config.batch is None:
        reasons["batch"] = f"{batch} examples a step for {rows} training rows"
    if config.epochs is None:
        reasons["epochs"] = (
            f"at most {epochs}: {_examples_seen(task):,} examples seen, {FEWEST_EPOCHS} to {MOST_EPOCHS} passes"
        )
    if config.rate is None:
        reasons["rate"] = f"the default of {kind}, in units of the start's rms"
    if not config.place and not config.portable:
        reasons["place"] = "as the template says" if place == "template" else f"{place}: the default of {kind}"
    if not config.start and own.default_start != SoftPrompt.default_start:
        reasons["start"] = f"{own.default_start}: the default of {kind}"
    loop = Settings(
        epochs=epochs,
        batch=batch,
        rate=config.rate or own.default_rate,
        warmup=config.warmup,
        clip=config.clip,
        patience=config.patience,
        seed=config.seed,
        every=math.ceil(epochs / MOST_VALIDATIONS),
    )
    return Choices(
        task=placed,
        kind=kind,
        length=length,
        place=place,
        start=config.start or own.default_start,
        loop=loop,
        reasons=reasons,
        readings=readings,
        members=config.ensemble,
        share_blocks=config.share_blocks and placed.template.blocks > 1,
    )


def _kind(config: TuneConfig, plain: str) -> str:
    kind = config.kind or (PLAIN_KIND if plain or config.portable else DEFAULT_KIND)
    if kind not in KINDS:
        raise ConfigError(f"kind {kind!r} is not known.", f"Choose one of: {', '.join(KINDS)}.")
    if not KINDS[kind].alone:
        raise ConfigError(
            f"kind {kind!r} was asked for one task, but it attends over the prompts of others.",
            f"Use epigraph multitask A B --kind {kind}.",
        )
    if config.portable and KINDS[kind].start_form is not Embedded:
        raise ConfigError(f"a portable prompt is vectors, but kind {kind!r} was asked.", "Leave --kind or --portable out.")
    if plain and KINDS[kind].start_form is not Embedded:
        raise Unsupported(
            f"kind {kind!r} was asked, but this base is run by plain concatenation, which takes vectors only: {plain}.",
            f"Pass --kind {PLAIN_KIND}, or leave --kind out.",
        )
    return kind


def _length(config: TuneConfig, task: Task, kind: str) -> tuple[int, str]:
    """The vectors of a block by default, and whose default that is. Many labels need more to be told apart."""
    if own := KINDS[kind].default_length:
        return own, kind
    if config.start == EXAMPLES:
        return EXAMPLES_LENGTH, f"a start from {EXAMPLES}, which are kept whole"
    if task.knows_labels and len(task.labels) > MANY_LABELS:
        return MANY_LABELS_LENGTH, f"{len(task.labels)} labels"
    return LENGTHS[task.kind], task.kind


def _check_shared(config: TuneConfig, task: Task, kind: str) -> None:
    """Blocks that depend on the input are not shared: a prompt of one is mixed anew in every place."""
    if config.share_blocks and task.template.blocks > 1 and KINDS[kind].needs_query:
        raise Unsupported(
            f"--share-blocks was asked, but the vectors of kind {kind!r} depend on the input, and those are not shared.",
            "Leave --share-blocks out, or choose another --kind.",
        )


def _readings(config: TuneConfig, task: Task, place: str, plain: str) -> tuple[int, str]:
    """How often a row is said before the prompt, and why."""
    if config.readings is not None:
        return config.readings, "as asked"
    if plain:
        return 1, "this base reads every text anew at every step"
    if not any(piece.is_field for piece in task.template.placed(place).segments[0]):
        return 1, "nothing of the row stands before the prompt"
    if not task.knows_labels:
        return 1, f"a second reading was measured for answers that are labels, not for {task.kind}"
    if task.template != default_template(task.columns):
        return 1, "the template is your own"
    size = _row_bytes(task)
    if size > SHORT_ROW:
        return 1, f"rows of {size:.0f} bytes are long, above {SHORT_ROW} a second reading costs too much"
    return 2, f"rows of {size:.0f} bytes are short; in the second reading every token sees the whole row"


def _row_bytes(task: Task) -> float:
    """The mean bytes of a row's fields."""
    rows, names = task.train.rows, task.template.fields
    return sum(len(row.fields.get(name, "").encode(errors="replace")) for row in rows for name in names) / max(1, len(rows))


def _batch(rows: int, task: Task) -> int:
    return FEW_BATCH if rows <= FEW_ROWS or not task.has_labels else BATCH


def _epochs(rows: int, task: Task) -> int:
    return max(FEWEST_EPOCHS, min(MOST_EPOCHS, math.ceil(_examples_seen(task) / max(1, rows))))


def _examples_seen(task: Task) -> int:
    """How many examples a tuning sees: the more labels there are to tell apart, the longer the way."""
    return int(EXAMPLES_SEEN[task.kind] * _labels(task) ** SEEN_POWER)


def _labels(task: Task) -> float:
    """The labels in units of two."""
    return max(1.0, len(task.labels) / 2)


def _check_something_follows(task: Task) -> None:
    if not task.chat and not any(piece.is_field or piece.text for piece in task.template.segments[-1]):
        raise TaskError(
            f"template {task.template.text!r} ends with {{prompt}}: nothing stands after it, so the base has no token to answer from.",
            'End the template with a cue, for example "{text}{prompt}\\nLabel:".',
        )
