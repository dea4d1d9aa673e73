"""PEFT, the usual library for adapters (https://github.com/huggingface/peft): imported only where a rival is asked for."""

import importlib
import warnings
from typing import Any

from epigraph.errors import Unsupported


def peft_library() -> Any:
    """The library; Unsupported if it is not installed."""
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise Unsupported("this rival needs the `peft` library, which is not installed.", "Run: pip install peft") from error


def wrap(model: Any, config: Any) -> Any:
    """``model`` with the adapter of this config, in evaluation mode: dropout off, all but the adapter frozen."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT 0.21 asks transformers 5.23 for an attribute's old name
        return peft_library().get_peft_model(model, config).eval()
