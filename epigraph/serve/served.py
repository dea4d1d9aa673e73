"""A prompt as it is served: its card, its vectors under their hash, and how its task is put into words.

Loaded off the serving path and never changed: a request that holds one keeps its version, whatever becomes of the library.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from weakref import WeakValueDictionary

import numpy as np
from torch import Tensor

from epigraph.base import Base
from epigraph.engine import Tree
from epigraph.errors import ConfigError, Corrupt, EpigraphError, Unsupported
from epigraph.library import Card, StoredPrompt, check_base
from epigraph.methods.shift import CONTENT_FREE, CONTEXTUAL, Shift, content_free, normalise
from epigraph.model import Prediction, facts, read_off, task_of
from epigraph.prompts import AnyForm, Dependent, Embedded, Form, KeyValue
from epigraph.serve.prompts import outline
from epigraph.serve.work import Carried
from epigraph.tasks.encode import build_trie
from epigraph.tasks.row import Row
from epigraph.tasks.task import Task
from epigraph.tasks.trie import LabelTrie
from epigraph.tasks.verdicts import Verdicts

DEFAULT_OUTPUT_TOKENS = 64
MOST_LABEL_TOKENS = 8_192


@dataclass(frozen=True, kw_only=True)
class Served:
    """``trie`` holds the tokens of labels, or of the verdicts on them, ``tree`` the same for the engine (None where another
    server computes). ``outline`` are the forms of one member, those that depend on the input with their shapes only."""

    card: Card
    task: Task
    carried: Carried
    outline: tuple[Form, ...]
    trie: LabelTrie | None
    tree: Tree | None
    output_tokens: int
    size: int
    """Bytes of its vectors."""
    verdicts: tuple[tuple[int, int, int], ...] = ()
    """Where each label has a probability of its own: how it is read off (``tasks/verdicts.py``)."""
    shift: Shift | None = None
    """How its probabilities are calibrated."""

    @property
    def virtual(self) -> int:
        """Positions that the prompt's vectors take, those of all its members."""
        return sum(form.length for form in self.carried.forms)

    @property
    def stands(self) -> int:
        """Positions that the prompt takes in a text: those of its longest member."""
        forms, each = self.carried.forms, len(self.outline)
        return max(sum(form.length for form in forms[i : i + each]) for i in range(0, len(forms), each))

    @property
    def waits_for_empty(self) -> bool:
        """Whether its choices are calibrated by what the base says of them after no input at all."""
        return self.shift is not None and self.shift.how == CONTEXTUAL and not self.task.knows_labels

    def asked(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that are read to answer these: with them, where that is needed, the same without their texts."""
        return [*rows, *(bare for text in CONTENT_FREE if self.waits_for_empty for bare in content_free(rows, text))]

    def answers(self, rows: Sequence[Row], found: Sequence[Sequence[float]]) -> list[Prediction]:
        """From the probabilities of what was ``asked`` to the answers, calibrated and read off as ``predict`` does."""
        widest = max(map(len, found), default=0)
        table = np.array([[*one, *[0.0] * (widest - len(one))] for one in found])
        given = table[: len(rows)]
        if self.waits_for_empty:
            empty = table[len(rows) :].reshape(len(CONTENT_FREE), len(rows), widest).mean(0)
            given = normalise(given / np.maximum(empty, np.finfo(np.float64).tiny))
        elif self.shift is not None and self.task.knows_labels:
            given = self.shift.labels(given) if self.task.has_labels else self.shift.sets(given)
        return list(read_off(self.task, rows, given))

    @property
    def reference(self) -> str:
        """The version, such as routing@3."""
        return self.card.reference


class Trees:
    """Trees of labels, one for all prompts with the same labels: rows of one tree are answered together, whatever their prompts.

    A tree is held as long as a prompt holds it.
    """

    def __init__(self, base: Base) -> None:
        self.base = base
        self._held: WeakValueDictionary[tuple[object, object], Tree] = WeakValueDictionary()

    def of(self, trie: LabelTrie) -> Tree:
        """The tree of this trie."""
        found = self._held.get((trie.labels, trie.paths))
        if found is None:
            found = self._held[trie.labels, trie.paths] = Tree.build(trie, self.base)
        return found


def prepare(stored: StoredPrompt, base: Base, *, computes_here: bool, trees: Trees | None = None) -> Served:
    """A stored prompt made ready for this base, its tree among those of other prompts.

    Raises:
        BaseMismatch: it was tuned on another base.
        TaskError: it is universal, and answers no task by itself.
        Unsupported: vLLM servers compute, which cannot serve such a prompt.
        Corrupt: its card's task is none.
    """
    card, forms = stored.card, stored.forms
    check_base(card, facts(base))
    if not card.task:
        task_of(card)
    try:
        task = Task.from_dict(card.task)
        trie, verdicts = _labels(task, base)
        output_tokens = int(card.settings.get("output_tokens", DEFAULT_OUTPUT_TOKENS))
        said = card.settings.get("calibration")
        shift = Shift.from_dict(said) if said else None
        if shift is not None and task.knows_labels and len(shift.bias) != len(task.labels):
            raise ValueError(f"{len(shift.bias)} numbers calibrate {len(task.labels)} labels")
        if shift is not None and not np.isfinite(np.asarray(shift.bias, dtype=float)).all():
            raise ValueError("it is calibrated by numbers that are not finite")
    except (EpigraphError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise Corrupt(f"the task on the card of {card.reference!r} cannot be read: {error}.") from error
    if task.template.blocks * card.members != len(forms):
        raise Corrupt(f"the template of {card.reference!r} has {task.template.blocks} blocks, the prompt {len(forms)}.")
    if not computes_here:
        _check_elsewhere(card, forms, task)
    if trie is not None:
        _check_room(card, trie, base)
    served = Served(
        card=card,
        task=task,
        carried=Carried(name=card.reference, content=content_hash(forms), forms=tuple(forms), members=card.members),
        outline=outline(forms[: task.template.blocks], base.hidden),
        trie=trie,
        tree=(trees or Trees(base)).of(trie) if trie is not None and computes_here else None,
        output_tokens=max(1, output_tokens),
        size=sum(tensor.nbytes for tensor in tensors(forms)),
        verdicts=verdicts,
        shift=shift,
    )
    if served.stands >= base.context:
        raise ConfigError(f"prompt {card.reference!r} takes {served.stands} positions, the base has {base.context}.")
    return served


def _labels(task: Task, base: Base) -> tuple[LabelTrie | None, tuple[tuple[int, int, int], ...]]:
    """The trie of the labels, or of the verdicts on them and how these are read off."""
    if task.has_labels:
        return build_trie(task.labels, task.template, base, chat=task.chat), ()
    if not task.knows_labels:
        return None, ()
    found = Verdicts.build(task.labels, task.template, base, chat=task.chat)
    return found.trie, found.decisions


def _check_room(card: Card, trie: LabelTrie, base: Base) -> None:
    """ConfigError for labels that the base cannot read: their mask alone grows with the square of their tokens."""
    deepest = max(node.depth for node in trie.nodes)
    if deepest >= base.context or len(trie.fed) > MOST_LABEL_TOKENS:
        raise ConfigError(
            f"the labels of {card.reference!r} take {len(trie.fed)} tokens, the longest {deepest}.",
            f"A label may have fewer than {base.context}, all of them {MOST_LABEL_TOKENS:,}.",
        )


def _check_elsewhere(card: Card, forms: Sequence[AnyForm], task: Task) -> None:
    """Unsupported for what embedded texts cannot say, where vLLM servers compute."""
    what = ""
    if card.members > 1:
        what = f"is an ensemble of {card.members} prompts, which vote by probabilities"
    elif any(isinstance(form, Dependent) for form in forms):
        what = "depends on the input, by its frozen states"
    elif not task.writes and not task.has_labels:
        what = f"answers a {task.kind} task by probabilities"
    if what:
        raise Unsupported(
            f"prompt {card.reference!r} {what}; this server's engine (vLLM) gives none.",
            "Run epigraph serve without --engine vllm.",
        )


def content_hash(forms: Sequence[AnyForm]) -> str:
    """sha256 over the blocks' tensors: equal vectors under two names are one prompt to the engine."""
    digest = sha256()
    for form in forms:
        for tensor in tensors([form]):
            digest.update(f"{type(form).__name__} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def tensors(forms: Sequence[AnyForm]) -> list[Tensor]:
    """What forms hold; blocks of a prompt that depends on the input hold one module, which counts with the first."""
    found: list[Tensor] = []
    for form in forms:
        if isinstance(form, KeyValue):
            found += [form.keys, form.values]
        elif isinstance(form, Embedded):
            found.append(form.vectors)
        elif form.number == 0:
            found += form.prompt.state_dict().values()
    return found
