"""A prompt on disk: one folder, whole or not there.

prompt.safetensors   block0.vectors | block0.keys, block0.values; block1 …    fp32
                     state.*: the whole state of a kind that depends on the input, rebuilt through KINDS
card.toml            what it is, with the sha256 of every file here and of itself
README.md            the card for people; free to be edited, so no hash covers it
metrics.jsonl        the run's measurements, where there are some
adapter_model.safetensors, adapter_config.json    PEFT's copy, only where PEFT means the same by it
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from torch import Tensor, float32

from epigraph.errors import BaseMismatch, Corrupt, Diverged, NotFound, Unsupported
from epigraph.library.adapter import CONFIG, WEIGHTS, adapter_files
from epigraph.library.card import BaseFacts, Card, FormName
from epigraph.library.cardfile import CARD, read_card, write_card
from epigraph.library.disk import RESTORE, check_hash, publish, read_file, staged, storing, write_file
from epigraph.library.readme import README, model_card
from epigraph.library.tensors import decode, encode, not_finite, refuse_pickle
from epigraph.prompts import KINDS
from epigraph.prompts.form import AnyForm, Dependent, Embedded, Form, KeyValue

PROMPT = "prompt.safetensors"
METRICS = "metrics.jsonl"
OURS = frozenset({PROMPT, METRICS, CARD, README, CONFIG, WEIGHTS})
FORMAT = "1"
STATE = "state."


@dataclass(frozen=True, kw_only=True)
class StoredPrompt:
    """A prompt as it lies on disk: its card, and one form (fp32, on the CPU) for each block."""

    card: Card
    forms: list[AnyForm]


def write_prompt(folder: Path, forms: Sequence[AnyForm], card: Card, *, metrics_file: Path | None = None) -> Card:
    """Write a prompt's folder, replacing an older prompt there, and return the card as it will be read back.

    Raises:
        StorageFailed: the disk is full, read-only or not ours, or ``folder`` holds something else. Nothing is left behind.
        NotFound: ``metrics_file`` is not there.
        Diverged: the prompt is not finite.
        BaseMismatch: its shape is not that of the card's base.
        Unsupported: the card calls it portable although PEFT cannot express it.
    """
    folder = Path(folder).resolve()
    what = f"prompt {card.name!r}"
    with staged(folder.parent, what) as stage, storing(what, folder):
        written = fill(stage, forms, card, metrics_file)
        publish(stage, folder, OURS)
    return written


def fill(folder: Path, forms: Sequence[AnyForm], card: Card, metrics_file: Path | None = None) -> Card:
    """Write all files into a folder that is there already; see ``write_prompt``."""
    card = described(card, forms)
    files = {PROMPT: encode(_named(forms), {"format": "pt", "epigraph": FORMAT})}
    if card.portable:
        files |= adapter_files(exportable(card, forms), card.base)
    if metrics_file is not None:
        files[METRICS] = _metrics(metrics_file)
    for name, content in files.items():
        write_file(folder / name, content)
    written = write_card(folder, replace(card, files={name: sha256(content).hexdigest() for name, content in files.items()}))
    write_file(folder / README, model_card(written).encode())
    return written


def described(card: Card, forms: Sequence[AnyForm]) -> Card:
    """The card with form and lengths as the tensors have them, after checking that they can be stored."""
    assert forms, "a prompt has at least one block"
    names: set[FormName] = {_form_name(form) for form in forms}
    if len(names) > 1 or any(isinstance(form, Embedded) and form.vectors.ndim != 2 for form in forms):
        raise Unsupported(
            f"prompt {card.name!r} mixes forms or is that of some inputs only.", "Store it as its kind, not as forms."
        )
    card = replace(card, form=names.pop(), lengths=tuple(form.length for form in forms))
    tensors = _named(forms)
    wrong = _wrong_shape(tensors, card)
    if wrong:
        raise BaseMismatch(
            f"prompt {card.name!r} cannot belong to base {card.base.name}: {wrong}.", "Give the base it was tuned on."
        )
    if not_finite(tensors):
        raise Diverged(
            f"prompt {card.name!r} is not stored: {not_finite(tensors)} is not finite.", "Tune it with a lower rate."
        )
    return card


def _form_name(form: AnyForm) -> FormName:
    if isinstance(form, Dependent):
        return "Dependent"
    return "KeyValue" if isinstance(form, KeyValue) else "Embedded"


def exportable(card: Card, forms: Sequence[AnyForm]) -> Form:
    """The one block that PEFT can express.

    Raises:
        Unsupported: the prompt does not stand before every token, depends on the input, has several blocks, or has no vector.
    """
    only = forms[0]
    if isinstance(only, Dependent):
        found = "depends on the input"
    elif not card.portable:
        found = "does not stand before every token"
    elif card.members > 1:
        found = f"is an ensemble of {card.members} prompts"
    elif len(forms) > 1:
        found = f"has {len(forms)} blocks"
    elif not only.length:
        found = "has no vector"
    else:
        return only
    raise Unsupported(
        f"prompt {card.reference!r} cannot be written for PEFT: it {found}, and PEFT always puts one prompt first.",
        "`epigraph tune --portable` makes a prompt that can be exported.",
    )


def read_prompt(folder: Path) -> StoredPrompt:
    """Read a prompt's folder, checking every hash, shape and value.

    Raises:
        NotFound: there is no prompt.
        Corrupt: something in it differs from what was written, or is of a refused format.
        Unsupported: a newer epigraph wrote it.
    """
    folder = Path(folder)
    card = read_card(folder)
    forms = read_forms(folder, card)
    for name, expected in card.files.items():
        check_hash(read_file(folder, name), folder / name, expected)
    return StoredPrompt(card=card, forms=forms)


def read_forms(folder: Path, card: Card) -> list[AnyForm]:
    """Read and check prompt.safetensors alone."""
    if PROMPT not in card.files:
        raise Corrupt(f"{folder / CARD} does not list {PROMPT}.", RESTORE)
    path = folder / PROMPT
    content = read_file(folder, PROMPT)
    refuse_pickle(content, str(path))
    check_hash(content, path, card.files[PROMPT])
    tensors, metadata = decode(content, str(path))
    if metadata.get("epigraph") != FORMAT:
        raise Unsupported(
            f"{path} is of format {metadata.get('epigraph')!r}; this epigraph reads {FORMAT!r}.", "Upgrade epigraph."
        )
    wrong = _wrong_shape(tensors, card) or _wrong_dtype(tensors)
    if wrong:
        raise Corrupt(f"{path} does not fit its card: {wrong}.", RESTORE)
    if not_finite(tensors):
        raise Corrupt(f"{path}: {not_finite(tensors)} is not finite.", RESTORE)
    if card.form == "Dependent":
        return _rebuilt(tensors, card, str(path))
    blocks = range(len(card.lengths))
    if card.form == "KeyValue":
        return [KeyValue(tensors[f"block{i}.keys"], tensors[f"block{i}.values"]) for i in blocks]
    return [Embedded(tensors[f"block{i}.vectors"]) for i in blocks]


def _rebuilt(tensors: Mapping[str, Tensor], card: Card, where: str) -> list[AnyForm]:
    """The blocks of a kind that depends on the input, made from its state; Corrupt if it is none."""
    kind = KINDS.get(card.kind)
    if kind is None or not kind.needs_query:
        raise Unsupported(f"{where} is of kind {card.kind!r}, which this epigraph does not know.", "Upgrade epigraph.")
    try:
        prompt = kind.from_state({name.removeprefix(STATE): tensor for name, tensor in tensors.items()})
    except (KeyError, ValueError, RuntimeError, IndexError) as fault:
        raise Corrupt(f"{where} holds no state of a {card.kind} prompt: {_first_line(fault)}.", RESTORE) from fault
    if tuple(prompt.lengths) != card.lengths:
        raise Corrupt(f"{where} does not fit its card: expected lengths {card.lengths}, found {prompt.lengths}.", RESTORE)
    return prompt.fold()


def _first_line(fault: Exception) -> str:
    return str(fault).partition("\n")[0].rstrip(".:")


def _named(forms: Sequence[AnyForm]) -> dict[str, Tensor]:
    first = forms[0]
    if isinstance(first, Dependent):
        return {f"{STATE}{name}": tensor for name, tensor in first.prompt.state_dict().items()}
    tensors: dict[str, Tensor] = {}
    for i, form in enumerate(forms):
        assert not isinstance(form, Dependent)
        own = {"keys": form.keys, "values": form.values} if isinstance(form, KeyValue) else {"vectors": form.vectors}
        tensors |= {f"block{i}.{name}": tensor for name, tensor in own.items()}
    return tensors


def _wrong_shape(tensors: Mapping[str, Tensor], card: Card) -> str:
    """What is wrong with names or shapes of the tensors, or ""."""
    if card.form == "Dependent":
        return _wrong_state(tensors, card)
    expected = _shapes(card.form, card.lengths, card.base)
    if expected.keys() != tensors.keys():
        return f"expected tensors {sorted(expected)}, found {sorted(tensors)}"
    for name, shape in expected.items():
        found = tuple(tensors[name].shape)
        if found != shape:
            return f"expected {name} of shape {list(shape)}, found {list(found)}"
    return ""


def _wrong_state(tensors: Mapping[str, Tensor], card: Card) -> str:
    """The same for the state of a prompt that depends on the input: whatever its kind, a block ends as the base has it."""
    if any(not name.startswith(STATE) for name in tensors):
        return f"expected tensors of a state, found {sorted(tensors)}"
    base = card.base
    for i, length in enumerate(card.lengths):
        blocks = {(length, base.hidden), (base.layers, base.kv_heads, length, base.head_size)}
        found = tuple(tensors[f"{STATE}own.{i}"].shape) if f"{STATE}own.{i}" in tensors else ()
        if found[-2:] not in blocks and found[-4:] not in blocks:
            return f"expected {STATE}own.{i} to end in one of {sorted(map(list, blocks))}, found {list(found)}"
    return ""


def _wrong_dtype(tensors: Mapping[str, Tensor]) -> str:
    wrong = next((name for name, tensor in tensors.items() if tensor.dtype != float32), None)
    return f"expected {wrong} in float32, found {tensors[wrong].dtype}" if wrong else ""


def _shapes(form: FormName, lengths: Sequence[int], base: BaseFacts) -> dict[str, tuple[int, ...]]:
    if form == "Embedded":
        return {f"block{i}.vectors": (length, base.hidden) for i, length in enumerate(lengths)}
    return {
        f"block{i}.{name}": (base.layers, base.kv_heads, length, base.head_size)
        for i, length in enumerate(lengths)
        for name in ("keys", "values")
    }


def _metrics(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as fault:
        raise NotFound(f"there is no metrics file {path}.", "Check the path.") from fault
