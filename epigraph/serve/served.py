"""A prompt as it is served: its card, its vectors under their hash, and how its task is put into words.

Loaded off the serving path and never changed: a request that holds one keeps its version, whatever becomes of the library.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from torch import Tensor

from epigraph.base import Base
from epigraph.engine import Tree
from epigraph.errors import ConfigError, Corrupt, Unsupported
from epigraph.library import Card, StoredPrompt, check_base
from epigraph.model import facts
from epigraph.prompts import Form, KeyValue, plain_forms
from epigraph.serve.work import Carried
from epigraph.tasks.encode import build_trie
from epigraph.tasks.task import Task
from epigraph.tasks.trie import LabelTrie

DEFAULT_OUTPUT_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class Served:
    """``trie`` holds the labels' tokens, ``tree`` the same for the engine (None where another server computes)."""

    card: Card
    task: Task
    carried: Carried
    trie: LabelTrie | None
    tree: Tree | None
    output_tokens: int
    size: int
    """Bytes of its vectors."""

    @property
    def virtual(self) -> int:
        """Positions that the prompt's vectors take."""
        return sum(form.length for form in self.carried.forms)

    @property
    def reference(self) -> str:
        """The version, such as routing@3."""
        return self.card.reference


def prepare(stored: StoredPrompt, base: Base, *, computes_here: bool) -> Served:
    """A stored prompt made ready for this base.

    Raises:
        BaseMismatch: it was tuned on another base.
        Corrupt: its card's task is none.
    """
    check_base(stored.card, facts(base))
    try:
        task = Task.from_dict(stored.card.task)
        trie = build_trie(task.labels, task.template, base, chat=task.chat) if task.has_labels else None
        output_tokens = int(stored.card.settings.get("output_tokens", DEFAULT_OUTPUT_TOKENS))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(f"the task on the card of {stored.card.reference!r} cannot be read: {error}.") from error
    if stored.card.members > 1:
        raise Unsupported(
            f"prompt {stored.card.reference!r} is an ensemble of {stored.card.members} prompts, which the server does not take.",
            "Tune it without --ensemble.",
        )
    forms = plain_forms(stored.forms, "serving")
    if task.template.blocks != len(forms):
        raise Corrupt(
            f"the template of {stored.card.reference!r} has {task.template.blocks} blocks, the prompt {len(forms)}."
        )
    virtual = sum(form.length for form in forms)
    if virtual >= base.context:
        raise ConfigError(f"prompt {stored.card.reference!r} takes {virtual} positions, the base has {base.context}.")
    return Served(
        card=stored.card,
        task=task,
        carried=Carried(name=stored.card.reference, content=content_hash(forms), forms=tuple(forms)),
        trie=trie,
        tree=Tree.build(trie, base) if trie is not None and computes_here else None,
        output_tokens=max(1, output_tokens),
        size=sum(tensor.nbytes for form in forms for tensor in tensors(form)),
    )


def content_hash(forms: Sequence[Form]) -> str:
    """sha256 over the blocks' tensors: equal vectors under two names are one prompt to the engine."""
    digest = sha256()
    for form in forms:
        for tensor in tensors(form):
            digest.update(f"{type(form).__name__} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def tensors(form: Form) -> tuple[Tensor, ...]:
    """What a form holds."""
    return (form.keys, form.values) if isinstance(form, KeyValue) else (form.vectors,)
