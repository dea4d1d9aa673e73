import pytest
import torch

from epigraph.base.toy import toy_base
from epigraph.engine import Engine
from epigraph.errors import ConfigError
from epigraph.prompts import KINDS, Embedded, KeyValue, SoftPrompt
from epigraph.prompts.superpos import ROWS, SuperposPrompt
from epigraph.tasks.task import Task
from epigraph.tuning.start import make_prompt, start_text

TASK = Task.from_rows([f"text {i}" for i in range(8)], ["good", "bad"] * 4, template="{text}{prompt} is {prompt}\nLabel:")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(toy_base())


@pytest.mark.parametrize("start", ["text", "labels", "vocab", "random"])
@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if not kind.needs_query])
def test_every_block_gets_its_first_values(engine: Engine, kind: str, start: str) -> None:
    forms = make_prompt(engine, TASK, kind=kind, length=5, start=start, seed=0).fold()
    assert [form.length for form in forms] == [5, 5]
    assert {type(form) for form in forms} == {KINDS[kind].start_form}
    again = make_prompt(engine, TASK, kind=kind, length=5, start=start, seed=0).fold()
    other = make_prompt(engine, TASK, kind=kind, length=5, start=start, seed=7).fold()
    tensor = "keys" if KINDS[kind].start_form is KeyValue else "vectors"
    assert torch.equal(getattr(forms[0], tensor), getattr(again[0], tensor))
    drawn = start in ("vocab", "random")
    for different in (other[0], forms[1]):  # a network rounds what it is shifted by
        close = torch.allclose(getattr(forms[0], tensor), getattr(different, tensor), atol=1e-5)
        assert close is not drawn


def test_text_and_labels_are_embedded_words(engine: Engine) -> None:
    base = engine.base
    (form, _) = make_prompt(engine, TASK, kind="token", length=4, start="labels", seed=0).fold()
    assert isinstance(form, Embedded)
    torch.testing.assert_close(form.vectors, base.embed(torch.tensor(base.tokenize("bad,"))), atol=1e-6, rtol=1e-5)
    assert "bad, good" in start_text(TASK)


def test_from_another_prompt(engine: Engine) -> None:
    vectors = Embedded(torch.randn(3, engine.base.hidden))

    def start_from(form: Embedded | KeyValue, kind: str, length: int) -> Embedded | KeyValue:
        made = make_prompt(
            engine, TASK, kind=kind, length=length, start="prompt:x", seed=0, forms_of=lambda name: {"x": [form]}[name]
        )
        return made.fold()[1]

    token = start_from(vectors, "token", 3)
    assert isinstance(token, Embedded)
    torch.testing.assert_close(token.vectors, vectors.vectors)
    keys = start_from(vectors, "kv", 3)
    assert isinstance(keys, KeyValue)
    torch.testing.assert_close(keys.keys, engine.key_values(vectors).keys.detach())
    longer = start_from(vectors, "token", 7)
    assert isinstance(longer, Embedded)
    torch.testing.assert_close(longer.vectors[3:6], vectors.vectors)
    kept = start_from(keys, "kv", 3)
    assert isinstance(kept, KeyValue)
    torch.testing.assert_close(kept.values, keys.values)
    with pytest.raises(ConfigError, match=r"a token prompt cannot start from keys and values\. .*tune --kind kv"):
        start_from(keys, "token", 3)


def test_what_there_is_not(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="start prompt:x was asked, but there is no library"):
        make_prompt(engine, TASK, kind="kv", length=2, start="prompt:x", seed=0)
    written = Task.from_rows(["a", "b"], ["one two three four", "five six seven eight"], kind="generation")
    with pytest.raises(ConfigError, match="start 'labels' was asked, but the task has no labels"):
        make_prompt(engine, written, kind="kv", length=2, start="labels", seed=0)


def test_shared_blocks_have_the_same_vectors_and_the_parameters_of_one(engine: Engine) -> None:
    def made(*, share_blocks: bool) -> SoftPrompt:
        return make_prompt(engine, TASK, kind="kv", length=3, start="random", seed=0, share_blocks=share_blocks)

    shared, apart = made(share_blocks=True), made(share_blocks=False)
    first, second = shared.fold()
    assert isinstance(first, KeyValue)
    assert isinstance(second, KeyValue)
    assert torch.equal(first.keys, second.keys)
    assert 2 * shared.trained_parameters == apart.trained_parameters


def test_superpos_takes_rows_of_the_table(engine: Engine) -> None:
    prompt = make_prompt(engine, TASK, kind="superpos", length=3, start="text", seed=0)
    assert isinstance(prompt, SuperposPrompt)
    table = engine.base.embed(torch.arange(engine.base.embedding.weight.shape[0]))
    sampled = (prompt.rows * prompt.get_buffer("unit")).detach()[6:]
    assert len(sampled) == ROWS
    assert float(torch.cdist(sampled, table).min(1).values.max()) < 1e-3
