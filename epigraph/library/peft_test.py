"""Against the real PEFT, on tiny random bases."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from epigraph.errors import BaseMismatch, Corrupt, NotFound, Unsupported
from epigraph.library.card import BaseFacts, Card
from epigraph.library.folder import StoredPrompt, read_prompt, write_prompt
from epigraph.library.peft import export_peft, import_peft
from epigraph.library.toys_test import OTHER, toy_card
from epigraph.prompts.form import Embedded, KeyValue

# PEFT 0.21 asks a transformers 5.23 model for an attribute by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

IDS = torch.tensor([[3, 7, 1, 9, 4], [2, 2, 8, 30, 49]])


def llama() -> tuple[PreTrainedModel, BaseFacts]:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    facts = BaseFacts(name="tiny-llama", fingerprint="ab" * 32, hidden=16, layers=2, kv_heads=2, head_size=4)
    return LlamaForCausalLM(config).eval(), facts


def gpt2() -> tuple[PreTrainedModel, BaseFacts]:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=4, n_positions=64)
    facts = BaseFacts(name="tiny-gpt2", fingerprint="cd" * 32, hidden=16, layers=2, kv_heads=4, head_size=4)
    return GPT2LMHeadModel(config).eval(), facts


both_bases = pytest.mark.parametrize("make", [llama, gpt2])


def block(facts: BaseFacts, by_layer: bool) -> Embedded | KeyValue:
    torch.manual_seed(1)
    if not by_layer:
        return Embedded(torch.randn(3, facts.hidden))
    shape = (facts.layers, facts.kv_heads, 3, facts.head_size)
    return KeyValue(torch.randn(shape), torch.randn(shape))


@torch.no_grad()
def reference(model: PreTrainedModel, form: Embedded | KeyValue) -> torch.Tensor:
    """Logits of the stock model for IDS after the prompt."""
    if isinstance(form, Embedded):
        own = model.get_input_embeddings()(IDS)
        return model(inputs_embeds=torch.cat([form.vectors.expand(len(IDS), -1, -1), own], dim=1)).logits[:, form.length :]
    cache = DynamicCache()
    for layer in range(form.keys.shape[0]):
        cache.update(form.keys[layer].expand(len(IDS), -1, -1, -1), form.values[layer].expand(len(IDS), -1, -1, -1), layer)
    return model(input_ids=IDS, past_key_values=cache).logits


def card_for(facts: BaseFacts, **changes: Any) -> Card:
    return toy_card(**{"base": facts, "portable": True, "place": "first", **changes})


@both_bases
@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize("stored", [False, True])
def test_peft_loads_what_we_write_and_computes_the_same(
    tmp_path: Path, make: Callable[[], tuple[PreTrainedModel, BaseFacts]], by_layer: bool, stored: bool
) -> None:
    model, facts = make()
    form = block(facts, by_layer)
    expected = reference(model, form)
    card = write_prompt(tmp_path / "p", [form], card_for(facts))
    folder = tmp_path / "p" if stored else export_peft(read_prompt(tmp_path / "p"), tmp_path / "adapter", "some/base")
    wrapped = peft.PeftModel.from_pretrained(model, str(folder)).eval()
    with torch.no_grad():
        found = wrapped(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits[:, -IDS.shape[1] :]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (reference(model, block(facts, by_layer)) - model(input_ids=IDS).logits).abs().max() > 1e-3
    assert wrapped.peft_config["default"].base_model_name_or_path == (card.base.name if stored else "some/base")


CONFIGS: list[tuple[str, dict[str, Any], bool]] = [
    ("PromptTuningConfig", {"num_virtual_tokens": 3}, False),
    ("PromptEncoderConfig", {"num_virtual_tokens": 3, "encoder_hidden_size": 8}, False),
    ("CPTConfig", {"cpt_token_ids": [4, 5, 6], "cpt_mask": [1, 1, 1], "cpt_tokens_type_mask": [1, 2, 3]}, False),
    ("PrefixTuningConfig", {"num_virtual_tokens": 3}, True),
    ("PrefixTuningConfig", {"num_virtual_tokens": 3, "prefix_projection": True, "encoder_hidden_size": 8}, True),
    ("CartridgeConfig", {"num_virtual_tokens": 3, "num_frozen_tokens": 1}, True),
]


@both_bases
@pytest.mark.parametrize(("name", "options", "by_layer"), CONFIGS)
def test_what_peft_saves_comes_in_and_computes_the_same(
    tmp_path: Path, make: Callable[[], tuple[PreTrainedModel, BaseFacts]], name: str, options: dict[str, Any], by_layer: bool
) -> None:
    model, facts = make()
    wrapped = peft.get_peft_model(model, getattr(peft, name)(task_type="CAUSAL_LM", **options)).eval()
    wrapped.save_pretrained(tmp_path / "adapter")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")["prompt_embeddings"]
    (form,), fields = import_peft(tmp_path / "adapter", facts)
    if isinstance(form, Embedded):
        assert torch.equal(form.vectors, saved)
    else:
        assert torch.equal(form.keys[1, 0, 2], saved[2].view(4, facts.kv_heads, facts.head_size)[2, 0])
        assert torch.equal(form.values[1, 0, 2], saved[2].view(4, facts.kv_heads, facts.head_size)[3, 0])
    assert isinstance(form, KeyValue) is by_layer
    with torch.no_grad():
        theirs = wrapped(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits[:, -IDS.shape[1] :]
    torch.testing.assert_close(reference(model, form), theirs, atol=1e-4, rtol=0)

    card = write_prompt(tmp_path / "p", [form], Card(name="imported", **fields))
    assert card.base.fingerprint == facts.fingerprint
    assert not card.base.verified
    assert card.lineage.parents == ("peft:adapter",)
    assert card.portable


def test_what_peft_cannot_express_stays(tmp_path: Path) -> None:
    _, facts = llama()
    form = block(facts, by_layer=False)
    last = StoredPrompt(card=card_for(facts, portable=False, place="last"), forms=[form])
    with pytest.raises(
        Unsupported, match=r"does not stand before every token, and PEFT always puts .* first\. `epigraph tune --portable`"
    ):
        export_peft(last, tmp_path / "a")
    with pytest.raises(Unsupported, match="has 2 blocks"):
        export_peft(StoredPrompt(card=card_for(facts), forms=[form, form]), tmp_path / "a")
    with pytest.raises(Unsupported, match="has no vector"):
        export_peft(StoredPrompt(card=card_for(facts), forms=[Embedded(torch.zeros(0, 16))]), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def adapter(tmp_path: Path, tensors: dict[str, torch.Tensor] | None = None, **changes: Any) -> Path:
    """An adapter folder that differs in the given settings from one we write."""
    _, facts = llama()
    write_prompt(tmp_path / "p", [block(facts, by_layer=False)], card_for(facts))
    folder = export_peft(read_prompt(tmp_path / "p"), tmp_path / "adapter")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    if tensors is not None:
        save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"peft_type": "LORA"}, Unsupported, "holds a LORA adapter; the library keeps prompts only"),
        ({"peft_type": "MULTITASK_PROMPT_TUNING"}, Unsupported, "holds a MULTITASK_PROMPT_TUNING adapter"),
        ({"peft_type": None}, Corrupt, "names no peft_type"),
        ({"num_transformer_submodules": 2}, Unsupported, r"encoder-decoder model \(2 submodules\)"),
        ({"task_type": "SEQ_CLS"}, Unsupported, "tuned for task type SEQ_CLS, not CAUSAL_LM"),
        ({"num_virtual_tokens": 9}, Corrupt, r"of shape \[3, 16\]; its config says 9 vectors"),
        ({"num_layers": 30}, BaseMismatch, "16 columns, num_layers 30; base tiny-llama"),
        (
            {"tensors": {"prompt_embeddings": torch.zeros(3, 8)}},
            BaseMismatch,
            r"8 columns; base tiny-llama \(H=16\) needs 16 columns",
        ),
        ({"tensors": {"prompt_embeddings": torch.full((3, 16), torch.nan)}}, Corrupt, "prompt_embeddings is not finite"),
        (
            {"tensors": {"prompt_embeddings": torch.zeros(3, 16), "base_model.score.weight": torch.zeros(2)}},
            Unsupported,
            "score",
        ),
        ({"tensors": {"prompt_embeddings": torch.zeros(3, 16, dtype=torch.int64)}}, Corrupt, r"torch\.int64"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        import_peft(adapter(tmp_path, **changes), llama()[1])


def test_a_prefix_for_another_base_is_refused(tmp_path: Path) -> None:
    _, facts = gpt2()
    write_prompt(tmp_path / "p", [block(facts, by_layer=True)], card_for(facts))
    with pytest.raises(BaseMismatch, match=r"64 columns, .*; base tiny-llama \(L=2, A=2, D=4\) needs 32 columns"):
        import_peft(tmp_path / "p", llama()[1])
    with pytest.raises(BaseMismatch, match="base other"):
        import_peft(tmp_path / "p", OTHER)


def test_an_adapter_in_half_precision_becomes_fp32(tmp_path: Path) -> None:
    vectors = torch.randn(3, 16).bfloat16()
    (form,), _ = import_peft(adapter(tmp_path, {"prompt_embeddings": vectors}), llama()[1])
    assert isinstance(form, Embedded)
    assert torch.equal(form.vectors, vectors.float())


def test_a_pickled_adapter_is_never_opened(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    weights = folder / "adapter_model.safetensors"
    weights.rename(folder / "adapter_model.bin")
    with pytest.raises(
        Corrupt, match=r"a pickle\. A pickle is never opened.*save_pretrained\(folder, safe_serialization=True\)"
    ):
        import_peft(folder, llama()[1])
    weights.write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(Corrupt, match="is a pickle or a zip"):
        import_peft(folder, llama()[1])


def test_what_is_no_adapter_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no folder"):
        import_peft(tmp_path / "none", llama()[1])
    with pytest.raises(NotFound, match=r"holds no adapter_config\.json"):
        import_peft(tmp_path, llama()[1])
    (tmp_path / "adapter_config.json").write_text("[" * 100_000)
    with pytest.raises(Corrupt, match="not readable as JSON"):
        import_peft(tmp_path, llama()[1])
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING"}')
    with pytest.raises(NotFound, match=r"holds no adapter_model\.safetensors"):
        import_peft(tmp_path, llama()[1])
