"""What hangs behind a served row says what the engine says of whole batches: sets of labels, own choices, several members."""

import weakref

import pytest
import torch

from epigraph.base import Base
from epigraph.base.load import wrap_model
from epigraph.base.toy import toy_base, toy_tokenizer
from epigraph.engine import Engine, Tree, choose, generate, shelves
from epigraph.engine.tree import log_odds
from epigraph.engine.voting import vote
from epigraph.errors import TaskError, Unsupported
from epigraph.prompts import PoolPrompt
from epigraph.serve import batcher as batcher_module
from epigraph.serve import schedule
from epigraph.serve.served import Trees
from epigraph.serve.toys_test import ask, carried, serving, spoken, tree_of
from epigraph.serve.work import Carried, Classification, Generation, QueryEvent, Reading, Sampling
from epigraph.tasks.encode import Encoded
from epigraph.tasks.template import Template
from epigraph.tasks.trie import LabelTrie
from epigraph.tasks.verdicts import Verdicts

LONG = "a rather longer text, that goes on beyond the window and beyond a block of kept states as well"
CHOICES = (((65,), (66, 67, 68), (66, 70)), ((71, 72), (73,)))
ROWS = tuple(Encoded((tuple(text.encode()), (58,))) for text in (LONG, "short"))
OWN = tuple(Encoded(row.segments, choices=own) for row, own in zip(ROWS, CHOICES, strict=True))


def several(base: Base, kind: str) -> Carried:
    members = [carried(base, kind, seed=seed) for seed in (1, 2, 3)]
    return Carried(name="three", content="three", forms=tuple(m.forms[0] for m in members), members=3)


def verdicts(base: Base) -> tuple[Tree, tuple[tuple[int, int, int], ...]]:
    found = Verdicts.build({"a": "x", "b": "y", "c": "xy"}, Template("{text}{prompt}:"), base)
    return Tree.build(found.trie, base), found.decisions


def bloom() -> Engine:
    import transformers as t

    torch.manual_seed(0)
    model = t.BloomForCausalLM(t.BloomConfig(vocab_size=260, hidden_size=16, n_layer=2, n_head=4, eos_token_id=256))
    return Engine(wrap_model(model, toy_tokenizer(), name="toy-bloom"), keep=False)


@pytest.mark.parametrize(("name", "kind"), [("llama", "token"), ("gemma3", "kv"), ("bloom", "token")])
def test_sets_choices_and_votes_equal_the_engines(name: str, kind: str) -> None:
    engine = bloom() if name == "bloom" else Engine(toy_base(name), keep=False)
    base, one, three = engine.base, carried(engine.base, kind), several(engine.base, kind)
    (tree, decisions), labels = verdicts(base), tree_of(base, "yes", "yesterday", "no")
    members = [[form] for form in three.forms]
    with serving(engine, step_tokens=24) as batcher:
        for _ in range(2):  # read, and from what was kept
            sets = ask(batcher, Classification(rows=ROWS, prompt=one, tree=tree, verdicts=decisions))
            own = ask(batcher, Classification(rows=OWN, prompt=one, tree=None))
            votes = ask(batcher, Classification(rows=ROWS, prompt=three, tree=labels))
            meant = torch.sigmoid(log_odds(engine.decide(ROWS, one.forms, tree), decisions))
            torch.testing.assert_close(torch.tensor(sets.wait().labels), meant, atol=1e-4, rtol=0)
            scores = torch.softmax(choose(engine, OWN, one.forms), -1)
            for found, wanted, choices in zip(own.wait().labels, scores, CHOICES, strict=True):
                torch.testing.assert_close(torch.tensor(found), wanted[: len(choices)], atol=1e-4, rtol=0)
            torch.testing.assert_close(
                torch.tensor(votes.wait().labels), vote(engine, ROWS, members, labels).exp(), atol=1e-4, rtol=0
            )
        assert votes.end.virtual_tokens == 2 * 9
        assert votes.end.prompt_tokens == sum(len(s) for row in ROWS for s in row.segments)
        with pytest.raises(Unsupported, match="vote"):
            ask(batcher, Generation(segments=ROWS[0].segments, prompt=three, sampling=Sampling()))


def test_rows_of_one_tree_that_are_read_off_in_two_ways_are_not_mixed() -> None:
    engine = Engine(toy_base("llama"), keep=False)
    one = carried(engine.base, "kv")
    tree, decisions = verdicts(engine.base)
    with serving(engine, step_tokens=64) as batcher:
        sets, labels = (ask(batcher, Classification(rows=ROWS, prompt=one, tree=tree, verdicts=v)) for v in (decisions, ()))
        nodes = engine.decide(ROWS, one.forms, tree)
        for found, wanted in ((sets, torch.sigmoid(log_odds(nodes, decisions))), (labels, tree.labels(nodes).exp())):
            torch.testing.assert_close(torch.tensor(found.wait().labels), wanted, atol=1e-4, rtol=0)


def test_prompts_with_the_same_labels_share_a_tree_as_long_as_one_of_them_holds_it() -> None:
    base = toy_base("llama")
    tries = [LabelTrie.build({label: label.encode() for label in labels}, base.end) for labels in ("ab", "ab", "ba", "abc")]
    trees = Trees(base)
    first, second, turned, more = (trees.of(trie) for trie in tries)
    assert first is second
    assert len({id(first), id(turned), id(more)}) == 3
    gone = weakref.ref(more)
    del more
    assert gone() is None
    assert trees.of(tries[1]) is first


def pool(engine: Engine, kind: str) -> Carried:
    start = list(carried(engine.base, kind).forms)
    hidden = engine.base.hidden
    made = PoolPrompt(start, hidden=hidden, older=PoolPrompt(start, hidden=hidden))  # type: ignore[arg-type]
    made.prepare(engine.neutral_queries()[:9], engine.neutral_queries())
    return Carried(name="pool", content=f"pool-{kind}", forms=tuple(made.fold()))


@pytest.mark.parametrize("kind", ["token", "kv"])  # as vectors in the stream, as what stands in its slot
def test_what_depends_on_the_input_survives_the_loss_of_its_room(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in parts, from kept states, by several choices, and again from the beginning: always asked with the same query."""
    engine = Engine(toy_base(), keep=False)
    base, prompt = engine.base, pool(engine, kind)
    monkeypatch.setattr(schedule, "AHEAD", 4)
    monkeypatch.setattr(shelves, "SHORTEST", 16)
    longest = 2 * base.layers * base.heads * 64 * base.head_size * 3
    texts = [LONG[:n] for n in (3, 6, 9)]
    greedy = Sampling(temperature=0.0, max_tokens=16, n=2)
    jobs = [Generation(segments=(tuple(t.encode()), (58,)), prompt=prompt, sampling=greedy) for t in texts]
    with serving(engine, cache_bytes=longest, step_tokens=5) as batcher:
        ears = [ask(batcher, job) for job in jobs]
        found = [[ear.wait().tokens(choice) for choice in (0, 1)] for ear in ears]
        assert batcher.load.preempted > 0
    for job, both in zip(jobs, found, strict=True):
        (meant,) = generate(engine, [Encoded(job.segments)], prompt.forms, 16)
        assert [spoken(base, one) for one in both] == [meant] * 2


def test_a_reading_gives_the_frozen_query(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(toy_base("gpt2"), keep=False)
    texts = tuple(tuple(text.encode()) for text in (LONG, "short", LONG[:40]))
    meant = engine.query([Encoded((text, ())) for text in texts])
    with serving(engine, step_tokens=20) as batcher:
        for _ in range(2):
            (event,) = ask(batcher, Reading(texts=texts)).wait().of(QueryEvent)
            torch.testing.assert_close(event.queries, meant, atol=1e-5, rtol=1e-4)
        with pytest.raises(TaskError, match="there is none"):
            ask(batcher, Generation(segments=((), (58,)), prompt=pool(engine, "kv"), sampling=Sampling()))
    with serving(bloom()) as batcher:
        with pytest.raises(Unsupported, match="frozen states"):
            ask(batcher, Reading(texts=texts))
        with pytest.raises(Unsupported, match="depends on the input"):
            ask(batcher, Classification(rows=ROWS, prompt=pool(engine, "token"), tree=None))


def test_a_row_that_is_too_long_is_refused_before_its_mask_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few thousand choices in one body made a mask of F × F for every row, gigabytes, and only then was the length checked."""

    def make(*_: object) -> None:
        raise AssertionError("its rows were made")

    monkeypatch.setattr(batcher_module, "Labelling", make)
    engine = Engine(toy_base(), keep=False)
    many = Encoded(ROWS[0].segments, choices=((65,) * 3000, (66,) * 3000))
    with serving(engine) as batcher, pytest.raises(TaskError, match="reads 512"):
        ask(batcher, Classification(rows=(many,), prompt=carried(engine.base, "kv"), tree=None))
