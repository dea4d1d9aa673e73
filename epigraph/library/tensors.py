"""Tensors as bytes in the safetensors format, and nothing else: a pickle is never opened, whatever its file is called.

[8 bytes: length of the header] [header: JSON] [data]        https://github.com/huggingface/safetensors
"""

import json
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from epigraph.errors import Corrupt
from epigraph.library.disk import RESTORE

_PICKLES = (b"PK", b"\x80\x01", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The tensors as a safetensors file, in fp32; equal tensors and metadata give equal bytes."""
    plain = {name: tensor.detach().to("cpu", torch.float32).contiguous().clone() for name, tensor in tensors.items()}
    return _in_order(save(plain, dict(metadata)))


def _in_order(content: bytes) -> bytes:
    """The same file with its metadata in order: safetensors writes the keys in a random one."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def refuse_pickle(content: bytes, where: str) -> None:
    """Raise Corrupt where ``content`` begins like a pickle or a zip of pickles."""
    has_header = content[8:9] == b"{"  # the length of a header of 640 bytes begins like a pickle
    if content.startswith(_PICKLES) and not has_header:
        raise Corrupt(
            f"{where} is a pickle or a zip, not safetensors. A pickle is never opened: it can run any code.",
            "Get the file in the safetensors format.",
        )


def decode(content: bytes, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, with its metadata; ``where`` names the file in messages.

    Raises:
        Corrupt: the bytes are a pickle or a zip, cut off, or otherwise no safetensors file.
    """
    refuse_pickle(content, where)
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as fault:
        raise Corrupt(f"{where} is no readable safetensors file ({fault}).", RESTORE) from fault
    return tensors, header.get("__metadata__", {})


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """The name of the first tensor with a nan or an infinity in it, or "" where all are finite."""
    return next((name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())), "")
