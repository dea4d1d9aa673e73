"""What distilling chooses when it is not told: every derived value keeps its reason.

Rates are not those of a tuning: soft labels of a few hundred texts are learned by heart at the rate at which a tuning learns hard ones
(SST-2, 40 examples into 16 vectors, 255 texts: kappa .547 at 0.1, .637 at 0.02, the divergence on training texts a hundredth of that on
others). What is left of the gap is a matter of texts, so that passes are as few as the texts are many. A matched start is so near that
rates of a quarter keep it there, and the teacher's states tell more than its labels (the same set, 700 texts, 300 others: kappa .78 at the
start, .79 after eight passes at 0.02 on 1,000 texts, .84 after two at 0.005, .88 with the states).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from epigraph.distilling.mapping import Carried
from epigraph.distilling.settings import PLACES, START_MAPPED, START_MATCHED, START_TEXT, DistillConfig
from epigraph.distilling.start import DEFAULT_KIND, PLAIN_KIND
from epigraph.errors import ConfigError, Unsupported
from epigraph.prompts import KINDS, KeyValue
from epigraph.tasks.task import Task
from epigraph.tuning.loop import Settings

TEXTS_SEEN = {True: 2500, False: 6000}  # by whether the task writes
FEWEST_EPOCHS, MOST_EPOCHS = {True: 3, False: 4}, 20
MATCHED_SEEN, MATCHED_FEWEST = 3000, 3
RATES = {"kv": 0.02, "sink": 0.02}
MATCHED_RATE, MATCHED_STATES = 0.005, 1.0
DEFAULT_LENGTH = 16
AS_IT_STANDS = "template"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """All settings of one distilling; ``task`` has the student's template."""

    task: Task
    kind: str
    length: int
    place: str
    start: str
    states: float
    loop: Settings
    reasons: Mapping[str, str]

    def to_dict(self) -> dict[str, object]:
        """The settings as the contract's ``settings`` object."""
        loop = {name: getattr(self.loop, name) for name in self.loop.__dataclass_fields__}
        own = {name: getattr(self, name) for name in ("kind", "length", "place", "start", "states")}
        return own | loop | {"template": self.task.template.text}


def choose(
    config: DistillConfig,
    task: Task,
    texts: int,
    *,
    plain: str = "",
    carried: Carried | None = None,
    stays: str = "",
    before: int = 0,
) -> Choices:
    """Settle every setting for so many texts. ``plain`` is why the base takes vectors only, where it does, ``stays`` why an
    old prompt could not be carried over, where there is one; ``before`` how many positions the teacher reads before every text, where
    it is this base."""
    reasons: dict[str, str] = {}
    mapped = config.start in ("", START_MAPPED) and carried is not None
    if config.start == START_MAPPED and carried is None:
        raise ConfigError(
            f"start 'mapped' was asked, but {stays or 'there is no prompt that can be carried over'}.",
            "Leave --start out: the student starts from a text, and the old prompt teaches."
            if stays
            else "Name one with --from, or leave --start out.",
        )
    kind = config.kind or (PLAIN_KIND if plain else DEFAULT_KIND)
    if plain and KINDS[kind].start_form is KeyValue:
        raise Unsupported(
            f"kind {kind!r} was asked, but this base takes vectors only: {plain}.",
            f"Leave --kind out, or pass {PLAIN_KIND}.",
        )
    place = config.place or (AS_IT_STANDS if mapped else PLACES[0])
    length = config.length or DEFAULT_LENGTH
    if mapped and carried is not None:
        reasons["start"] = f"mapped: the old prompt carried over {carried.how}"
        if isinstance(carried.forms[0], KeyValue) or config.length is None:
            length = carried.forms[0].length
    else:
        text = "what the teacher reads, or the task's own words, compressed"
        reasons["start"] = f"text: {stays}; so {text}, and the old prompt teaches" if stays else f"text: {text}"
    matches = KINDS[kind].start_form is KeyValue and place == PLACES[0] and 1 < length < before
    matched = not mapped and matches and config.start in ("", START_MATCHED)
    if config.start == START_MATCHED and not matched:
        raise ConfigError(
            "start 'matched' was asked, but it needs a teacher on this base that reads more before every text than the student has "
            "vectors, a student of keys and values that stands first, and attention without a window or a cap.",
            "Leave --start out.",
        )
    if matched:
        reasons["start"] = (
            f"{START_MATCHED}: what the texts find in the {before} positions that the teacher reads before them"
        )
    if not config.place:
        reasons["place"] = "where the old prompt stands" if mapped else "first: where a hard prompt stands"
    if not config.kind:
        reasons["kind"] = f"{kind}: " + (
            "this base takes vectors only"
            if plain
            else "keys and values, the first position frozen, since attention rests on it"
        )
    seen, fewest = (MATCHED_SEEN, MATCHED_FEWEST) if matched else (TEXTS_SEEN[task.writes], FEWEST_EPOCHS[task.writes])
    epochs = config.epochs or max(fewest, min(MOST_EPOCHS, math.ceil(seen / max(1, texts))))
    if config.epochs is None:
        reasons["epochs"] = f"at most {epochs}: {seen:,} texts seen or more, {fewest} to {MOST_EPOCHS} passes"
    near = matched and kind in RATES
    rate = MATCHED_RATE if near else RATES.get(kind, KINDS[kind].default_rate)
    if config.rate is None:
        own = "distilling's own, below that of tune" if kind in RATES else "the default"
        reasons["rate"] = f"{own} for {kind}{' from a matched start' if near else ''}, in units of the start's rms"
    if config.states is None and matched and task.has_labels:
        reasons["states"] = f"{MATCHED_STATES:g}: from a matched start the teacher's states tell more than its labels"
    loop = Settings(
        epochs=epochs,
        batch=config.batch,
        rate=config.rate or rate,
        warmup=config.warmup,
        clip=config.clip,
        patience=config.patience,
        seed=config.seed,
    )
    return Choices(
        task=replace(task, template=task.template.placed(place)),
        kind=kind,
        length=length,
        place=place,
        start=START_MAPPED if mapped else START_MATCHED if matched else START_TEXT,
        states=config.states if config.states is not None else MATCHED_STATES if matched and task.has_labels else 0.0,
        loop=loop,
        reasons=reasons,
    )
