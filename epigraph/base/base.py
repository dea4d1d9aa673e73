"""The frozen pretrained causal language model with its tokenizer: what all prompts stand on.

    hidden = trunk(embeddings)          [B, T, H]
    logits = scale · cap(hidden · Wᵀ + b)   only the rows asked for, on flattened positions [N, H]

Weights never change: every parameter is frozen, dropout is off, and ``weights_hash`` proves it.
"""

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from epigraph.base.precision import Precision
from epigraph.errors import Unsupported

CHAT_MARK = "⟦the message⟧"  # stands for the user's message while the chat format is asked for
SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")  # Gemma, RecurrentGemma, xLSTM


@dataclass(frozen=True, eq=False)
class Base:
    """A frozen base. Made by ``load_base``; ``path`` is a folder that stock ``transformers`` loads, None for a toy."""

    name: str
    model: Any
    tokenizer: Any
    fingerprint: str
    precision: Precision
    path: Path | None = None

    def __deepcopy__(self, memo: object) -> "Base":
        """Itself: it never changes, and a copy of an estimator or a task shall share its weights and frozen states."""
        return self

    @property
    def config(self) -> Any:
        """The text model's configuration."""
        return self.model.config.get_text_config()

    @cached_property
    def trunk(self) -> nn.Module:
        """The decoder without its head."""
        trunk: nn.Module = self.model.get_decoder() if hasattr(self.model, "get_decoder") else self.model.base_model
        return trunk

    def past(self, cache: Any) -> dict[str, Any]:
        """How the trunk is handed a cache: the argument's name changed in transformers 5.24."""
        known = inspect.signature(self.trunk.forward).parameters
        return {"cache" if "cache" in known else "past_key_values": cache}

    @cached_property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.embedding.weight.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights and of everything computed with them."""
        return self.precision.dtype

    @cached_property
    def parameters(self) -> int:
        """How many numbers its weights are."""
        return sum(p.numel() for p in self.model.parameters())

    def in_fp32(self) -> "Base":
        """A copy of the same base that computes in fp32; itself where it does already."""
        if self.dtype == torch.float32:
            return self
        precision = Precision(torch.float32, "what rounding does is to be seen, or kept out")
        return replace(self, model=copy.deepcopy(self.model).float(), precision=precision)

    @cached_property
    def embedding(self) -> Any:
        """The embedding module (some families scale inside it, so tokens always pass through it)."""
        return self.model.get_input_embeddings()

    @cached_property
    def hidden(self) -> int:
        """H, the hidden size."""
        return int(self.embedding.weight.shape[1])

    @property
    def layers(self) -> int:
        """L, the number of layers."""
        return int(self.config.num_hidden_layers)

    @property
    def heads(self) -> int:
        """A, the number of key/value heads; 0 for a base without attention."""
        return int(
            getattr(self.config, "num_key_value_heads", None) or getattr(self.config, "num_attention_heads", None) or 0
        )

    @property
    def groups(self) -> int:
        """G, query heads per key/value head."""
        return int(self.config.num_attention_heads) // self.heads if self.heads else 0

    @property
    def head_size(self) -> int:
        """D, the size of a head."""
        if not self.heads:
            return 0
        return int(getattr(self.config, "head_dim", None) or self.hidden // int(self.config.num_attention_heads))

    @property
    def context(self) -> int:
        """The longest sequence in tokens."""
        return int(getattr(self.config, "max_position_embeddings", None) or 2048)

    @cached_property
    def bos(self) -> int | None:
        """The token that the tokenizer puts at the head of a text, if it does."""
        with_special = self.tokenizer("a").input_ids
        first = self.tokenizer.bos_token_id
        return int(first) if first is not None and with_special[:1] == [first] else None

    @cached_property
    def end(self) -> int:
        """The token that ends an answer."""
        end = self.tokenizer.eos_token_id
        return int(end if end is not None else self.tokenizer("\n", add_special_tokens=False).input_ids[-1])

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, nothing added."""
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids) if text else []

    def tokenize_plainly(self, text: str) -> list[int]:
        """Token ids of what a user wrote: nothing in it is a special token, whatever it looks like."""
        if not text:
            return []
        return list(
            self._plain_tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False).input_ids
        )

    @cached_property
    def _plain_tokenizer(self) -> Any:
        """One of its own: whether special tokens are split is a switch inside a tokenizer, which all threads would share."""
        return copy.deepcopy(self.tokenizer)

    @cached_property
    def special(self) -> frozenset[int]:
        """The special tokens: beginnings, ends, turns of a chat."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        return frozenset([*self.tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)])

    def chat_frame(self, earlier: Sequence[Mapping[str, str]] = ()) -> tuple[str, str]:
        """What the tokenizer's own chat format writes before a user's message, and between it and the answer.

        ``earlier`` are messages said before it, with ``role`` and ``content``. Unsupported if the tokenizer has no such
        format, or one that does not hold the message as it is or refuses the earlier ones.
        """
        return self._framed(earlier) if earlier else self._chat_frame

    @cached_property
    def _chat_frame(self) -> tuple[str, str]:
        return self._framed(())

    def _framed(self, earlier: Sequence[Mapping[str, str]]) -> tuple[str, str]:
        way_out = "Leave chat out of the task, or choose an instruction-tuned base."
        if not getattr(self.tokenizer, "chat_template", None):
            raise Unsupported(f"chat = true was asked, but the tokenizer of {self.name} has no chat template.", way_out)
        messages = [*map(dict, earlier), {"role": "user", "content": CHAT_MARK}]
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        except Exception as error:  # a template is a program of the tokenizer's author: it may raise anything
            raise Unsupported(
                f"chat = true was asked, but the chat template of {self.name} does not take these messages: {error}.",
                way_out,
            ) from error
        parts = str(text).split(CHAT_MARK)
        if len(parts) != 2:
            raise Unsupported(f"the chat template of {self.name} does not hold a message once, as it is.", way_out)
        return parts[0], parts[1]

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    @torch.no_grad()
    def embed(self, ids: Int[Tensor, "*T"]) -> Float[Tensor, "*T H"]:
        """Embedded tokens, as the first layer reads them."""
        embedded: Tensor = self.embedding(ids.to(self.device))
        return embedded

    @cached_property
    def table_rms(self) -> float:
        """Root mean square of the embedding table's entries as the first layer reads them."""
        some = torch.arange(0, self.embedding.weight.shape[0], max(1, self.embedding.weight.shape[0] // 4096))
        return float(self.embed(some).float().pow(2).mean().sqrt())

    @cached_property
    def head(self) -> Any:
        """The module that turns hidden states into logits."""
        return self.model.get_output_embeddings()

    def head_rows(self, tokens: Sequence[int]) -> Float[Tensor, "R H"]:
        """The head's rows for these tokens, copied once so that a step multiplies by nothing else."""
        rows: Tensor = self.head.weight[torch.tensor(list(tokens), device=self.device)].detach()
        return rows

    def logits(
        self, hidden: Float[Tensor, "N H"], tokens: Sequence[int] | None = None, rows: Float[Tensor, "R H"] | None = None
    ) -> Float[Tensor, "N R"]:
        """fp32 logits at N positions, for all of V or for ``tokens`` only (``rows`` are their ``head_rows``).

        Those of a few tokens are computed in fp32 from the base's states: rounded to bfloat16, logits of 16 to 32 stand in steps of
        1/8, so that labels tie and the first of them is the answer.
        """
        if tokens is None:
            found = nn.functional.linear(hidden, self.head.weight).float()
        else:
            weight = self.head_rows(tokens) if rows is None else rows
            with torch.autocast(self.device.type, enabled=False):  # of a rival that trains a stock model
                found = nn.functional.linear(hidden.float(), weight.float())
        bias = getattr(self.head, "bias", None)
        if bias is not None:
            found = found + (bias if tokens is None else bias[torch.tensor(list(tokens), device=self.device)]).float()
        return self._shape_logits(found)

    def _shape_logits(self, logits: Float[Tensor, "N R"]) -> Float[Tensor, "N R"]:
        scale = getattr(self.config, "logit_scale", None)
        divisor = getattr(self.config, "logits_scaling", None)
        cap = next((found for name in SOFT_CAPS if (found := getattr(self.config, name, None)) is not None), None)
        if scale is not None:
            logits = logits * scale
        if divisor is not None:
            logits = logits / divisor
        return logits if cap is None else torch.tanh(logits / cap) * cap
