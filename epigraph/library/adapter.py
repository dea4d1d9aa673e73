"""A prompt in PEFT's format: two files, one tensor.

    adapter_config.json         what PEFT needs to build the prompt
    adapter_model.safetensors   ``prompt_embeddings``
                                PROMPT_TUNING [P, H];  PREFIX_TUNING [P, L*2*A*D], a row is [L, (key, value), A, D]

Source: PEFT 0.21, ``PeftModel.get_prompt`` and ``get_prompt_embedding_to_save``, https://github.com/huggingface/peft.
"""

import json

from jaxtyping import Float
from torch import Tensor, stack

from epigraph.library.card import BaseFacts
from epigraph.library.tensors import encode
from epigraph.prompts.form import Embedded, Form, KeyValue

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
TENSOR = "prompt_embeddings"


def adapter_files(form: Form, base: BaseFacts, base_path: str = "") -> dict[str, bytes]:
    """PEFT's two files for one block; ``base_path`` stands in the config instead of the base's name, where given."""
    own = _prefix_tuning(form, base) if isinstance(form, KeyValue) else _prompt_tuning(base)
    config = {
        "auto_mapping": None,
        "base_model_name_or_path": base_path or base.name,
        "inference_mode": True,
        "modules_to_save": None,
        "num_layers": base.layers,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": form.length,
        "revision": None,
        "task_type": "CAUSAL_LM",
    }
    rows = flatten(form) if isinstance(form, KeyValue) else form.vectors
    return {
        CONFIG: json.dumps({**config, **own}, indent=2, sort_keys=True).encode(),
        WEIGHTS: encode({TENSOR: rows}, {"format": "pt"}),
    }


def _prompt_tuning(base: BaseFacts) -> dict[str, object]:
    return {
        "num_attention_heads": None,  # not used; PEFT fills it in
        "peft_type": "PROMPT_TUNING",
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "token_dim": base.hidden,
        "tokenizer_kwargs": None,
        "tokenizer_name_or_path": None,
    }


def _prefix_tuning(form: KeyValue, base: BaseFacts) -> dict[str, object]:
    kv_size = form.keys.shape[1] * form.keys.shape[3]
    return {
        "encoder_hidden_size": kv_size,
        "num_attention_heads": base.kv_heads,
        "peft_type": "PREFIX_TUNING",
        "prefix_projection": False,
        "token_dim": kv_size,
    }


def flatten(form: KeyValue) -> Float[Tensor, "P columns"]:
    """PEFT's rows for keys and values."""
    both = stack([form.keys, form.values], dim=1)  # [L, 2, A, P, D]
    return both.permute(3, 0, 1, 2, 4).flatten(1)  # [P, L*2*A*D]


def unflatten(rows: Float[Tensor, "P columns"], base: BaseFacts) -> KeyValue:
    """The inverse of ``flatten``."""
    both = rows.view(len(rows), base.layers, 2, base.kv_heads, base.head_size)  # [P, L, 2, A, D]
    keys, values = both.permute(2, 1, 3, 0, 4)  # [L, A, P, D] each
    return KeyValue(keys.contiguous(), values.contiguous())


def as_form(rows: Float[Tensor, "P columns"], base: BaseFacts, by_layer: bool) -> Form:
    """The block that PEFT's rows stand for; ``by_layer`` where they are keys and values."""
    return unflatten(rows, base) if by_layer else Embedded(rows.contiguous())
