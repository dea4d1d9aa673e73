"""Prompts as bare arrays, from google-research/prompt-tuning (NAME.npy) and caikit (a folder with decoder.pt), as ``token`` prompts.

    NAME.npy      [P, H], numpy's format                      https://github.com/google-research/prompt-tuning
    decoder.pt    [P, H], a tensor as torch.save writes it    https://github.com/caikit/caikit-nlp
    config.yml    what caikit says of it: base, verbalizer, how it was tuned

Neither says on which weights it was tuned: it takes the fingerprint of the base the user names, marked unverified. Both stand
before every token. Nothing is unpickled: see ``torch_file``.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from epigraph.errors import BaseMismatch, Corrupt, NotFound, Unsupported
from epigraph.library.card import BaseFacts, Lineage
from epigraph.library.disk import read_file
from epigraph.library.tensors import not_finite
from epigraph.library.torch_file import read_tensor
from epigraph.prompts.form import Embedded, Form

ARRAY, DECODER, ENCODER, CONFIG = ".npy", "decoder.pt", "encoder.pt", "config.yml"
TELLING = ("base_model_name", "tuning_type", "verbalizer", "task_type")
MAGIC = b"\x93NUMPY"
MOST_BYTES = 1 << 20
ANOTHER = "Get the file again from where it was made."


def is_array(path: Path) -> bool:
    """Whether this is an array's file, or a folder as caikit saves it."""
    return path.suffix.lower() == ARRAY or (path.is_dir() and any((path / name).exists() for name in (DECODER, ENCODER)))


def import_array(path: Path, base: BaseFacts) -> tuple[list[Form], dict[str, Any]]:
    """Read a prompt's array: its one block, and what a card can say of it (keyword arguments of ``Card``).

    Raises:
        NotFound: there is no such file.
        Corrupt: it is damaged, not finite, or holds objects, which are never unpickled.
        Unsupported: it is no matrix of floating-point numbers, or the prompt of an encoder-decoder model.
        BaseMismatch: its width is not that of ``base``.
    """
    rows, how = _of_caikit(path) if path.is_dir() else (_of_numpy(path), f"imported from the array {path.name}")
    _check(rows, base, path)
    facts = {
        "kind": "token",
        "form": "Embedded",
        "lengths": (len(rows),),
        "place": "first",
        "portable": True,
        "trained_parameters": rows.numel(),
        "base": replace(base, verified=False),
        "lineage": Lineage(parents=(f"array:{path.resolve().name}",), how=how),
    }
    return [Embedded(rows.to(torch.float32).contiguous())], facts


def _of_numpy(path: Path) -> Tensor:
    if not path.is_file():
        raise NotFound(f"there is no file {path}.", "Check the path.")
    try:
        with path.open("rb") as opened:
            if opened.read(len(MAGIC)) != MAGIC:
                raise ValueError("it does not begin as numpy's format does")
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a header that lies about the size takes no memory
        found = np.array(array, dtype=np.float32 if array.dtype.kind == "f" else array.dtype)
    except (ValueError, OSError, EOFError, SyntaxError) as fault:
        raise Corrupt(f"{path} is no readable array: {fault}. Objects are never unpickled.", ANOTHER) from fault
    if found.dtype.kind != "f":
        raise Unsupported(f"{path} holds {found.dtype}; a prompt is floating-point numbers.", ANOTHER)
    return torch.from_numpy(found)


def _of_caikit(folder: Path) -> tuple[Tensor, str]:
    if (folder / ENCODER).exists():
        raise Unsupported(f"{folder} holds {ENCODER}: it was tuned on an encoder-decoder model.", "Use caikit for it.")
    rows = read_tensor(read_file(folder, DECODER), str(folder / DECODER))
    said = [f"{key} {str(value)[:200]!r}" for key, value in _config(folder).items() if key in TELLING and value]
    return rows, f"imported from a caikit folder{', which says: ' if said else ''}{', '.join(said)}"


def _config(folder: Path) -> dict[str, Any]:
    """What config.yml says; nothing where it is missing."""
    if not (folder / CONFIG).exists():
        return {}
    content = read_file(folder, CONFIG)
    if len(content) > MOST_BYTES:
        raise Corrupt(f"{folder / CONFIG} has {len(content):,} bytes, too many for a configuration.", ANOTHER)
    try:
        found = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as fault:
        first = str(fault).splitlines()[0]
        raise Corrupt(f"{folder / CONFIG} is not readable as YAML: {first}.", ANOTHER) from fault
    if not isinstance(found, dict):
        raise Corrupt(f"{folder / CONFIG} is no table of settings.", ANOTHER)
    return found


def _check(rows: Tensor, base: BaseFacts, path: Path) -> None:
    shape = list(rows.shape)
    if rows.ndim != 2 or not rows.shape[0] or not rows.is_floating_point():
        raise Unsupported(f"{path} holds {rows.dtype} of shape {shape}; a prompt is a matrix [P, H] of numbers.", ANOTHER)
    if rows.shape[1] != base.hidden:
        raise BaseMismatch(
            f"the prompt in {path} has {rows.shape[1]} columns; base {base.name} has H={base.hidden}.",
            "Pass the base it was tuned on with --base.",
        )
    if not_finite({"prompt": rows}):
        raise Corrupt(f"{path}: the prompt is not finite.", ANOTHER)
