"""To and from PEFT, the usual library for adapters (https://github.com/huggingface/peft): its folders, without PEFT itself.

PEFT always puts a prompt before every token, so only such prompts can leave, and whatever comes in is one. An adapter does
not say on which weights it was tuned: it takes the fingerprint of the base the user names, marked unverified.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, float32

from epigraph.errors import BaseMismatch, Corrupt, NotFound, Unsupported
from epigraph.library.adapter import CONFIG, TENSOR, WEIGHTS, adapter_files, as_form
from epigraph.library.card import BaseFacts, Lineage
from epigraph.library.disk import RESTORE, publish, read_file, require_folder, staged, storing, write_file
from epigraph.library.folder import StoredPrompt, exportable
from epigraph.library.tensors import decode, not_finite
from epigraph.prompts.form import Form

_EMBEDDED = {"PROMPT_TUNING", "P_TUNING", "CPT"}
_BY_LAYER = {"PREFIX_TUNING", "CARTRIDGE"}
_PICKLE = "adapter_model.bin"


def export_peft(stored: StoredPrompt, folder: Path, base_path: str = "") -> Path:
    """Write a prompt as a PEFT adapter and return its folder.

    ``base_path`` (a folder or a hub name) is what the adapter says of its base, instead of the name on the card.

    Raises:
        Unsupported: PEFT cannot express the prompt.
        StorageFailed: the disk is full, read-only or not ours, or ``folder`` holds something else.
    """
    files = adapter_files(exportable(stored.card, stored.forms), stored.card.base, base_path)
    folder = Path(folder).resolve()
    what = f"the adapter of {stored.card.reference!r}"
    with staged(folder.parent, what) as stage, storing(what, folder):
        for name, content in files.items():
            write_file(stage / name, content)
        publish(stage, folder, files)
    return folder


def import_peft(folder: Path, base: BaseFacts) -> tuple[list[Form], dict[str, Any]]:
    """Read a folder that PEFT saved: its one block, and what a card can say of it (keyword arguments of ``Card``).

    Raises:
        NotFound: there is no adapter.
        Corrupt: it is damaged, or a pickle, which is never opened.
        Unsupported: it is no prompt (LoRA, say), or one for another kind of model.
        BaseMismatch: its shape is not that of ``base``.
    """
    folder = Path(folder)
    require_folder(folder, CONFIG)
    config = _config(folder)
    peft_type = _peft_type(config, folder)
    rows = _rows(folder, config)
    _check_shape(rows, config, base, folder)
    form = as_form(rows, base, peft_type in _BY_LAYER)
    named = config.get("base_model_name_or_path")
    facts = {
        "kind": "kv" if peft_type in _BY_LAYER else "token",
        "form": type(form).__name__,
        "lengths": (form.length,),
        "place": "first",
        "portable": True,
        "trained_parameters": rows.numel(),
        "base": replace(base, verified=False),
        "lineage": Lineage(
            parents=(f"peft:{folder.resolve().name}",),
            how=f"imported from a PEFT {peft_type} adapter" + (f", which names the base {named}" if named else ""),
        ),
    }
    return [form], facts


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads(read_file(folder, CONFIG))
    except (ValueError, RecursionError) as fault:
        if isinstance(fault, Corrupt):
            raise
        raise Corrupt(f"{folder / CONFIG} is not readable as JSON: {fault}.", RESTORE) from fault
    if not isinstance(config, dict) or not isinstance(config.get("peft_type"), str):
        raise Corrupt(f"{folder / CONFIG} names no peft_type.", RESTORE)
    return config


def _peft_type(config: dict[str, Any], folder: Path) -> str:
    """The adapter's type, if it is a prompt for a causal language model."""
    peft_type = str(config["peft_type"])
    known = ", ".join(sorted(_EMBEDDED | _BY_LAYER))
    if peft_type not in _EMBEDDED | _BY_LAYER:
        raise Unsupported(
            f"{folder} holds a {peft_type} adapter; the library keeps prompts only ({known}).", "Use PEFT for it."
        )
    task_type, submodules = config.get("task_type"), config.get("num_transformer_submodules")
    if submodules not in (None, 1):
        raise Unsupported(f"{folder} was tuned on an encoder-decoder model ({submodules} submodules).", "Use PEFT for it.")
    if task_type not in (None, "CAUSAL_LM"):
        raise Unsupported(f"{folder} was tuned for task type {task_type}, not CAUSAL_LM.", "Use PEFT for it.")
    return peft_type


def _rows(folder: Path, config: dict[str, Any]) -> Tensor:
    """The adapter's only tensor, [P, columns], in fp32."""
    if not (folder / WEIGHTS).exists() and (folder / _PICKLE).exists():
        raise Corrupt(
            f"{folder} holds its weights as {_PICKLE}, a pickle. A pickle is never opened: it can run any code.",
            "If you trust it, convert it with PEFT: load it and call save_pretrained(folder, safe_serialization=True).",
        )
    if not (folder / WEIGHTS).exists():
        raise NotFound(f"{folder} holds no {WEIGHTS}.", "Give the folder that PEFT's save_pretrained wrote.")
    tensors, _ = decode(read_file(folder, WEIGHTS), str(folder / WEIGHTS))
    if tensors.keys() != {TENSOR}:
        raise Unsupported(f"{folder / WEIGHTS} holds {sorted(tensors)}; expected {TENSOR!r} alone.", "Use PEFT for it.")
    rows = tensors[TENSOR]
    if rows.ndim != 2 or not rows.is_floating_point() or config.get("num_virtual_tokens", len(rows)) != len(rows):
        shape, length = list(rows.shape), config.get("num_virtual_tokens")
        raise Corrupt(f"{folder / WEIGHTS} holds {rows.dtype} of shape {shape}; its config says {length} vectors.", RESTORE)
    rows = rows.to(float32)
    if not_finite({TENSOR: rows}):
        raise Corrupt(f"{folder / WEIGHTS}: {TENSOR} is not finite.", RESTORE)
    return rows


def _check_shape(rows: Tensor, config: dict[str, Any], base: BaseFacts, folder: Path) -> None:
    facts = {"num_layers": base.layers}
    columns, axes = base.hidden, f"H={base.hidden}"
    if config["peft_type"] in _BY_LAYER:
        kv_size = base.kv_heads * base.head_size
        facts |= {"num_attention_heads": base.kv_heads, "token_dim": kv_size}
        columns, axes = base.layers * 2 * kv_size, f"L={base.layers}, A={base.kv_heads}, D={base.head_size}"
    wrong = [f"{key} {config[key]}" for key, value in facts.items() if config.get(key) not in (None, value)]
    if rows.shape[1] == columns and not wrong:
        return
    found = ", ".join([f"{rows.shape[1]} columns", *wrong])
    raise BaseMismatch(
        f"the adapter in {folder} has {found}; base {base.name} ({axes}) needs {columns} columns.",
        f"Pass the base it was tuned on with --base (its config names {config.get('base_model_name_or_path')}).",
    )
