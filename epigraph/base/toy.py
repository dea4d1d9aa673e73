"""Tiny random bases with a byte tokenizer: for tests, and for trying things out in milliseconds.

Two layers, H = 16, every byte a token, so any text in any language can be encoded. Their answers mean nothing.
"""

from typing import Any

import torch

from epigraph.base.base import Base
from epigraph.base.load import wrap_model

ARCHITECTURES = ("llama", "qwen3", "gemma3", "mistral", "gpt2", "gpt_neox", "gemma2", "opt", "phi3", "cohere", "granite")
END = 256
BOS = 257
VOCABULARY = 260


def toy_base(architecture: str = "llama", *, seed: int = 0, bos: bool = False, hidden: int = 16, context: int = 512) -> Base:
    """A random base of this architecture; with ``bos`` its tokenizer begins every text with a special token."""
    torch.manual_seed(seed)
    model = _model(architecture, hidden, context)
    with torch.no_grad():  # far from uniform, so that a wrong mask shows
        for parameter in model.parameters():
            parameter.mul_(3.0) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    return wrap_model(model, toy_tokenizer(bos=bos), name=f"toy-{architecture}")


def toy_tokenizer(*, bos: bool = False) -> Any:
    """Bytes as tokens, one end token, and a beginning token if asked."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {char: i for i, char in enumerate(alphabet)} | {"<end>": END, "<begin>": BOS}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<begin> $A", special_tokens=[("<begin>", BOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", bos_token="<begin>" if bos else None
    )


def _model(architecture: str, hidden: int, context: int) -> Any:
    import transformers as t

    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": hidden // 4}
    sizes = {"vocab_size": VOCABULARY, "hidden_size": hidden, "num_hidden_layers": 2, "max_position_embeddings": context}
    common = sizes | heads | {"intermediate_size": 2 * hidden, "eos_token_id": END, "bos_token_id": BOS, "pad_token_id": END}
    window = {"sliding_window": 12}
    layered = window | {"layer_types": ["sliding_attention", "full_attention"]}
    scaled = {"query_pre_attn_scalar": hidden // 4}
    old = {k: v for k, v in common.items() if k not in ("num_key_value_heads", "head_dim")}
    builders = {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**common)),
        "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**common)),
        "gemma3": lambda: t.Gemma3ForCausalLM(t.Gemma3TextConfig(**common, **layered, **scaled)),
        "gemma2": lambda: t.Gemma2ForCausalLM(t.Gemma2Config(**common, **layered, **scaled)),
        "mistral": lambda: t.MistralForCausalLM(t.MistralConfig(**common, **window)),
        "phi3": lambda: t.Phi3ForCausalLM(t.Phi3Config(**{k: v for k, v in common.items() if k != "head_dim"})),
        "cohere": lambda: t.CohereForCausalLM(
            t.CohereConfig(**{k: v for k, v in common.items() if k != "head_dim"}, logit_scale=0.5)
        ),
        "granite": lambda: t.GraniteForCausalLM(
            t.GraniteConfig(**{k: v for k, v in common.items() if k != "head_dim"}, logits_scaling=2.0)
        ),
        "gpt_neox": lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**old)),
        "opt": lambda: t.OPTForCausalLM(
            t.OPTConfig(
                vocab_size=VOCABULARY,
                hidden_size=hidden,
                ffn_dim=2 * hidden,
                word_embed_proj_dim=hidden,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=context,
                eos_token_id=END,
                bos_token_id=BOS,
                pad_token_id=END,
            )
        ),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(
                vocab_size=VOCABULARY,
                n_embd=hidden,
                n_layer=2,
                n_head=4,
                n_positions=context,
                eos_token_id=END,
                bos_token_id=BOS,
            )
        ),
    }
    return builders[architecture]()
