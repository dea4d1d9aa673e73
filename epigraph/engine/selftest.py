"""The self-test at the first load of a base: does our attention give what the base's own gives?

    ‖engine − plain‖ / ‖plain‖ ≤ tolerance     for states, gradients and label logits; short texts and one beyond the window

An architecture whose attention does not go through transformers' interface would ignore the prompt without a word; it is
refused by name instead. A test that was passed is remembered by fingerprint, dtype and versions.
"""

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from epigraph.assets import home
from epigraph.engine.plain import plain_states, stock_attention
from epigraph.engine.stream import Tail
from epigraph.errors import Unsupported
from epigraph.prompts.form import KeyValue
from epigraph.tasks.encode import Encoded

if TYPE_CHECKING:
    from epigraph.engine.engine import Engine

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
PROMPT, SHORT, MOST_TOKENS = 3, 6, 4608
VERSION = 1


def check_base(engine: "Engine") -> None:
    """Raise Unsupported if the engine would get this base wrong; remember if it does not."""
    note = home() / "selftests" / _name(engine)
    if note.exists():
        return
    problem = find_problem(engine)
    if problem:
        kind = engine.base.config.model_type
        raise Unsupported(
            f"base {engine.base.name} (architecture {kind}) cannot be served: {problem}.",
            "Choose a base whose attention goes through transformers' interface, such as Llama, Qwen, Mistral, Gemma, GPT-2.",
        )
    note.parent.mkdir(parents=True, exist_ok=True)
    note.touch()


def find_problem(engine: "Engine") -> str:
    """What differs from the stock forward, in words; empty if nothing does."""
    base = engine.base
    try:
        rows = _rows(engine)
        forms = [_form(engine)]
        states, gradient = _ours(engine, rows, forms)
        expected, expected_gradient = _plain(engine, rows, forms)
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, AssertionError, IndexError) as error:
        return f"its forward pass does not take the engine's blocks ({type(error).__name__}: {str(error)[:200]})"
    tolerance = TOLERANCE[base.dtype]
    if not _close(states, expected, tolerance):
        return "states differ from those of its own attention"
    if not _close(gradient, expected_gradient, 4 * tolerance):
        return "gradients differ from those of its own attention"
    if not _close(*_logits(engine, rows[0]), tolerance):
        return "label logits differ from those of its own head"
    return ""


def _rows(engine: "Engine") -> list[Encoded]:
    """Two short texts and one that is longer than the sliding window, if the base has one that can be tested."""
    window = getattr(engine.base.config, "sliding_window", None) or 0
    lengths = [SHORT, SHORT + 3]
    if 0 < window + SHORT <= min(MOST_TOKENS, engine.base.context - PROMPT - 2):
        lengths.append(window + SHORT)
    generator = torch.Generator().manual_seed(0)
    tokens = min(1000, engine.base.embedding.weight.shape[0])
    texts = [torch.randint(0, tokens, (n,), generator=generator).tolist() for n in lengths]
    return [Encoded((tuple(text), (1, 2))) for text in texts]


def _form(engine: "Engine") -> KeyValue:
    base = engine.base
    generator = torch.Generator().manual_seed(1)
    shape = (base.layers, base.heads, PROMPT, base.head_size)
    keys, values = (torch.randn(shape, generator=generator).to(base.device).requires_grad_() for _ in range(2))
    return KeyValue(keys, values)


def _ours(engine: "Engine", rows: list[Encoded], forms: list[KeyValue]) -> tuple[Tensor, Tensor]:
    done = engine.forward(rows, forms, Tail([()] * len(rows)))
    places = torch.arange(len(rows), device=engine.base.device)
    states = done.at(places, (done.stream.ends - 1).to(engine.base.device))
    return states.detach(), _gradient(states, forms[0])


def _plain(engine: "Engine", rows: list[Encoded], forms: list[KeyValue]) -> tuple[Tensor, Tensor]:
    states = torch.stack([plain_states(engine.base, row, forms)[-1] for row in rows])
    return states.detach(), _gradient(states, forms[0])


def _gradient(states: Tensor, form: KeyValue) -> Tensor:
    weights = torch.linspace(-1, 1, states.shape[-1], device=states.device)
    keys, values = torch.autograd.grad((states.float() @ weights).sum(), [form.keys, form.values])
    return torch.stack([keys, values])


@torch.no_grad()
def _logits(engine: "Engine", row: Encoded) -> tuple[Tensor, Tensor]:
    """Ours from the trunk's states, and the model's own: caps, scales and biases must be the same."""
    base = engine.base
    ids = torch.tensor([row.segments[0]], device=base.device)
    with stock_attention(base):
        whole = base.model(input_ids=ids, use_cache=False).logits[0].float()
        states = base.trunk(input_ids=ids, use_cache=False).last_hidden_state[0]
    return base.logits(states), whole


def _close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    return bool((found.float() - expected.float()).norm() <= tolerance * (expected.float().norm() + 1e-6))


def _name(engine: "Engine") -> str:
    import transformers

    what = f"{VERSION} {engine.base.fingerprint} {engine.base.precision.name} {torch.__version__} {transformers.__version__}"
    return hashlib.sha256(what.encode()).hexdigest()[:32]
