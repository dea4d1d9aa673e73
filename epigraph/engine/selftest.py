"""The self-test at the first load of a base: does our attention give what the base's own gives?

    ‖engine − plain‖ / ‖plain‖ ≤ tolerance     for states, gradients and label logits; short texts, a longer one, one beyond the window

An architecture whose attention does not go through transformers' interface would ignore the prompt without a word. It is run
by plain concatenation instead, if that passes the same test against single rows without padding; else it is refused by name.
What was found is remembered by fingerprint, dtype, device and versions.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from epigraph.assets import home, write_note
from epigraph.engine import attention, fused
from epigraph.engine.concatenation import turning_length
from epigraph.engine.plain import plain_states, stock_attention, whole_states
from epigraph.engine.stream import Tail
from epigraph.errors import Unsupported
from epigraph.prompts.form import Embedded, Form, KeyValue
from epigraph.tasks.encode import Encoded

if TYPE_CHECKING:
    from epigraph.engine.engine import Engine

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
PROMPT, SHORT, MOST_TOKENS = 3, 6, 4608
VERSION = 3
FAULTS = (TypeError, ValueError, RuntimeError, AttributeError, KeyError, AssertionError, IndexError)
Found = tuple[Tensor, Tensor]  # states and gradient


def check_base(engine: "Engine") -> None:
    """Choose how the engine runs this base, and remember it. Unsupported if it would be wrong either way."""
    served = home() / "selftests" / _name(engine)
    plain = served.with_suffix(".plain")
    reason = plain.read_text(encoding="utf-8") if plain.exists() else ""
    if reason or served.exists():
        engine.use(plain=reason)
        return
    with _quiet(), engine.store.passing():
        problem = find_problem(engine)
        other = find_plain_problem(engine, problem) if problem else ""
    if other:
        kind = engine.base.config.model_type
        raise Unsupported(
            f"base {engine.base.name} (architecture {kind}) cannot be served: {problem}. Plain concatenation fails too: {other}.",
            "Choose a base whose attention goes through transformers' interface, such as Llama, Qwen, Mistral, Gemma, GPT-2.",
        )
    write_note(plain if problem else served, problem)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from telling that an old architecture does not take another attention: that is what is tested."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def find_problem(engine: "Engine") -> str:
    """What differs from the stock forward, in words; empty if nothing does."""
    base = engine.base
    turn = turning_length(base)
    if turn:
        return f"its rotary positions turn otherwise in texts of more than {turn} tokens"
    try:
        engine.use()
        if base.model.config._attn_implementation != attention.NAME:
            return "its attention does not go through transformers' interface"
        rows = _rows(engine)
        form = _key_values(engine)
        found = _ours(engine, rows, form)
        expected = _stock(engine, rows, form)
        logits = _logits(engine, rows[0])
    except torch.OutOfMemoryError:
        raise  # nothing is learned of the base
    except FAULTS as error:
        return f"its layers do not take the engine's keys and values ({_told(error)})"
    return _difference(found, expected, logits, TOLERANCE[base.dtype])


def find_plain_problem(engine: "Engine", reason: str) -> str:
    """What differs from single rows without padding when the engine concatenates for this reason; empty if nothing does."""
    try:
        engine.use(plain=reason)
        rows = _rows(engine)
        form = _vectors(engine)
        found = _ours(engine, rows, form)
        states = torch.stack([whole_states(engine.base, row, [form])[-1] for row in rows])
        expected = states.detach(), _gradient(states, form)
        logits = _logits(engine, rows[0])
    except FAULTS as error:
        return f"its forward pass breaks ({_told(error)})"
    if not bool(found[1].isfinite().all()) or not bool(found[1].any()):
        return "no gradient reaches the prompt"
    return _difference(found, expected, logits, TOLERANCE[engine.base.dtype])


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def _difference(found: Found, expected: Found, logits: tuple[Tensor, Tensor], tolerance: float) -> str:
    if not _close(found[0], expected[0], tolerance):
        return "states differ from those of its own attention"
    if not _close(found[1], expected[1], 4 * tolerance):
        return "gradients differ from those of its own attention"
    if not _close(*logits, tolerance):
        return "label logits differ from those of its own head"
    return ""


def _rows(engine: "Engine") -> list[Encoded]:
    """Two short texts, one that the fused kernel reads and, if the base has one that can be tested, one longer than the window or
    the length of the turn."""
    window = max(getattr(engine.base.config, "sliding_window", None) or 0, turning_length(engine.base) or 0)
    most = min(MOST_TOKENS, engine.base.context - PROMPT - 2)
    lengths = [SHORT, SHORT + 3, *(n + SHORT for n in (fused.FEWEST_KEYS, window) if n and n + SHORT <= most)]
    generator = torch.Generator().manual_seed(0)
    tokens = min(1000, engine.base.embedding.weight.shape[0])
    texts = [torch.randint(0, tokens, (n,), generator=generator).tolist() for n in lengths]
    return [Encoded((tuple(text), (1, 2))) for text in texts]


def _key_values(engine: "Engine") -> KeyValue:
    base = engine.base
    generator = torch.Generator().manual_seed(1)
    shape = (base.layers, base.heads, PROMPT, base.head_size)
    keys, values = (torch.randn(shape, generator=generator).to(base.device).requires_grad_() for _ in range(2))
    return KeyValue(keys, values)


def _vectors(engine: "Engine") -> Embedded:
    base = engine.base
    drawn = torch.randn(PROMPT, base.hidden, generator=torch.Generator().manual_seed(1)) * base.table_rms
    return Embedded(drawn.to(base.device).requires_grad_())


def _ours(engine: "Engine", rows: list[Encoded], form: Form) -> Found:
    done = engine.forward(rows, [form], Tail([()] * len(rows)))
    places = torch.arange(len(rows), device=engine.base.device)
    states = done.at(places, (done.stream.ends - 1).to(engine.base.device))
    return states.detach(), _gradient(states, form)


def _stock(engine: "Engine", rows: list[Encoded], form: Form) -> Found:
    states = torch.stack([plain_states(engine.base, row, [form])[-1] for row in rows])
    return states.detach(), _gradient(states, form)


def _gradient(states: Tensor, form: Form) -> Tensor:
    weights = torch.linspace(-1, 1, states.shape[-1], device=states.device)
    leaves = [form.vectors] if isinstance(form, Embedded) else [form.keys, form.values]
    return torch.stack(torch.autograd.grad((states.float() @ weights).sum(), leaves))


@torch.no_grad()
def _logits(engine: "Engine", row: Encoded) -> tuple[Tensor, Tensor]:
    """Ours from vectors by the trunk's states, and the model's own from tokens: embeddings, caps, scales and biases must be
    the same."""
    base = engine.base
    ids = torch.tensor([row.segments[0]], device=base.device)
    with nullcontext() if engine.plain else stock_attention(base):
        whole = base.model(input_ids=ids, use_cache=False).logits[0].float()
        states = base.trunk(inputs_embeds=base.embed(ids), use_cache=False).last_hidden_state[0]
    return base.logits(states), whole


def _close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    return bool((found.float() - expected.float()).norm() <= tolerance * (expected.float().norm() + 1e-6))


def _name(engine: "Engine") -> str:
    import transformers

    base = engine.base
    where = f"{base.device.type} {torch.__version__} {transformers.__version__}"
    what = f"{VERSION} {base.fingerprint} {base.precision.name} {where}"
    return hashlib.sha256(what.encode()).hexdigest()[:32]
