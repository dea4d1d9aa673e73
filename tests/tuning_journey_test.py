"""From a data file to a stored prompt that predicts: on a toy base, through the command line and through Python."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

import epigraph
from epigraph import config
from epigraph.base import Base, load_base
from epigraph.base.fingerprint import weights_hash
from epigraph.base.toy import VOCABULARY, toy_tokenizer
from epigraph.config import TuneConfig
from epigraph.engine import Engine
from epigraph.errors import DataError
from epigraph.jobs import TuneJob, run_job
from epigraph.library import Library
from epigraph.methods import best_few_shot
from epigraph.methods.wording import worded
from epigraph.prompts import KINDS, AnyForm, Dependent, Embedded
from epigraph.tasks.task import Task
from epigraph.tuning import Surroundings, TuneResult, tune
from epigraph.tuning.loop import Moment

FAST = {"epochs": 6, "batch": 8, "rate": 0.3, "budget": "1", "validation": 0.15, "keep": "soft"}


@pytest.fixture(scope="module")
def engine(toy: Base) -> Engine:
    return Engine(toy)


def tuned(engine: Engine, task: Task, *, listener: Any = lambda _moment: None, **settings: Any) -> TuneResult:
    return tune(engine.base, task, TuneConfig(**{**FAST, **settings}), engine=engine, around=Surroundings(listener=listener))


def tensors(forms: list[AnyForm]) -> list[torch.Tensor]:
    """All that is kept: of a block that depends on the input the prompt's whole state."""
    found = []
    for form in forms:
        if isinstance(form, Dependent):
            found += list(form.prompt.state_dict().values())
        else:
            found += [form.vectors] if isinstance(form, Embedded) else [form.keys, form.values]
    return found


def same(left: TuneResult, right: TuneResult) -> bool:
    pairs = zip(tensors(left.prompt.stored.forms), tensors(right.prompt.stored.forms), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_trials_are_tuned_side_by_side_and_the_best_on_validation_is_kept(
    engine: Engine, make_csv: Any, tmp_path: Path
) -> None:
    """The kept prompt is the one that its rate gives alone: trials share the pass and nothing else."""
    task = Task.from_file(make_csv(rows=64), test=make_csv("test.csv", rows=40, seed=1))
    fixed = {"epochs": 3, "batch": 8, "validation": 0.15, "keep": "soft"}
    config = TuneConfig(trials=3, **fixed)
    result = tune(engine.base, task, config, engine=engine, around=Surroundings(runs=tmp_path))
    (folder,) = tmp_path.glob("prompt-*")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {line["trial"] for line in lines} == {0, 1, 2}
    assert result.settings["trials"] == 3
    (kept,) = [trial for trial in result.trials if trial["kept"] == "kept"]
    assert kept["score"] in [round(line["score"], 4) for line in lines if line["trial"] == kept["trial"]]
    asked = {name: result.settings[name] for name in ("rate", "length", "start")}
    alone = tune(engine.base, task, TuneConfig(**asked, **fixed, budget="1"), engine=engine)
    for mine, other in zip(tensors(result.prompt.stored.forms), tensors(alone.prompt.stored.forms), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-3)


# ---- what tuning does ------------------------------------------------------------------------------------------------


PLAIN = ("token", "kv")  # held as they are; the others are reparameterised, and fold
ALONE = [name for name, kind in KINDS.items() if kind.alone]


@pytest.mark.parametrize(
    ("kind", "place"),
    [(kind, place) for kind in PLAIN for place in ("first", "last")]
    + [(kind, ("first", "last")[n % 2]) for n, kind in enumerate(ALONE) if kind not in (*PLAIN, "pool")]
    + [("pool", "last")],
)
def test_tuning_learns_and_leaves_the_base_alone(engine: Engine, make_csv: Any, kind: str, place: str) -> None:
    before, losses = weights_hash(engine.base.model), []
    task = Task.from_file(make_csv(rows=64), test=make_csv("test.csv", rows=40, seed=1))
    once = {"kind": kind, "place": place, "readings": 1, "epochs": 6, "patience": 8}  # a toy learns slower from two readings
    result = tuned(engine, task, **once, listener=lambda m: losses.append(m.loss))
    assert weights_hash(engine.base.model) == before
    assert sum(losses[-9:]) < (0.9 if kind == "context" else 0.8) * sum(losses[:9])  # a context may not leave its ball
    assert result.scores["accuracy"]["value"] >= 0.9
    assert result.scores["majority"] == 0.5
    assert (result.scores["rows"], result.scores["split"]) == (40, "test")
    assert result.hard.value("accuracy") < 0.8
    kept = sum(t.numel() for t in tensors(result.prompt.stored.forms))
    assert result.cost["kept_parameters"] == kept
    if kind in PLAIN:
        assert result.cost["trained_parameters"] == kept
    elif kind == "pool":  # what it knows of the queries is kept, but not trained
        assert 0 < result.cost["trained_parameters"] < kept
    elif kind == "sink":
        assert result.cost["trained_parameters"] == kept * 7 / 8
    else:
        assert result.cost["trained_parameters"] >= kept


def test_the_same_seed_gives_the_same_prompt_and_another_seed_another(engine: Engine, make_csv: Any) -> None:
    task = Task.from_file(make_csv(rows=40))
    first = tuned(engine, task, epochs=2)
    assert same(first, tuned(engine, task, epochs=2))
    assert same(first, tune(engine.base, task, TuneConfig(**{**FAST, "epochs": 2})))  # with an engine of its own
    assert not same(first, tuned(engine, task, epochs=2, seed=1))


def test_equal_prompts_are_equal_files(engine: Engine, make_csv: Any, tmp_path: Path) -> None:
    """safetensors writes metadata keys in a random order: files of equal prompts differed now and then."""
    result = tuned(engine, Task.from_file(make_csv(rows=40)), epochs=1)
    contents = set()
    for i in range(16):
        result.prompt.save(tmp_path / str(i))
        contents.add((tmp_path / str(i) / "prompt.safetensors").read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize("start", ["text", "labels", "vocab", "random", "examples"])
@pytest.mark.parametrize("kind", PLAIN)
def test_every_start_gives_a_prompt(engine: Engine, make_csv: Any, kind: str, start: str) -> None:
    length = 64 if start == "examples" else None
    result = tuned(engine, Task.from_file(make_csv(rows=24)), kind=kind, start=start, epochs=1, length=length)
    assert result.settings["start"] == start
    assert result.prompt.stored.card.lineage.how == f"tuned from {start}"


@pytest.mark.parametrize("kind", [kind for kind in ALONE if kind not in (*PLAIN, "pool")])
def test_every_kind_goes_from_the_command_line_to_a_prediction(
    cli: Any, toy_flags: list[str], make_csv: Any, kind: str
) -> None:
    """Tuned at its own rate where it stands first, stored, evaluated, used, and written for PEFT where that is asked."""
    data = make_csv(rows=24)
    flags = ["--kind", kind, "--place", "first", "--epochs", 1, "--batch", 8, "--validation", 0.15, *toy_flags]
    answer = cli("tune", data, "--name", "one", *flags, "--json").json
    assert answer["settings"]["kind"] == kind
    assert answer["settings"]["start"] == ("examples" if kind == "context" else "text")
    assert cli("evaluate", "one", "--data", data, *toy_flags, "--json").json["scores"]["rows"] == 24
    assert cli("predict", "one", "aa a", *toy_flags, "--json").lines[0]["label"] in ("animal", "metal")
    assert cli("library", "show", "one", "--json").json["kind"] == kind
    assert cli("library", "verify").code == 0
    assert cli("library", "export", "one", "adapter", "--format", "peft").code == 0
    peft_type = json.loads(Path("adapter/adapter_config.json").read_text())["peft_type"]
    assert peft_type == ("PROMPT_TUNING" if KINDS[kind].start_form is Embedded else "PREFIX_TUNING")


def test_the_help_says_what_every_kind_is(cli: Any) -> None:
    answer = cli("tune", "--help")
    for name, meaning in config.KINDS.items():
        line = next(line for line in answer.out.splitlines() if f" {name}: " in line)
        assert " ".join(meaning.split()[:3]) in line
    assert list(config.KINDS) == list(KINDS)


def test_a_prompt_starts_from_another(cli: Any, toy_flags: list[str], learns: list[str], make_csv: Any) -> None:
    """Vectors become keys and values; keys and values do not become vectors; what is not there is named."""
    data, fast = make_csv(rows=24), [*learns, "--epochs", "1"]
    assert cli("tune", data, "--name", "vectors", "--kind", "token", "--place", "first", *toy_flags, *fast).code == 0
    answer = cli(
        "tune", data, "--name", "keys", "--start", "prompt:vectors", "--place", "first", *toy_flags, *fast, "--json"
    )
    assert answer.json["settings"]["kind"] == "kv"
    assert cli("library", "show", "keys", "--json").json["lineage"]["parents"] == ["vectors@1"]
    answer = cli("tune", data, "--name", "more", "--start", "prompt:keys", "--kind", "token", *toy_flags, *fast, "--json")
    assert answer.code == 2
    assert "a token prompt cannot start from keys and values" in answer.json["error"]["message"]
    answer = cli("tune", data, "--name", "more", "--start", "prompt:nothing", *toy_flags, *fast, "--json")
    assert answer.code == 2
    assert "there is no prompt 'nothing'" in answer.json["error"]["message"]


def test_a_prompt_of_another_base_is_no_start(
    cli: Any, toy_flags: list[str], other_folder: Path, learns: list[str], make_csv: Any
) -> None:
    data = make_csv(rows=24)
    assert cli("tune", data, "--name", "one", *toy_flags, *learns, "--epochs", "1").code == 0
    other = ["--base", other_folder, "--dtype", "float32", "--epochs", "1", "--budget", "1"]
    answer = cli("tune", data, "--name", "two", "--start", "prompt:one", *other, "--json")
    assert (answer.code, answer.json["error"]["type"]) == (2, "BaseMismatch")


# ---- save, load, predict ---------------------------------------------------------------------------------------------


def test_a_saved_prompt_predicts_the_same(engine: Engine, make_csv: Any, tmp_path: Path) -> None:
    result = tuned(engine, Task.from_file(make_csv(rows=40)))
    result.prompt.save(tmp_path / "prompt")
    texts = ["aa a aaa", "Z ZZZ Z", "máy học", "机器学习 aa"]
    loaded = epigraph.load(tmp_path / "prompt", engine.base).predict(texts)
    assert loaded == result.model.predict(texts)
    assert [p.label for p in loaded[:2]] == ["animal", "metal"]
    assert all(sum(p.probabilities.values()) == pytest.approx(1, abs=1e-5) for p in loaded)


@pytest.fixture(scope="module")
def stored(toy_folder: Path, toy_rows: Any, write_csv: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A library that holds a prompt named routing, and what its tuning gave."""
    folder = tmp_path_factory.mktemp("stored")
    data, library = write_csv(folder / "train.csv", toy_rows(60)), folder / "library"
    config = TuneConfig(**FAST)
    job = TuneJob(task=str(data), name="routing", library=library, config=config, base=str(toy_folder), dtype="float32")
    return library, run_job(job).json


@pytest.fixture
def ask(cli: Any, stored: tuple[Path, Any]) -> Any:
    """Run a command on that library; its base is the one the card names."""
    return lambda *arguments: cli(*arguments, "--library", stored[0])


def test_the_whole_path_on_the_command_line(
    ask: Any, toy: Base, stored: tuple[Path, Any], make_csv: Any, toy_flags: list[str]
) -> None:
    library, routing = stored
    assert routing["prompt"] == "routing@1"
    assert routing["scores"]["split"] == "holdout"
    assert routing["scores"]["accuracy"]["low"] <= routing["scores"]["accuracy"]["value"]
    assert set(routing) >= {"prompt", "scores", "hard_prompt", "cost", "settings", "reasons"}
    texts = ["aaa a a", "ZZ Z ZZZ"]
    said = ask("predict", "routing", *texts, *toy_flags, "--json").lines
    model = epigraph.load(library / "routing" / "1", toy)
    assert [line["label"] for line in said] == ["animal", "metal"]
    for line, ours in zip(said, model.predict(texts), strict=True):
        assert line["probabilities"] == pytest.approx(dict(ours.probabilities), abs=1e-6)
    test = make_csv("test.csv", rows=30, seed=7)
    answer = ask("evaluate", "routing@1", "--data", test, *toy_flags, "--per-class", "--confusion", "--json").json
    assert answer["scores"]["accuracy"]["value"] >= 0.9
    assert answer["confusion"]["labels"] == ["animal", "metal"]
    found = model.predict(Task.from_file(test).train.rows)
    right = sum(p.label == row.target for p, row in zip(found, Task.from_file(test).train.rows, strict=True))
    assert answer["scores"]["accuracy"]["value"] == pytest.approx(right / 30)
    filed = ask("predict", "routing", "--file", test, *toy_flags, "--json").lines
    assert [line["label"] for line in filed] == [p.label for p in found]
    assert ask("library", "verify").code == 0


class Pipe:
    """Standard input that is a pipe: it hands out one line at a time."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.lines = lines

    def seekable(self) -> bool:
        return False

    def isatty(self) -> bool:
        return False

    def __iter__(self) -> Iterator[str]:
        return self.lines


def test_standard_input_is_answered_line_by_line(
    ask: Any, toy_flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each answer is there before the next line is read: a chat or ``tail -f`` at the other end must not wait."""
    answers = []

    def lines() -> Iterator[str]:
        for text in ("aa aaa\n", "\n", "ZZZ Z\r\n"):
            yield text
            answers.append(capsys.readouterr().out)

    monkeypatch.setattr(sys, "stdin", Pipe(lines()))
    assert ask("predict", "routing", *toy_flags, "--json").code == 0
    assert [json.loads(answer)["fields"]["text"] for answer in answers if answer] == ["aa aaa", "ZZZ Z"]
    assert answers[1] == ""
    monkeypatch.setattr(sys, "stdin", Pipe(iter(['{"body": "aa"}\n'])))
    answer = ask("predict", "routing", *toy_flags, "--json")
    assert answer.code == 2
    assert "the row has no field text" in answer.json["error"]["message"]


def test_an_unsure_answer_is_withheld(ask: Any, toy_flags: list[str]) -> None:
    sure, withheld = (
        ask("predict", "routing", "aa aaa", "--min-confidence", least, *toy_flags, "--json").json for least in (0.1, 1)
    )
    assert sure["label"] == "animal"
    assert "abstained" not in sure
    assert withheld["label"] is None
    assert withheld["abstained"]
    assert withheld["probabilities"] == pytest.approx(sure["probabilities"])
    assert "(not sure)" in ask("predict", "routing", "aa aaa", "--min-confidence", 1, *toy_flags).out


def test_another_base_is_refused_with_both_fingerprints(ask: Any, other_folder: Path) -> None:
    answer = ask("predict", "routing", "aa", "--base", other_folder, "--dtype", "float32", "--json")
    error = answer.json["error"]
    assert (answer.code, error["type"]) == (2, "BaseMismatch")
    assert error["message"].count("fingerprint") == 2
    assert "--base" in error["hint"]


# ---- labels and rows of every sort -----------------------------------------------------------------------------------


def test_skewed_labels_choose_macro_f1_and_weights(
    cli: Any, toy_flags: list[str], learns: list[str], tmp_path: Path
) -> None:
    data = tmp_path / "skewed.csv"
    rows = [("Z " * (1 + i % 9), "rare") if i % 10 == 0 else ("a " * (1 + i), "usual") for i in range(80)]
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    answer = cli("tune", data, *toy_flags, *learns, "--epochs", 2)
    assert "metric: macro_f1: label 'usual' has 72 of 80 rows (90%), 1.8 times the mean share" in answer.out
    assert "kept macro_f1" in answer.out
    weights = Task.from_file(data).class_weights()
    assert weights["rare"] == pytest.approx(3 * weights["usual"])


def test_labels_that_begin_other_labels(engine: Engine, toy_rows: Any) -> None:
    """ "calendar" is the beginning of "calendar update": the shorter one needs an end of its own, or it always wins."""
    labels = ["calendar", "calendar_update", "call"]
    rows = toy_rows(60, labels=labels)
    task = Task.from_rows([text for text, _ in rows], [label for _, label in rows])
    texts = ["aa a aaa", "Z ZZ ZZZ", "777 7 77"]
    result = tuned(engine, task, rate=0.1, epochs=12, patience=12)
    found = result.model.predict(texts)
    assert all(sum(p.probabilities.values()) == pytest.approx(1, abs=1e-5) for p in found)
    assert [p.label for p in found] == labels


def test_a_label_with_one_row_trains_and_test_labels_never_trained_are_wrong_and_named(
    cli: Any, toy_flags: list[str], learns: list[str], make_csv: Any
) -> None:
    train, test = make_csv(rows=40), make_csv("test.csv", rows=20, seed=3)
    train.write_text(train.read_text() + "k kk,fruit\n")
    test.write_text(test.read_text() + "Q QQ,stone\nQQ,stone\n7 7,number\n")
    answer = cli("tune", train, "--test", test, "--name", "x", *toy_flags, *learns, "--json").json
    assert answer["scores"]["rows"] == 23
    assert answer["scores"]["accuracy"]["value"] == pytest.approx(20 / 23)
    assert any("labels with a single row train and are not validated: fruit" in w for w in answer["warnings"])
    assert any("never trained count as wrong: number (1 rows), stone (2 rows)" in w for w in answer["warnings"])
    assert set(cli("predict", "x", "aa", *toy_flags, "--json").json["probabilities"]) == {"animal", "metal", "fruit"}
    answer = cli("evaluate", "x", "--data", test, *toy_flags, "--json")
    assert "label 'stone' was never trained: its 2 rows count as wrong" in answer.err
    assert answer.json["scores"]["accuracy"]["value"] == pytest.approx(20 / 23)


def test_vietnamese_and_chinese(cli: Any, toy_flags: list[str], learns: list[str], tmp_path: Path) -> None:
    data = tmp_path / "tiếng việt.csv"
    rows = [("a " * (1 + i // 2) + "đẹp", "tích cực") if i % 2 else ("Z " * (1 + i // 2) + "糟", "消极") for i in range(40)]
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")
    answer = cli("tune", data, "--name", "cảm-xúc", *toy_flags, *learns, "--json")
    if answer.code == 2:  # names of folders are plain
        assert answer.json["error"]["type"] == "NameRefused"
        answer = cli("tune", data, "--name", "moods", *toy_flags, *learns, "--json")
    name = answer.json["prompt"]
    found = cli("predict", name, "a a a đẹp", "Z Z 糟", *toy_flags, "--json")
    assert {line["label"] for line in found.lines} <= {"tích cực", "消极"}
    assert set(found.lines[0]["probabilities"]) == {"tích cực", "消极"}
    assert found.lines[1]["fields"] == {"text": "Z Z 糟"}
    assert "消极" in found.out  # readable, not escaped


def test_two_fields_and_numbers_as_labels(cli: Any, toy_flags: list[str], learns: list[str], tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    rows = [{"premise": f"{i} x", "hypothesis": "aa" if i % 2 else "ZZ", "label": i % 2} for i in range(40)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli("tune", data, "--name", "nli", *toy_flags, *learns, "--epochs", 2).code == 0
    answer = cli("predict", "nli", '{"premise": "3 x", "hypothesis": "aa"}', *toy_flags, "--json").json
    assert set(answer["probabilities"]) == {"0", "1"}
    assert answer["fields"] == {"premise": "3 x", "hypothesis": "aa"}


def test_long_rows_are_shortened_counted_and_named(engine: Engine, make_csv: Any, tmp_path: Path) -> None:
    """The toy reads 512 bytes: the text loses its end, the cue and the labels stay, and it is said how many and where."""
    data = tmp_path / "long.csv"

    def write(long: int) -> Task:
        lines = (f"{'aZ'[i % 2] * (700 if i < long else 9)}{i},{'mn'[i % 2]}\n" for i in range(24))
        data.write_text("text,label\n" + "".join(lines))
        return Task.from_file(data)

    task = write(1)
    result = tuned(engine, task, epochs=1)
    (said,) = [w for w in result.warnings if "at their longest field" in w]
    assert re.fullmatch(r"1 of 24 rows were shortened at their longest field to fit \d+ tokens \(lines 2\)", said)
    rows = result.model.method.encode(task.train.rows)
    cue = rows[5].segments[-1]
    assert all(row.segments[-1] == cue and row.length <= 512 for row in rows)
    with pytest.raises(DataError, match=r"1 of 24 rows would .*--strict allows none"):
        tuned(engine, task, epochs=1, strict=True)
    with pytest.raises(DataError, match=r"4 of 24 rows .*lines 2, 3, 4, 5\); at most 5% may be"):
        tuned(engine, write(4), epochs=1)


def test_the_hard_prompts_of_a_task_are_tried_beside_its_instruction(engine: Engine, make_csv: Any, tmp_path: Path) -> None:
    """A user's own words were passed over: the soft prompt was measured against the generated instruction only."""
    make_csv(rows=24)
    (tmp_path / "own.toml").write_text(
        '[[hard_prompts]]\ntext = "Say which it is."\n[[hard_prompts]]\ntext = "{text} is"\n[data]\ntrain = "train.csv"\n'
    )
    task = Task.from_file(tmp_path / "own.toml")
    tried = tuned(engine, task, epochs=1).reasons["hard_prompt"]
    assert "instruction first, own words 1: " in tried
    assert "own words 2" not in tried, "a template stands around the row and is not stored as a prompt"
    assert [said.instruction for said in worded(task).values()] == [task.instruction, "Say which it is."]


# ---- generation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALONE)
def test_generation_learns_an_answer(engine: Engine, kind: str, tmp_path: Path) -> None:
    """Keys and values make even a random base say "ok"; vectors at its input only make it likelier."""
    task = Task.from_rows([f"{i} x" for i in range(24)], ["ok"] * 24, kind="generation")
    before, losses = weights_hash(engine.base.model), []
    settings = {
        "rate": 3.0,
        "clip": 10.0,
        "epochs": 12 if kind == "kv" else 3,
        "patience": 12,
        "length": 64 if kind == "context" else 8,
    }
    result = tuned(engine, task, kind=kind, **settings, listener=lambda m: losses.append(m.loss))
    assert weights_hash(engine.base.model) == before
    assert losses[-1] < losses[0] - 0.2
    assert result.reasons["metric"].startswith("exact_match")
    result.prompt.save(tmp_path / "p")
    (answer,) = epigraph.load(tmp_path / "p", engine.base).predict(["5 x"])
    assert answer == result.model.predict(["5 x"])[0]
    if kind == "kv":
        assert result.scores["exact_match"]["value"] == 1.0
        assert result.hard.value("exact_match") == 0.0
        assert answer.json == {"fields": {"text": "5 x"}, "output": "ok"}


def test_a_generation_task_on_the_command_line(cli: Any, toy_flags: list[str], tmp_path: Path) -> None:
    data = tmp_path / "gen.jsonl"
    rows = [{"input": f"{'b' * (i % 7)}{i}", "output": f"it is number {i}"} for i in range(16)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = cli("tune", data, *toy_flags, "--epochs", 1, "--budget", 1, "--json")
    assert answer.code == 0, answer.err
    assert {"bleu", "rouge_l", "exact_match", "rows", "split"} <= set(answer.json["scores"])
    assert answer.json["settings"]["length"] == 16
    assert cli("evaluate", "gen", "--data", data, *toy_flags, "--json").json["scores"]["rows"] == 16
    assert "output" in cli("predict", "gen", "b1", *toy_flags, "--json").json


# ---- a base that our attention cannot serve ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bloom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy with ALiBi, which is run by plain concatenation; its weights are large enough to tell letters apart."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("bases") / "bloom"
    model = BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(12.0) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bloom(bloom_folder: Path) -> Engine:
    return Engine(load_base(bloom_folder, dtype="float32"))


def test_a_base_with_alibi_learns_by_plain_concatenation(
    cli: Any, bloom_folder: Path, learns: list[str], make_csv: Any
) -> None:
    flags = ["--base", bloom_folder, "--dtype", "float32"]
    train, test = make_csv(rows=64), make_csv("test.csv", rows=40, seed=1)
    answer = cli("tune", train, "--test", test, "--name", "slow", *flags, *learns, "--json")
    assert answer.code == 0, answer.err
    assert answer.err.count("is run by plain concatenation") == 1
    told = answer.json
    assert (told["settings"]["kind"], told["settings"]["place"]) == ("token", "template")
    assert told["reasons"]["kind"].startswith("token: this base is run by plain concatenation: its attention")
    assert told["reasons"]["place"] == "as the template says"
    assert len([w for w in told["warnings"] if "run by plain concatenation: every text is read again" in w]) == 1
    assert told["scores"]["accuracy"]["value"] >= 0.9
    assert told["hard_prompt"]["accuracy"]["value"] < 0.8
    assert [line["label"] for line in cli("predict", "slow", "aaa a", "ZZ Z", *flags, "--json").lines] == ["animal", "metal"]
    again = cli("evaluate", "slow", "--data", test, *flags, "--json").json
    assert again["scores"]["accuracy"]["value"] == told["scores"]["accuracy"]["value"]
    assert "run by plain concatenation" in again["warnings"][0]


def test_keys_and_values_on_it_are_refused_by_name(cli: Any, bloom_folder: Path, make_csv: Any) -> None:
    answer = cli("tune", make_csv(rows=24), "--kind", "kv", "--base", bloom_folder, "--dtype", "float32", "--json")
    assert (answer.code, answer.json["error"]["type"]) == (2, "Unsupported")
    assert "kind 'kv' was asked, but this base is run by plain concatenation" in answer.json["error"]["message"]
    assert "--kind token" in answer.json["error"]["hint"]


@pytest.mark.parametrize("settings", [{"portable": True}, {"kind": "token", "place": "first", "budget": "2"}])
def test_a_kind_that_was_asked_needs_no_reason(bloom: Engine, make_csv: Any, settings: dict[str, Any]) -> None:
    before = weights_hash(bloom.base.model)
    result = tuned(bloom, Task.from_file(make_csv(rows=40)), epochs=2, **settings)
    assert weights_hash(bloom.base.model) == before
    assert result.settings["kind"] == "token"
    assert "kind" not in result.reasons


def test_hard_prompts_and_generation_work_by_plain_concatenation(bloom: Engine, make_csv: Any) -> None:
    task = Task.from_file(make_csv(rows=40))
    rows = task.train.rows
    chosen = best_few_shot(bloom, task, rows[:30], rows[30:], 1)
    assert chosen is not None
    sums = chosen.method.probabilities(rows[30:]).sum(1)
    assert sums == pytest.approx([1.0] * 10, abs=1e-5)
    losses: list[float] = []
    task = Task.from_rows([f"{i} x" for i in range(24)], ["ok"] * 24, kind="generation")
    result = tuned(bloom, task, rate=1.0, epochs=3, length=8, listener=lambda m: losses.append(m.loss))
    assert losses[-1] < losses[0]
    assert result.reasons["kind"].startswith("token: ")
    assert result.model.predict(["5 x"])[0].output is not None


# ---- what is said ----------------------------------------------------------------------------------------------------


def test_choices_are_said_with_their_reasons(cli: Any, toy_flags: list[str], make_csv: Any) -> None:
    answer = cli("tune", make_csv(rows=40), "--name", "said", *toy_flags, "--epochs", 1, "--budget", 1, "--keep", "soft")
    for reason in ("length: 8 vectors", "batch: 16 examples a step", "rate:", "place:", "hard_prompt:", "stop:", "dtype:"):
        assert reason in answer.out
    assert "soft prompt said@1" in answer.out
    (card,) = [entry.card for entry in Library(Path("library")).list()]
    assert card.reasons["stop"].startswith("all epochs done after 2 steps; kept accuracy")
    assert (Path("library/said/1/metrics.jsonl")).read_text().count("\n") == 1


def test_moments_count_steps_and_epochs(engine: Engine, make_csv: Any) -> None:
    moments: list[Moment] = []
    tuned(engine, Task.from_file(make_csv(rows=40)), epochs=2, listener=moments.append)
    steps = moments[0].steps
    assert [m.step for m in moments] == list(range(1, steps + 1))
    assert [m.score is not None for m in moments] == ([False] * (steps // 2 - 1) + [True]) * 2
    assert {m.epoch for m in moments} == {1, 2}
