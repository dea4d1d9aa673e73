"""``epigraph distill`` from the command line: a hard prompt, other models, an address and a stored prompt as teachers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import epigraph
from epigraph.base import Base, load_base
from epigraph.base.toy import toy_base
from epigraph.distilling import DistillConfig
from epigraph.distilling.written import draw
from epigraph.engine import Engine
from epigraph.library import Library
from epigraph.tasks.task import Task
from epigraph.tuning import Surroundings

QUICK = ["--epochs", "2", "--rate", "0.1", "--length", "4", "--batch", "16"]


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A hard prompt."""
    file = tmp_path / "hard.txt"
    file.write_text("Say what the text is made of.\nAnimals bleat, metal rings.\n")
    return file


@pytest.fixture
def texts(make_csv: Any, tmp_path: Path) -> Path:
    """Texts without labels."""
    labelled = make_csv("labelled.csv", rows=40, seed=5).read_text().splitlines()
    file = tmp_path / "texts.csv"
    file.write_text("\n".join(line.rsplit(",", 1)[0] for line in labelled) + "\n")
    return file


def test_a_hard_prompt_with_examples_becomes_a_few_vectors(
    cli: Any, toy_flags: list[str], make_csv: Any, words: Path, texts: Path
) -> None:
    train, test = make_csv("train.csv", rows=24), make_csv("test.csv", rows=20, seed=9)
    flags = ["--hard-prompt", words, "--shots", "4", "--texts", texts, "--test", test, *QUICK, "--epochs", "12", *toy_flags]
    done = cli("distill", train, *flags, "--name", "short", "--json")
    assert done.code == 0, done.err
    found = done.json
    assert found["prompt"] == "short@1"
    assert (found["rows"], found["split"]) == (20, "test")
    assert found["divergence"] < found["start"]["divergence"]
    assert found["settings"]["start"] == "matched"
    assert found["reasons"]["start"].endswith("% of it is missed")
    assert found["constant"]["kappa"] == 0
    assert found["request"]["tokens"]["before"] > found["request"]["tokens"]["after"] + 50
    assert set(found["request"]["seconds"]) == {"before", "before_prefix_kept", "after"}
    assert found["scores"]["rows"] == found["teacher_scores"]["rows"] == 20
    card = Library(Path("library")).card("short")
    assert (card.kind, card.place, card.lengths) == ("sink", "first", (4,))
    assert cli("library", "verify", "--json").json["problems"] == []
    assert cli("predict", "short", "aa a aaa", "--json", *toy_flags).lines[0]["label"] in ("animal", "metal")
    shown = cli("distill", train, *flags, "--place", "last", "--kind", "token", "--states", "1")
    assert shown.code == 0, shown.err
    assert "tokens a request" in shown.out
    assert "teacher − student on the same 20 texts" in shown.out
    assert "asking" not in shown.err  # the answers were kept


def test_an_interrupted_one_goes_on_bit_for_bit_and_asks_nothing_twice(
    cli: Any, toy_flags: list[str], make_csv: Any, words: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from epigraph.distilling import objective, teacher

    train = make_csv("train.csv", rows=12)
    flags = ["--hard-prompt", words, "--texts", texts, "--name", "short", *QUICK, *toy_flags]
    losses, steps = objective.LabelImitation.losses, []

    def asked_again(*_: Any) -> None:
        raise AssertionError("its answers are kept")

    def stop(self: Any, *given: Any) -> Any:
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return losses(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(objective.LabelImitation, "losses", stop)
        answer = cli("distill", train, *flags, "--json")
    assert answer.code == 130
    folder = answer.json["error"]["hint"].split("--resume ")[1].split(" --library")[0]
    refused = cli("tune", "--resume", folder)
    assert (refused.code, "no run folder" in refused.err) == (2, True)
    with monkeypatch.context() as patch:
        patch.setattr(teacher.BaseTeacher, "teach", asked_again)
        later = cli("distill", "--resume", folder, "--json")
    assert later.code == 0, later.err
    whole = cli("distill", train, *flags, "--library", "other", "--json")
    first, second = (Library(Path(name)).get("short").forms[0] for name in ("library", "other"))
    assert torch.equal(first.keys, second.keys)  # type: ignore[union-attr]
    assert later.json["agreement"] == whole.json["agreement"]
    again = cli("distill", "--resume", folder)
    assert (again.code, "is finished" in again.err) == (2, True)


def test_a_resumed_one_refuses_other_texts(
    cli: Any, toy_flags: list[str], make_csv: Any, words: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from epigraph.distilling.objective import LabelImitation

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LabelImitation, "losses", stop)
        answer = cli("distill", make_csv("train.csv", rows=12), "--hard-prompt", words, "--texts", texts, *QUICK, *toy_flags)
    assert answer.code == 130
    folder = answer.err.split("--resume ")[1].split(" --library")[0]
    texts.write_text(texts.read_text() + "another\n")
    later = cli("distill", "--resume", folder)
    assert (later.code, "its data is no longer what it was" in later.err) == (2, True), later.err


def merge(rival: Any) -> Any:
    """The stock model with its LoRA merged into its weights."""
    for name, module in list(rival.base.model.named_modules()):
        if hasattr(module, "get_base_layer"):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(rival.base.model.get_submodule(parent), child, module.get_base_layer())
    return rival.base.model


@pytest.fixture(scope="module")
def taught(toy: Base, tmp_path_factory: pytest.TempPathFactory, toy_rows: Any) -> dict[str, Path]:
    """Copies of the toy base that know the task: all weights tuned, and a LoRA merged."""
    from epigraph.methods.rivals.full import FullFineTuning, FullSettings
    from epigraph.methods.rivals.lora import Lora, LoraSettings
    from epigraph.tuning.loop import Loop, Settings

    pairs = toy_rows(40)
    task = Task.from_rows([text for text, _ in pairs], [label for _, label in pairs], name="moods")
    found = {}
    rivals: dict[str, Any] = {
        "full": lambda: FullFineTuning(Engine(toy), task, task.train.rows, task.train.rows[:8], FullSettings(rate=3e-3)),
        "lora": lambda: Lora(Engine(toy), task, task.train.rows, task.train.rows[:8], LoraSettings(rate=1e-2)),
    }
    for name, make in rivals.items():
        rival = make()
        asked = Settings(epochs=6, batch=8, rate=rival.settings.rate, warmup=0.1, clip=1.0, patience=9, seed=0)
        Loop(rival.module, rival.objective, asked, lambda _moment: None).run()
        folder = tmp_path_factory.mktemp("teachers") / name
        merged = rival.base.model if name == "full" else merge(rival)
        merged.save_pretrained(folder)
        toy.tokenizer.save_pretrained(folder)
        found[name] = folder
    return found


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_model_that_knows_the_task_teaches_a_prompt_of_the_base(
    kind: str, cli: Any, toy_flags: list[str], make_csv: Any, texts: Path, taught: dict[str, Path]
) -> None:
    train, test = make_csv("train.csv", rows=24), make_csv("test.csv", rows=20, seed=9)
    flags = ["--teacher", taught[kind], "--texts", texts, "--test", test, *QUICK, "--place", "last", "--epochs", "25"]
    done = cli("distill", train, *flags, *toy_flags, "--rate", "0.3", "--name", "small", "--json")
    assert done.code == 0, done.err
    found = done.json
    assert found["teacher_scores"]["accuracy"]["value"] > 0.9
    assert found["divergence"] < found["start"]["divergence"]
    assert found["kappa"]["value"] > 0.6


def test_a_stock_classifier_teaches(cli: Any, toy_flags: list[str], make_csv: Any, texts: Path, tmp_path: Path) -> None:
    """The usual fine-tuned classifier has a head of its own, and was loaded as a language model that knew nothing."""
    from transformers import BertConfig, BertForSequenceClassification

    from epigraph.base.toy import toy_tokenizer

    sizes = {"vocab_size": 260, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    named = {"id2label": {0: "METAL", 1: "Animal"}, "label2id": {"METAL": 0, "Animal": 1}}
    BertForSequenceClassification(BertConfig(**sizes, **named, pad_token_id=256)).save_pretrained(tmp_path / "mood")
    toy_tokenizer().save_pretrained(tmp_path / "mood")
    flags = ["--teacher", tmp_path / "mood", "--texts", texts, *QUICK, *toy_flags]
    train = make_csv("train.csv", rows=12)
    done = cli("distill", train, *flags, "--name", "small", "--json")
    assert done.code == 0, done.err
    assert done.json["teacher"] == "mood, a classifier"
    refused = cli("distill", train, *flags, "--shots", "2")
    assert (refused.code, "is a classifier, which reads the text alone" in refused.err) == (2, True), refused.err


def test_a_stored_prompt_goes_to_another_base(
    cli: Any,
    toy_flags: list[str],
    make_csv: Any,
    texts: Path,
    taught: dict[str, Path],
    other_folder: Path,
    learns: list[str],
) -> None:
    """To a copy with a LoRA merged it goes as it is; to other weights by the words that both know, or from a text."""
    train, test = make_csv("train.csv", rows=40), make_csv("test.csv", rows=20, seed=9)
    for kind in ("kv", "token"):
        done = cli("tune", train, "--name", kind, "--kind", kind, *learns, *toy_flags)
        assert done.code == 0, done.err
    flags = ["--texts", texts, "--test", test, "--epochs", "1", "--dtype", "float32", "--json"]
    near = cli("distill", "--from", "kv", "--base", taught["lora"], *flags)
    assert near.code == 0, near.err
    assert "as it is" in near.json["reasons"]["start"]
    assert (near.json["prompt"], near.json["settings"]["length"]) == ("kv@2", 8)
    far = cli("distill", "--from", "token", "--base", other_folder, *flags, "--name", "far", "--kind", "token")
    assert far.code == 0, far.err
    assert "sparse sums of 257 rows" in far.json["reasons"]["start"]
    assert far.json["teacher"].startswith("token@1 on ")
    assert Library(Path("library")).card("far").lineage.parents == ("token@1",)
    text = cli("distill", "--from", "kv", "--base", other_folder, *flags, "--name", "text")
    assert text.code == 0, text.err
    assert text.json["settings"]["start"] == "text"
    reason = text.json["reasons"]["start"]
    assert reason.startswith(
        "text: the old prompt could not be carried over: it is keys and values, which go to a fine-tuned"
    )
    assert "the embedding tables of lora and other do not agree" in reason
    lost, own, theirs = (text.json[name] for name in ("lost", "scores", "teacher_scores"))
    assert lost["value"] == pytest.approx(theirs[lost["metric"]]["value"] - own[lost["metric"]]["value"])
    assert (lost["low"] <= lost["value"] <= lost["high"], lost["rows"]) == (True, 20)
    asked = cli("distill", "--from", "kv", "--base", other_folder, *flags, "--start", "mapped")
    assert asked.code == 2
    assert "but the old prompt could not be carried over: it is keys and values" in asked.json["error"]["message"]
    assert asked.json["error"]["hint"].startswith("Leave --start out")  # it named one of vectors where one was named


def test_generation_is_learned_place_by_place(cli: Any, toy_flags: list[str], tmp_path: Path, words: Path) -> None:
    train = tmp_path / "pairs.jsonl"
    train.write_text("".join(json.dumps({"input": f"say {i}", "output": f"{i} {i}{i}"}) + "\n" for i in range(16)))
    done = cli("distill", train, "--hard-prompt", words, "--texts", train, *QUICK, *toy_flags, "--epochs", "5", "--json")
    assert done.code == 0, done.err
    found = done.json
    assert found["kappa"] is None
    assert 0 <= found["overlap"] <= 1
    assert "answers" not in found["reasons"]
    card = Library(Path("library")).card("pairs")
    assert "smallest divergence" in card.reasons["stop"]


def test_what_cannot_be_is_refused_in_one_line(
    cli: Any, toy_flags: list[str], make_csv: Any, tmp_path: Path, words: Path, texts: Path
) -> None:
    train = make_csv("train.csv", rows=12)
    long, few = tmp_path / "long.txt", tmp_path / "few.csv"
    long.write_text("a very long hard prompt " * 30)
    few.write_text("text\naa\nbb\n")
    flags = ["--texts", texts, *toy_flags]
    hard = ["--hard-prompt", words]
    cases: list[tuple[list[Any], str]] = [
        ([train, *hard, *toy_flags], "no texts were given"),
        ([train, *flags], "nothing was given to imitate"),
        ([*hard, *flags], "no TASK was given"),
        ([train, *hard, "--texts", few, *toy_flags], "2 texts were given; distilling needs 8"),
        ([train, "--hard-prompt", long, *flags], "but toy reads 512 in all"),
        ([train, *hard, "--from", "nothing", *flags], "both a stored prompt and a hard prompt"),
        ([train, "--from", "nothing", *flags], "there is no prompt 'nothing'"),
        ([train, *hard, "--teacher-model", "m", *flags], "without an address"),
        ([train, *hard, "--teacher-url", "ftp://x", "--teacher-model", "m", *flags], "is no address of a model"),
        ([train, *hard, "--kind", "pool", *flags], "kind 'pool' is not known"),
        ([train, *hard, "--start", "mapped", *flags], "no prompt that can be carried over"),
        ([train, "--hard-prompt", tmp_path / "no.txt", *flags], "no.txt"),
        (["--resume", tmp_path], "is no run of a distilling"),
    ]
    for arguments, message in cases:
        answer = cli("distill", *arguments)
        assert (answer.code, message in answer.err) == (2, True), (arguments, answer.err)
        assert answer.err.splitlines()[-1].startswith("error: ")


def test_a_teacher_of_other_labels_is_refused(
    cli: Any, toy_flags: list[str], make_csv: Any, texts: Path, learns: list[str]
) -> None:
    done = cli("tune", make_csv("train.csv", rows=24), "--name", "moods", *learns[:4], "--epochs", "1", *toy_flags)
    assert done.code == 0, done.err
    other = make_csv("other.csv", rows=12, labels=("animal", "plant"))
    answer = cli("distill", other, "--teacher-prompt", "moods", "--texts", texts, *toy_flags)
    assert (answer.code, "it has no 'plant'; the task has no 'metal'" in answer.err) == (2, True), answer.err


def test_a_base_that_shares_no_word_is_refused_where_vectors_would_go_through_words(
    cli: Any, toy_flags: list[str], make_csv: Any, texts: Path, tmp_path: Path
) -> None:
    from transformers import PreTrainedTokenizerFast

    foreign = toy_base(hidden=32, seed=7)
    source = json.loads(foreign.tokenizer.backend_tokenizer.to_str())
    source["model"]["vocab"] = {
        (token if token == "<end>" else chr(0x4E00 + n)): n for token, n in source["model"]["vocab"].items()
    }
    foreign.model.save_pretrained(tmp_path / "foreign")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(json.dumps(source))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(tmp_path / "foreign")
    cli("tune", make_csv("train.csv", rows=24), "--name", "moods", "--kind", "token", "--epochs", "1", *toy_flags)
    answer = cli("distill", "--from", "moods", "--base", tmp_path / "foreign", "--texts", texts, "--dtype", "float32")
    assert (answer.code, "have no token in common" in answer.err) == (2, True), answer.err
    assert "--start text" in answer.err


def test_from_python(toy: Base, toy_folder: Path, toy_rows: Any) -> None:
    pairs = toy_rows(24)
    task = Task.from_rows([text for text, _ in pairs], [label for _, label in pairs])
    seen = [text for text, _ in toy_rows(30, seed=4)]
    config = DistillConfig(shots=2, length=3, epochs=1)
    result = epigraph.distill(toy, task, seen, "What is it made of?", config)
    assert result.fidelity.rows == 6
    assert result.scored is None
    again = epigraph.distill(load_base(toy_folder, dtype="float32"), task, seen, result.model, DistillConfig(epochs=1))
    assert again.start.agreement.value == 1.0  # carried over as it is


def test_texts_that_are_tested_on_as_well_are_counted(toy: Base, toy_rows: Any) -> None:
    """Agreement was measured on texts that the student had learned from, and nothing said so."""
    pairs = toy_rows(24)
    task = Task.from_rows([text for text, _ in pairs], [label for _, label in pairs])
    seen, held = ([text for text, _ in toy_rows(20, seed=seed)] for seed in (4, 9))
    tests, notes = [seen[0], f" {seen[1].upper()}  ", *held[:6]], []
    around = Surroundings(note=notes.append)
    result = epigraph.distill(toy, task, seen, "What?", DistillConfig(length=2, epochs=1), tests=tests, around=around)
    found = [warning for warning in result.warnings if "rows also train" in warning]
    assert [warning.split(":")[0] for warning in found] == [
        "1 of 8 test rows also train",
        "1 of 8 test rows also train but for case and spaces",
    ]
    assert f"warning: {found[0]}" in notes
    assert result.lost is result.json["lost"] is None  # right answers are not known


def test_examples_that_the_teacher_reads_are_no_texts_to_learn_or_measure_by(toy: Base, toy_rows: Any) -> None:
    """``distill train.csv --shots 40 --texts train.csv``: to its own examples the teacher gave the labels that stood there."""
    pairs = toy_rows(24)
    task = Task.from_rows([text for text, _ in pairs], [label for _, label in pairs])
    shown = draw(Engine(toy), task, task.train.rows, 4, 0)
    config, notes = DistillConfig(shots=4, length=2, epochs=1), []
    tests = [shown[0], *Task.from_rows(*zip(*toy_rows(7, seed=9), strict=True)).train.rows]
    around = Surroundings(note=notes.append)
    result = epigraph.distill(toy, task, task.train.rows, "What?", config, tests=tests, around=around)
    left, read = result.warnings[:2]
    same = sum(row.fields in [one.fields for one in shown] for row in task.train.rows)
    assert left == f"{same} of 24 texts are examples that the teacher reads; they are left out"
    assert "of 8 test rows are examples that the teacher reads with their labels" in read
    assert f"warning: {left}" in notes
    assert f"asked {result.cost['teacher_asked']} texts now" in result.reasons["teacher"]
    assert "median of 9 requests" in result.json["request"]["how"]
