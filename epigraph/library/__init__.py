"""The library: cards, the folder format, the store of named versions, PEFT's format.

Names are found without importing torch, so that listing is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from epigraph.library.card import BaseFacts, Card, Lineage, check_base
from epigraph.library.names import check_alias, check_name, split_reference
from epigraph.library.store import Entry, Library

if TYPE_CHECKING:
    from epigraph.library.array import import_array
    from epigraph.library.folder import StoredPrompt, read_prompt, write_prompt
    from epigraph.library.peft import export_peft, import_peft

_HOMES = {
    "StoredPrompt": "epigraph.library.folder",
    "read_prompt": "epigraph.library.folder",
    "write_prompt": "epigraph.library.folder",
    "export_peft": "epigraph.library.peft",
    "import_array": "epigraph.library.array",
    "import_peft": "epigraph.library.peft",
}

__all__ = [
    "BaseFacts",
    "Card",
    "Entry",
    "Library",
    "Lineage",
    "StoredPrompt",
    "check_alias",
    "check_base",
    "check_name",
    "export_peft",
    "import_array",
    "import_peft",
    "read_prompt",
    "split_reference",
    "write_prompt",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'epigraph.library' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
