"""What makes two bases the same: sha256 over the config's meaning and every weight's name, shape, dtype and bytes.

Read from the safetensors files in sorted order of names, so that sharding and file names do not count; remembered by
path, size and time of change, since hashing takes about a second for 500 MB.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from epigraph.assets import home, write_note
from epigraph.errors import Unsupported

VOLATILE = {
    "_name_or_path",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "use_cache",
    "_attn_implementation",
    "architectures",
}


def folder_fingerprint(folder: Path) -> str:
    """The fingerprint of a model folder, from memory if its files are unchanged."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise Unsupported(
            f"base folder {folder} has no .safetensors weights; other weight files are pickles, which are never opened.",
            "Save the model again with save_pretrained(..., safe_serialization=True).",
        )
    stamp = json.dumps([[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in [folder / "config.json", *files]])
    memory = home() / "fingerprints" / hashlib.sha256(stamp.encode()).hexdigest()
    if memory.exists() and len(remembered := memory.read_text().strip()) == 64:
        return remembered
    found = _digest(json.loads((folder / "config.json").read_text()), _stored_tensors(files))
    write_note(memory, found)
    return found


def remember_folder(fingerprint: str, folder: Path) -> None:
    """Note on this machine where a base lies, so that its prompts find it again; cards hold no paths."""
    note = home() / "fingerprints" / f"{fingerprint}.path"
    if not note.exists() or note.read_text(encoding="utf-8") != str(folder):
        write_note(note, str(folder))


def remembered_folder(fingerprint: str) -> Path | None:
    """Where a base of this fingerprint was last loaded from; None if it is not there any more."""
    note = home() / "fingerprints" / f"{fingerprint}.path"
    folder = Path(note.read_text(encoding="utf-8")) if note.is_file() else None
    return folder if folder is not None and (folder / "config.json").is_file() else None


def model_fingerprint(model: nn.Module, config: Mapping[str, Any]) -> str:
    """The fingerprint of a model that lives in memory only."""
    return _digest(config, sorted(model.named_parameters()))


def weights_hash(model: nn.Module) -> str:
    """sha256 over all weights and buffers as they are now: proof that tuning left the base alone."""
    return _digest({}, sorted(model.state_dict().items()))


def _stored_tensors(files: list[Path]) -> Iterator[tuple[str, Tensor]]:
    where = {name: file for file in files for name in _names(file)}
    for name in sorted(where):
        with safe_open(where[name], framework="pt") as opened:
            yield name, opened.get_tensor(name)


def _names(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as opened:
        return list(opened.keys())


def _digest(config: Mapping[str, Any], tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    meaning = {key: value for key, value in config.items() if key not in VOLATILE}
    digest.update(json.dumps(meaning, sort_keys=True, default=str).encode())
    for name, tensor in tensors:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
