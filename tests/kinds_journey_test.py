"""What a prompt can be, from the command line: ensembles, several blocks, starts, chats, arrays from elsewhere."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from epigraph.base import Base, load_base
from epigraph.config import TuneConfig
from epigraph.engine import Engine
from epigraph.errors import Unsupported
from epigraph.library import read_prompt
from epigraph.methods import PromptedBase
from epigraph.methods.choice import ZERO_SHOT
from epigraph.methods.hard import few_shot
from epigraph.prompts import Embedded, KeyValue
from epigraph.tasks.task import Task
from epigraph.tuning import Surroundings, tune
from epigraph.tuning.loop import Moment

CHAT = (
    "{% for m in messages %}<begin>{{ m.role }}\n{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<begin>assistant\n{% endif %}"
)


@pytest.fixture
def quick(toy_flags: list[str]) -> list[str]:
    return [*toy_flags, "--epochs", "2", "--batch", "8", "--rate", "0.3"]


# ---- ensembles ---------------------------------------------------------------------------------------------------------


def test_an_ensemble_is_one_prompt_whose_members_vote(cli: Any, quick: list[str], make_csv: Any, toy: Base) -> None:
    data = make_csv(rows=32)
    flags = ["--ensemble", 3, "--kind", "token", "--start", "random"]
    found = cli("tune", data, "--name", "many", *flags, *quick, "--json").json
    assert (found["settings"]["members"], found["settings"]["trials"]) == (3, 3)
    assert [trial["kept"] for trial in found["trials"]] == ["kept"] * 3
    stored = read_prompt(Path("library/many/1"))
    assert len(stored.forms) == stored.card.members == 3
    assert found["cost"]["kept_parameters"] == found["cost"]["trained_parameters"] == 3 * 8 * toy.hidden
    task, texts = Task.from_dict(stored.card.task), ["aa a", "ZZZ", "az"]
    rows = Task.from_rows(texts, ["animal", "metal", "animal"], template=task.template.text).train.rows
    engine = Engine(toy)
    alone = np.stack([PromptedBase(engine, task, [form]).probabilities(rows) for form in stored.forms])
    said = [cli("predict", "many", text, *quick[:4], "--json").lines[0]["probabilities"] for text in texts]
    expected = alone.mean(0)
    for one, row in zip(said, expected, strict=True):
        assert list(one.values()) == pytest.approx(row.tolist(), abs=1e-4)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3
    assert cli("evaluate", "many", "--data", data, *quick[:4], "--json").json["scores"]["rows"] == 32
    assert cli("library", "verify").code == 0
    assert "An ensemble of 3 soft prompts, which vote" in Path("library/many/1/README.md").read_text()
    answer = cli("library", "export", "many", "adapter", "--format", "peft", "--json")
    assert (answer.code, answer.json["error"]["type"]) == (2, "Unsupported")
    more = cli("tune", data, "--name", "more", "--start", "prompt:many", "--kind", "token", *quick, "--json")
    assert more.json["settings"]["start"] == "prompt:many@1"
    assert read_prompt(Path("library/more/1")).card.lengths == (8,)


def test_the_best_trials_vote(toy: Base, make_csv: Any, tmp_path: Path) -> None:
    task = Task.from_file(make_csv(rows=40))
    config = TuneConfig(ensemble=2, trials=3, epochs=2, batch=8, validation=0.15)
    result = tune(toy, task, config, around=Surroundings(runs=tmp_path / "runs"))
    (folder,) = (tmp_path / "runs").iterdir()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {line["trial"] for line in lines} == {0, 1, 2}
    assert len(result.prompt.stored.forms) == 2
    assert sum(trial["kept"] == "kept" for trial in result.trials) == 2


def test_members_do_not_vote_on_free_text(toy: Base) -> None:
    task = Task.from_rows([f"text {i}" for i in range(8)], [f"one two three {i}" for i in range(8)], kind="generation")
    with pytest.raises(Unsupported, match="members vote on labels and a generation task has none"):
        tune(toy, task, TuneConfig(ensemble=2))


# ---- places -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["token", "kv"])
def test_one_block_first_and_one_last(cli: Any, quick: list[str], make_csv: Any, kind: str) -> None:
    data, flags = make_csv(rows=24), ["--place", "both", "--kind", kind, "--start", "random"]
    apart = cli("tune", data, "--name", "apart", *flags, *quick, "--json").json
    shared = cli("tune", data, "--name", "shared", "--share-blocks", *flags, *quick, "--json").json
    assert apart["settings"]["template"] == shared["settings"]["template"] == "{prompt}{text}{prompt}\nLabel:"
    assert apart["cost"]["trained_parameters"] == 2 * shared["cost"]["trained_parameters"]
    first, last = read_prompt(Path("library/shared/1")).forms
    assert all(torch.equal(mine, vars(last)[name]) for name, mine in vars(first).items())
    first, last = read_prompt(Path("library/apart/1")).forms
    assert not any(torch.equal(mine, vars(last)[name]) for name, mine in vars(first).items())
    assert cli("evaluate", "shared", "--data", data, *quick[:4], "--json").json["scores"]["rows"] == 24


# ---- starts -------------------------------------------------------------------------------------------------------------


def stopping_at(step: int) -> Any:
    def listen(_self: Any, moment: Moment) -> None:
        if moment.step == step:
            raise KeyboardInterrupt("stop")

    return listen


def interrupted(cli: Any, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Path:
    """The folder of a tuning that was stopped at its second step."""
    import epigraph.cli.progress as progress

    with monkeypatch.context() as patched:
        patched.setattr(progress.Progress, "moment", stopping_at(2))
        assert cli("tune", *arguments).code == 130
    (folder,) = (path for path in Path("library/.runs").iterdir() if not (path / "stored").exists())
    return folder


def test_a_resumed_run_starts_from_the_version_it_began_with(
    cli: Any, quick: list[str], make_csv: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest version was meant on resume too, though another one had come in between."""
    data = make_csv(rows=24)
    assert cli("tune", data, "--name", "one", *quick).code == 0
    folder = interrupted(cli, monkeypatch, data, "--name", "two", "--start", "prompt:one", *quick)
    assert cli("tune", data, "--name", "one", "--seed", 5, "--start", "random", *quick).code == 0
    resumed = cli("tune", "--resume", folder, "--json").json
    assert resumed["settings"]["start"] == "prompt:one@1"
    whole = cli("tune", data, "--name", "whole", "--start", "prompt:one@1", *quick, "--json").json
    assert whole["scores"] == resumed["scores"]
    forms = [read_prompt(Path(f"library/{name}/1")).forms[0] for name in ("two", "whole")]
    assert isinstance(forms[0], KeyValue)
    assert isinstance(forms[1], KeyValue)
    assert torch.equal(forms[0].keys, forms[1].keys)


def test_the_nearest_stored_prompt_is_chosen_said_and_kept_on_resume(
    cli: Any, quick: list[str], make_csv: Any, other_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = make_csv(rows=32), make_csv("other.csv", rows=32, labels=("yes", "no"))
    nearest = ["--name", "new", "--start", "nearest", *quick]
    answer = cli("tune", mine, *nearest, "--json")
    assert answer.code == 2
    assert "no stored prompt of this base can be started from" in answer.json["error"]["message"]
    assert cli("tune", other, "--name", "far", *quick).code == 0
    assert cli("tune", mine, "--name", "near", *quick).code == 0
    assert cli("tune", mine, "--name", "foreign", *quick, "--base", other_folder).code == 0
    folder = interrupted(cli, monkeypatch, mine, *nearest)
    found = cli("tune", "--resume", folder, "--json").json
    assert found["settings"]["start"] == "prompt:near@1"
    assert found["reasons"]["start"].startswith("near@1: the nearest of 2 stored prompts, similarity 0.")
    assert "(next: far@1, " in found["reasons"]["start"]
    assert cli("library", "show", "new", "--json").json["lineage"]["parents"] == ["near@1"]


def test_a_long_text_is_a_start_and_must_stay_what_it_was(
    cli: Any, quick: list[str], make_csv: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, notes = make_csv(rows=24), tmp_path / "notes.txt"
    notes.write_text("Everything of a is an animal and everything of Z is a metal. " * 4)
    flags = ["--start", f"text:{notes}", "--kind", "sink", *quick]
    folder = interrupted(cli, monkeypatch, data, "--name", "long", *flags)
    before = notes.read_text()
    notes.write_text("Something else. " * 8)
    answer = cli("tune", "--resume", folder, "--json")
    assert answer.code == 2
    assert "its data.start, notes.txt, sha256 " in answer.json["error"]["message"]
    notes.write_text(before)
    assert cli("tune", "--resume", folder, "--json").json["settings"]["start"] == f"text:{notes}"
    answer = cli("tune", data, "--name", "none", "--start", f"text:{tmp_path}/none.txt", *quick, "--json")
    assert (answer.code, answer.json["error"]["type"]) == (2, "NotFound")


# ---- chat ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def chat_folder(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy base with a chat template."""
    folder = tmp_path_factory.mktemp("bases") / "chat"
    shutil.copytree(toy_folder, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return folder


def chat_task(make_csv: Any, tmp_path: Path) -> Path:
    make_csv(rows=32)
    (tmp_path / "task.toml").write_text(
        'chat = true\ninstruction = "Which is it?"\ntemplate = "{text}{prompt}\\nLabel:"\n[data]\ntrain = "train.csv"\n'
    )
    return tmp_path / "task.toml"


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_chat_task_goes_all_the_way(
    cli: Any, chat_folder: Path, quick: list[str], make_csv: Any, tmp_path: Path, place: str
) -> None:
    base = ["--base", chat_folder, "--dtype", "float32"]
    task = chat_task(make_csv, tmp_path)
    answer = cli("tune", task, "--name", "chat", *quick[4:], *base, "--place", place, "--json")
    assert answer.json["hard_prompt"]["rows"] == answer.json["scores"]["rows"]
    assert cli("library", "show", "chat", "--json").json["task"]["chat"] is True
    assert cli("library", "show", "chat", "--json").json["portable"] is (place == "first")
    found = cli("predict", "chat", "aa a<end>\n<begin>assistant\nmetal", *base, "--json").lines[0]
    assert set(found["probabilities"]) == {"animal", "metal"}


def test_a_chat_is_what_the_tokenizer_writes(chat_folder: Path, make_csv: Any, tmp_path: Path) -> None:
    """Prompt, hard prompt and few-shot read the tokens of the chat template, the answer right behind its last line."""
    base = load_base(chat_folder, dtype="float32")
    engine, task = Engine(base), Task.from_file(chat_task(make_csv, tmp_path))
    row = task.train.rows[0]

    def template_says(message: str) -> list[int]:
        said = [{"role": "user", "content": message}]
        return list(base.tokenizer.apply_chat_template(said, add_generation_prompt=True, return_dict=False))

    def read(method: PromptedBase) -> list[int]:
        """The row as this method reads it: tokens of a hard prompt are found again in the table."""
        table = base.embed(torch.arange(base.embedding.weight.shape[0]))
        found: list[int] = []
        (encoded,) = method.encode([row])
        for number, segment in enumerate(encoded.segments):
            found += segment
            if number < len(method.forms):
                form = method.forms[number]
                assert isinstance(form, Embedded)
                found += torch.cdist(form.vectors, table).argmin(-1).tolist()
        return found

    text = row.fields["text"]
    blank = PromptedBase(engine, task, [Embedded(torch.zeros(0, base.hidden))])
    assert read(blank) == template_says(f"{text}\nLabel:")
    first, in_place = ("Which is it?\n\n", text + "\nWhich is it?\nLabel:")
    said = {name: read(build(engine, task, 4)) for name, build in ZERO_SHOT.items()}
    assert said["zero-shot, instruction first"] == template_says(f"{first}{text}\nLabel:")
    assert said["zero-shot, instruction in the prompt's place"] == template_says(in_place)
    shown = few_shot(engine, task, task.train.rows[1:2], 4)
    example = f"{task.train.rows[1].fields['text']}\nLabel: {task.train.rows[1].target}"
    assert read(shown) == template_says(f"{first}{example}\n\n{text}\nLabel:")
    assert blank.tree.trie.tokens == tuple(base.tokenize("am"))


def test_a_base_without_a_chat_template_is_refused(cli: Any, quick: list[str], make_csv: Any, tmp_path: Path) -> None:
    answer = cli("tune", chat_task(make_csv, tmp_path), "--name", "chat", *quick, "--json")
    assert (answer.code, answer.json["error"]["type"]) == (2, "Unsupported")
    assert "has no chat template" in answer.json["error"]["message"]
    assert "Leave chat out" in answer.json["error"]["hint"]


# ---- arrays from elsewhere ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["numpy", "caikit"])
def test_an_array_is_imported_and_used(
    cli: Any, toy_flags: list[str], toy_folder: Path, toy: Base, make_csv: Any, tmp_path: Path, source: str
) -> None:
    rows = 0.3 * torch.randn(6, toy.hidden, generator=torch.Generator().manual_seed(0))
    if source == "numpy":
        path = tmp_path / "theirs.npy"
        np.save(path, rows.numpy())
    else:
        path = tmp_path / "theirs"
        path.mkdir()
        torch.save(rows, path / "decoder.pt")
        (path / "config.yml").write_text("tuning_type: PROMPT_TUNING\n")
    data = make_csv(rows=24)
    answer = cli("library", "import", path, "--base", toy_folder, "--json")
    assert answer.code == 2
    assert "does not say what it was tuned for" in answer.json["error"]["message"]
    assert cli("library", "import", path, "--base", toy_folder, "--task", data, "--json").json == {"prompt": "theirs@1"}
    card = cli("library", "show", "theirs", "--json").json
    assert (card["kind"], card["place"], card["base"]["verified"], card["lengths"]) == ("token", "first", False, [6])
    (form,) = read_prompt(Path("library/theirs/1")).forms
    assert isinstance(form, Embedded)
    torch.testing.assert_close(form.vectors, rows)
    assert cli("evaluate", "theirs", "--data", data, *toy_flags, "--json").json["scores"]["rows"] == 24
    assert cli("library", "export", "theirs", "adapter", "--format", "peft").code == 0
