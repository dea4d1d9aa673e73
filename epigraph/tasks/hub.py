"""Data sets of the Hugging Face hub, and folders that the ``datasets`` library saved.

    hub:owner/name[:config][@split]        folder[@split]

The library is optional (``pip install epigraph[hub]``). Code that comes with a data set is never run.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from epigraph.errors import DataError, EpigraphError, FetchFailed, NotFound, Unsupported
from epigraph.tasks.parquet_file import named
from epigraph.tasks.table import Table

_ADDRESS = re.compile(r"hub:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<config>[^@:]+))?(?:@(?P<split>[^@]+))?$")
_SAVED = ("dataset_dict.json", "state.json")


@dataclass(frozen=True)
class HubAddress:
    """A data set on the hub; ``split`` is empty where the address names none."""

    name: str
    config: str | None = None
    split: str = ""

    @classmethod
    def parse(cls, text: str) -> "HubAddress":
        """Raises DataError where the address is malformed."""
        match = _ADDRESS.match(text)
        if match is None:
            raise DataError(f"{text!r} is no hub address.", "Write hub:owner/name, hub:owner/name:config or …@split.")
        return cls(match["name"], match["config"], match["split"] or "")


def is_hub(path: Path | str) -> bool:
    """Whether a data argument is an address on the hub rather than a path."""
    return str(path).startswith("hub:")


def is_saved(path: Path) -> bool:
    """Whether a folder was written by ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk``."""
    return any((path / name).is_file() for name in _SAVED)


def splits(path: Path | str) -> tuple[str, ...]:
    """The names of the splits of a hub data set or a saved folder; empty for a folder that holds a single split."""
    if not is_hub(path):
        dataset = _load_saved(Path(path))
        return tuple(dataset) if _has_splits(dataset) else ()
    address = HubAddress.parse(str(path))
    with _explained(str(path)):
        return tuple(_library().get_dataset_split_names(address.name, address.config))


def read_hub(text: str) -> Table:
    """Fetch one split (``train`` where none is named). Raises DataError, NotFound, FetchFailed, Unsupported."""
    address = HubAddress.parse(text)
    library = _library()
    with _explained(text):
        dataset = library.load_dataset(address.name, address.config, split=address.split or "train")
    return _table(dataset, text)


def read_saved(path: Path, split: str = "train") -> Table:
    """Read one split of a saved folder; ``split`` is ignored where the folder holds a single one."""
    dataset = _load_saved(path)
    if _has_splits(dataset):
        if split not in dataset:
            raise NotFound(f"{path} has no split {split!r}; it has {', '.join(dataset)}.")
        dataset = dataset[split]
    return _table(dataset, str(path))


def _library() -> ModuleType:
    try:
        import datasets
    except ImportError:
        raise Unsupported(
            "hub data sets need the `datasets` library, which is not installed.", "Run: pip install epigraph[hub]"
        ) from None
    return datasets  # type: ignore[no-any-return]


def _load_saved(path: Path) -> Any:
    library = _library()
    with _explained(str(path)):
        return library.load_from_disk(str(path))


def _has_splits(dataset: Any) -> bool:
    return isinstance(dataset, dict)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what the library raises into our errors; it has no root of its own."""
    try:
        yield
    except EpigraphError:
        raise
    except FileNotFoundError as error:
        raise NotFound(f"no data set {what!r}: {error}", "Check its owner, name and split.") from error
    except (ConnectionError, TimeoutError) as error:
        raise FetchFailed(f"{what!r} could not be fetched: {error}", "Is the network there?") from error
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        raise DataError(f"{what!r} cannot be read: {error}", "Check its config and split.") from error


def _table(dataset: Any, source: str) -> Table:
    names = {column: feature.names for column, feature in dataset.features.items() if hasattr(feature, "int2str")}
    records = tuple(named(record, names) for record in dataset)
    return Table(
        columns=tuple(dataset.column_names), records=records, lines=tuple(range(1, len(records) + 1)), source=source
    )
