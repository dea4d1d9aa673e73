"""One tensor out of a file that ``torch.save`` wrote, without unpickling it.

    zip:  NAME/data.pkl   which tensor: storage, dtype, offset, shape, strides, as a pickle's instructions
          NAME/data/0     its numbers, as they lie in memory

A pickle is a program for a stack machine, and Python's runs whatever it names. Here the instructions are read and never run:
a machine that knows tuples, numbers and texts, and takes three names for what they mean (a tensor, a parameter, an ordered
table). Anything else is refused by name. Source of the format: PyTorch 2, ``torch/serialization.py`` and
``torch/_utils.py`` (``_rebuild_tensor_v2``), https://github.com/pytorch/pytorch.
"""

import math
import pickletools
import zipfile
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import torch
from torch import Tensor

from epigraph.errors import Corrupt, EpigraphError, Unsupported

DTYPES = {
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch DoubleStorage": torch.float64,
}
TENSOR, PARAMETER, TABLE = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "collections OrderedDict"
KNOWN = {*DTYPES, TENSOR, PARAMETER, TABLE}
MOST_INSTRUCTIONS = 1000
MARK = object()
HINT = "If you trust it, load it with torch where it was made, and save the tensor as safetensors or .npy."


@dataclass(frozen=True)
class _Name:
    """A name in the instructions, which is never looked up."""

    name: str


@dataclass(frozen=True)
class _Stored:
    """Where a tensor's numbers lie, and how."""

    key: str
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_tensor(content: bytes, where: str) -> Tensor:
    """The only tensor of the file; ``where`` names it in messages. Corrupt where it is anything else."""
    try:
        with zipfile.ZipFile(BytesIO(content)) as opened:
            members = {info.filename: info for info in opened.infolist()}
            if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
                raise Corrupt(f"{where} is packed, as torch.save never packs.", HINT)
            programs = [name for name in members if name.endswith("/data.pkl")]
            if len(programs) != 1:
                raise Corrupt(f"{where} is no file that torch.save wrote: it has {len(programs)} data.pkl.", HINT)
            stored = _run(opened.read(programs[0]), where)
            order = programs[0].removesuffix("data.pkl") + "byteorder"
            if order in members and opened.read(order) != b"little":
                raise Unsupported(f"{where} was written on a machine of another byte order.", HINT)
            numbers = opened.read(programs[0].removesuffix("data.pkl") + f"data/{stored.key}")
    except EpigraphError:
        raise
    except (zipfile.BadZipFile, KeyError, RuntimeError, EOFError, OSError) as fault:
        raise Corrupt(
            f"{where} is no file that torch.save wrote, or is damaged: {fault}. It is not opened as a pickle.", HINT
        ) from fault
    return _shaped(numbers, stored, where)


def _shaped(numbers: bytes, stored: _Stored, where: str) -> Tensor:
    sizes = zip(stored.size, stored.stride, strict=True) if len(stored.size) == len(stored.stride) else None
    if sizes is None or min((*stored.size, *stored.stride, stored.offset), default=0) < 0:
        raise Corrupt(f"{where} says a shape {stored.size} with strides {stored.stride}.", HINT)
    last = stored.offset + sum((n - 1) * step for n, step in sizes) if 0 not in stored.size else -1
    there, rest = divmod(len(numbers), stored.dtype.itemsize)
    if rest or last >= there or math.prod(stored.size) > there:
        raise Corrupt(f"{where} holds {len(numbers)} bytes, too few for a tensor of shape {list(stored.size)}.", HINT)
    if not numbers:
        return torch.empty(stored.size, dtype=stored.dtype)
    flat = torch.frombuffer(bytearray(numbers), dtype=stored.dtype)
    return flat.as_strided(stored.size, stored.stride, stored.offset).clone()


def _run(program: bytes, where: str) -> _Stored:
    """Follow the instructions on a stack that holds plain values and names only."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(program)):
            if number > MOST_INSTRUCTIONS:
                raise Corrupt(f"{where} holds more than one tensor.", HINT)
            if opcode.name == "STOP":
                break
            _follow(opcode.name, argument, stack, memo, where)
        (found,) = stack
    except (ValueError, IndexError, TypeError, KeyError) as fault:
        raise Corrupt(f"{where} is damaged, or holds no tensor ({fault}).", HINT) from fault
    if not isinstance(found, _Stored):
        raise Corrupt(f"{where} holds a {type(found).__name__}, not a tensor.", HINT)
    return found


def _follow(name: str, argument: Any, stack: list[Any], memo: dict[int, Any], where: str) -> None:
    if name in ("PROTO", "FRAME"):
        return
    if name in ("MARK", "EMPTY_TUPLE", "NONE", "NEWTRUE", "NEWFALSE", "EMPTY_DICT"):
        stack.append({"MARK": MARK, "EMPTY_TUPLE": (), "NONE": None, "NEWTRUE": True, "NEWFALSE": False}.get(name, {}))
    elif name in ("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE"):
        stack.append(argument)
    elif name in ("BINPUT", "LONG_BINPUT"):
        memo[argument] = stack[-1]
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        count = int(name[-1])
        stack[-count:] = [tuple(stack[-count:])]
    elif name == "TUPLE":
        begin = len(stack) - 1 - stack[::-1].index(MARK)
        stack[begin:] = [tuple(stack[begin + 1 :])]
    elif name in ("GLOBAL", "STACK_GLOBAL"):
        said = argument if name == "GLOBAL" else " ".join(stack.pop(-2 + i) for i in (0, 1))
        stack.append(_known(str(said), where))
    elif name == "BINPERSID":
        stack.append(_storage(stack.pop()))
    elif name == "REDUCE":
        arguments, called = stack.pop(), stack.pop()
        stack.append(_call(called, arguments))
    else:
        raise Corrupt(f"{where} asks a pickle's {name}, which no tensor needs. It was not run.", HINT)


def _known(name: str, where: str) -> _Name:
    if name not in KNOWN:
        raise Corrupt(f"{where} asks for {name.replace(' ', '.')}, which no tensor needs. It was not run.", HINT)
    return _Name(name)


def _storage(said: Any) -> tuple[str, torch.dtype]:
    kind, storage, key, _device, _count = said
    if kind != "storage" or not isinstance(storage, _Name) or storage.name not in DTYPES or not str(key).isdigit():
        raise ValueError(f"its storage is {kind!r}")
    return str(key), DTYPES[storage.name]


def _call(called: Any, arguments: Any) -> Any:
    """What the three names mean."""
    if called == _Name(TABLE):
        return {}
    if called == _Name(PARAMETER):
        return arguments[0]
    if called != _Name(TENSOR):
        raise ValueError("it calls something else than a tensor")
    (key, dtype), offset, size, stride = arguments[:4]
    if not all(isinstance(n, int) for n in (offset, *size, *stride)):
        raise ValueError("its shape is not of numbers")
    return _Stored(key, dtype, offset, tuple(size), tuple(stride))
