"""A router on disk, in the library beside the prompts it sends texts to.

    LIBRARY/.router/FINGERPRINT/router.safetensors   means, scatter        router.toml   tasks, prompts, numbers, sha256

One a base. It holds statistics of states, no texts. Written whole or not at all; never a pickle.
"""

import tomllib
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch

from epigraph.errors import Corrupt, NotFound
from epigraph.library.disk import check_hash, entries, publish, read_file, staged, storing, write_file
from epigraph.library.tensors import decode, encode, not_finite
from epigraph.routing.router import Router, TaskStatistics

FOLDER, TENSORS, NOTE = ".router", "router.safetensors", "router.toml"
FORMAT = 1
_RESTORE = "Delete the folder and route its prompts again: epigraph library route NAME --data train.csv"


def router_folder(library: Path, fingerprint: str) -> Path:
    """Where the router of a base lies in a library."""
    return Path(library).expanduser().absolute() / FOLDER / fingerprint[:16]


def write_router(library: Path, router: Router) -> Path:
    """Store a router in place of the one that is there. StorageFailed if the disk is full, read-only or not ours."""
    assert router.scatter is not None, "a router without a task is not stored"
    folder = router_folder(library, router.fingerprint)
    means = torch.from_numpy(np.stack([said.mean for said in router.tasks.values()])) if router.tasks else torch.zeros(0)
    content = encode({"means": means, "scatter": torch.from_numpy(router.scatter)}, {"format": "pt"})
    note = {
        "format": FORMAT,
        "fingerprint": router.fingerprint,
        "count": router.count,
        "sha256": sha256(content).hexdigest(),
        "tasks": [
            {"name": name, **{part: getattr(said, part) for part in ("prompt", "rows", "ratio", "temperature", "known")}}
            for name, said in router.tasks.items()
        ],
    }
    with staged(folder.parent, "the router") as stage, storing("the router", folder):
        write_file(stage / TENSORS, content)
        write_file(stage / NOTE, tomli_w.dumps(note).encode())
        publish(stage, folder, frozenset({TENSORS, NOTE}))
    return folder


def read_router(library: Path, fingerprint: str = "") -> Router:
    """The router of a base, or the only one there is. NotFound or Corrupt if it cannot be."""
    home = Path(library).expanduser().absolute() / FOLDER
    there = [path for path in entries(home) if not path.name.startswith(".")]
    chosen = [path for path in there if not fingerprint or path.name == fingerprint[:16]]
    if not chosen:
        raise NotFound(
            f"library {library} has no router{' for this base' if there else ''}.",
            "Make one: epigraph continual A.csv B.csv, or epigraph library route NAME --data train.csv",
        )
    if len(chosen) > 1:
        raise NotFound(f"library {library} has routers of {len(chosen)} bases.", "Pass --base with the one that is meant.")
    return _read(chosen[0])


def _read(folder: Path) -> Router:
    try:
        note = tomllib.loads(read_file(folder, NOTE).decode())
        content = read_file(folder, TENSORS)
        check_hash(content, folder / TENSORS, str(note["sha256"]))
        tensors, _ = decode(content, str(folder / TENSORS))
        return _build(note, tensors)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, IndexError) as fault:
        if isinstance(fault, Corrupt):
            raise
        raise Corrupt(f"the router in {folder} cannot be read: {fault}.", _RESTORE) from fault


def _build(note: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Router:
    means, scatter = tensors["means"], tensors["scatter"]
    if note["format"] != FORMAT or not_finite(tensors) or scatter.ndim != 2 or scatter.shape[0] != scatter.shape[1]:
        raise ValueError("it is of another format, or not finite")
    if len(means) != len(note["tasks"]) or (len(means) and means.shape[1] != len(scatter)):
        raise ValueError("its tensors do not fit its note")
    tasks = {
        str(said["name"]): TaskStatistics(
            prompt=str(said["prompt"]),
            rows=int(said["rows"]),
            mean=mean.double().numpy(),
            ratio=float(said["ratio"]),
            temperature=float(said["temperature"]),
            known=int(said["known"]),
        )
        for said, mean in zip(note["tasks"], means, strict=True)
    }
    count = int(note["count"])
    return Router(fingerprint=str(note["fingerprint"]), tasks=tasks, scatter=scatter.double().numpy(), count=count)
