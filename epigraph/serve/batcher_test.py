"""Whatever shares a batch, every answer is that of the request alone; bounds hold, and a fault is one request's own."""

import os
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from epigraph.base import Base
from epigraph.base.load import load_base, wrap_model
from epigraph.base.toy import ARCHITECTURES, toy_base, toy_tokenizer
from epigraph.engine import Engine, shelves
from epigraph.engine.plain import plain_states
from epigraph.errors import BaseMismatch, ConfigError, Corrupt, QueueFull, TaskError, Unsupported
from epigraph.prompts import Embedded, KeyValue
from epigraph.serve import batcher as batcher_module
from epigraph.serve import schedule
from epigraph.serve.batcher import Batcher
from epigraph.serve.generating import Choice, Described
from epigraph.serve.sizes import bytes_of
from epigraph.serve.toys_test import (
    GREEDY,
    Ear,
    alone,
    ask,
    carried,
    generation,
    labelled_alone,
    serving,
    spoken,
    tree_of,
)
from epigraph.serve.work import (
    BatcherSettings,
    Carried,
    Classification,
    EndEvent,
    Event,
    Generation,
    Sampling,
    TokenEvent,
)
from epigraph.tasks.encode import Encoded

LONG = "a rather longer text, that goes on beyond the window and beyond a block of kept states as well"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(toy_base(), keep=False)


@pytest.fixture(scope="module")
def base(engine: Engine) -> Base:
    return engine.base


# ---- equal to each alone -------------------------------------------------------------------------------------------------


def jobs_of_all_sorts(base: Base, rng: random.Random) -> Iterator[Generation | Classification]:
    """Every form at every place, the bare base, and classifications with trees of their own."""
    prompts = [carried(base, kind, seed=seed, length=seed + 1) for kind in ("kv", "token") for seed in (1, 2)]
    twice = [carried(base, kind, blocks=2) for kind in ("kv", "token")]
    trees = [tree_of(base, "yes", "no"), tree_of(base, "calendar", "calendar update", "call", "b")]
    for prompt in prompts:
        text = rng.choice(["short", LONG[: rng.randint(10, 40)], LONG])
        greedy = Sampling(temperature=0.0, max_tokens=rng.randint(1, 9))
        yield generation(["", text], prompt, greedy)
        yield generation([text, "\nLabel:"], prompt, greedy)
        rows = tuple(Encoded((tuple(text[:n].encode()), (10, 11))) for n in (len(text), 4))
        yield Classification(rows=rows, prompt=prompt, tree=rng.choice(trees))
    for prompt in twice:
        yield generation(["Say: ", LONG[:20], ":"], prompt)
        yield generation(["", LONG[:20], ":"], prompt)
    yield generation([LONG])
    yield Classification(rows=(Encoded((tuple(LONG.encode()),)),), prompt=None, tree=trees[1])


@pytest.mark.parametrize("name", ARCHITECTURES[:6])
def test_any_mix_equals_each_alone(name: str) -> None:
    """Requests join while others run, and some are cancelled in the middle."""
    engine, rng = Engine(toy_base(name), keep=False), random.Random(name)
    jobs = list(jobs_of_all_sorts(engine.base, rng))
    rng.shuffle(jobs)
    ears: list[Ear] = []
    cancelled: set[int] = set()
    with serving(engine, step_tokens=rng.randint(8, 60), max_rows=6) as batcher:

        def submit_next() -> None:
            if len(ears) < len(jobs):
                number = len(ears)
                ears.append(Ear(1, lambda heard: on_token(number, heard)))
                ears[number].ticket = batcher.submit(jobs[number], ears[number])

        def on_token(number: int, heard: int) -> None:
            if heard == 2:
                submit_next()
            if heard == 3 and number % 5 == 0:
                cancelled.add(number)
                ears[number].ticket.cancel()

        for _ in range(5):
            submit_next()
        while len(ears) < len(jobs) or not all(ear.ended.is_set() for ear in ears):
            next((ear for ear in ears if not ear.ended.is_set()), ears[0]).wait()
            submit_next()
    for number, (job, ear) in enumerate(zip(jobs, ears, strict=True)):
        if isinstance(job, Classification):
            torch.testing.assert_close(torch.tensor(ear.labels), labelled_alone(engine, job), atol=1e-4, rtol=0)
        elif number in cancelled and ear.end.reason == "cancelled":
            assert spoken(engine.base, ear.tokens()) == alone(engine, job)[: len(ear.tokens())]
        else:
            assert spoken(engine.base, ear.tokens()) == alone(engine, job)
            assert ear.text() == engine.base.detokenize(ear.tokens())


def test_in_bf16_a_mix_differs_only_where_two_tokens_are_as_likely() -> None:
    """Up to the rounding of bf16: where an answer first departs from the one alone, its two likeliest tokens are close."""
    base = wrap_model(toy_base().model.to(torch.bfloat16), toy_tokenizer(), name="toy-bf16")
    engine = Engine(base, keep=False)
    asked = Sampling(temperature=0.0, max_tokens=8, logprobs=2, ignore_end=True)
    prompts = [None, carried(base, "kv"), carried(base, "token")]
    jobs = [generation([LONG[:n]] if p is None else [LONG[:n], ":"], p, asked) for n in (5, 20, 60) for p in prompts]
    with serving(engine, step_tokens=40) as batcher:
        ears = [ask(batcher, job) for job in jobs]
        for job, ear in zip(jobs, ears, strict=True):
            expected, found = alone(engine, job), ear.wait().of(TokenEvent)
            first = next((n for n, (e, t) in enumerate(zip(expected, found, strict=False)) if e != t.token), None)
            if first is not None:
                (_, likeliest), (_, second) = found[first].top
                assert likeliest - second < 0.2
            assert len(found) == 8


def test_rows_that_lose_their_room_are_read_again_and_end_alike(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences outgrow their slots while there is room for one at its longest; the bound holds at every token."""
    base, prompt = engine.base, carried(engine.base, "kv")
    monkeypatch.setattr(schedule, "AHEAD", 4)
    monkeypatch.setattr(shelves, "SHORTEST", 16)
    longest = 2 * base.layers * base.heads * 64 * base.head_size * 4
    greedy = Sampling(temperature=0.0, max_tokens=32)
    jobs = [generation([LONG[:n], ":"], prompt, greedy) for n in (3, 6, 9)]
    most: list[int] = []
    with serving(engine, cache_bytes=longest) as batcher:
        ears = [ask(batcher, job, lambda _: most.append(batcher.rooms[0].bytes)) for job in jobs]
        found = [ear.wait().tokens() for ear in ears]
        assert batcher.load.preempted > 0
    assert max(most) <= longest
    assert [spoken(base, f) for f in found] == [alone(engine, job) for job in jobs]


@pytest.mark.parametrize("kind", ["token", "kv"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_echo_scores_the_input_as_the_stock_forward_does(name: str, kind: str) -> None:
    """As lm-evaluation-harness asks: with one token behind it, or none; read in parts, with what was kept from before."""
    engine = Engine(toy_base(name), keep=False)
    base, prompt, ids = engine.base, carried(toy_base(name), kind), list(LONG.encode())
    states = plain_states(base, Encoded(((), tuple(ids))), prompt.forms)
    logs = torch.log_softmax(base.logits(states.detach()), -1)
    wanted = logs[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
    with serving(engine, step_tokens=24) as batcher:
        for most in (1, 0, 1):
            asked = Sampling(max_tokens=most, temperature=0.0, logprobs=2, echo=True)
            ear = ask(batcher, generation(["", LONG], prompt, asked)).wait()
            assert ear.echo.tokens == tuple(ids)
            assert ear.echo.logprobs[0] is None
            torch.testing.assert_close(torch.tensor(ear.echo.logprobs[1:]), wanted, atol=1e-4, rtol=0)
            assert [top[0][0] for top in ear.echo.top[1:]] == logs[:-1].argmax(-1).tolist()
            assert len(ear.tokens()) == most
            assert (ear.end.reason, ear.end.prompt_tokens, ear.end.virtual_tokens) == ("length", len(ids), 3) or most
            if most:
                (token,) = ear.of(TokenEvent)
                assert token.logprob == pytest.approx(float(logs[-1, token.token]), abs=1e-4)
                assert [t for t, _ in token.top] == logs[-1].topk(2).indices.tolist()


@pytest.mark.parametrize("kind", ["token", "kv"])
def test_echo_behind_a_prompt_in_the_middle_is_conditioned_on_it(engine: Engine, kind: str) -> None:
    base, prompt = engine.base, carried(engine.base, kind)
    cue = list(b" is the label")
    states = plain_states(base, Encoded((tuple(LONG.encode()), tuple(cue))), prompt.forms)
    logs = torch.log_softmax(base.logits(states.detach()), -1)
    wanted = logs[torch.arange(len(cue) - 1), torch.tensor(cue[1:])]
    with serving(engine) as batcher:
        asked = Sampling(max_tokens=0, logprobs=0, echo=True)
        ear = ask(batcher, generation([LONG, " is the label"], prompt, asked)).wait()
    assert len(ear.echo.tokens) == len(LONG) + len(cue)
    assert None not in ear.echo.logprobs[1:]
    torch.testing.assert_close(torch.tensor(ear.echo.logprobs[len(LONG) + 1 :]), wanted, atol=1e-4, rtol=0)


# ---- sampling, stops -----------------------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_choices_whatever_else_is_there(engine: Engine) -> None:
    asked = Sampling(seed=7, temperature=1.0, top_p=0.9, top_k=40, max_tokens=8, n=3, ignore_end=True)
    job = generation([LONG[:20]], None, asked)
    with serving(engine, max_rows=4) as batcher:
        first = ask(batcher, job).wait()
        others = [ask(batcher, generation([LONG], None, Sampling(max_tokens=20))) for _ in range(3)]
        second = ask(batcher, job).wait()
        for other in others:
            other.wait()
        before = batcher.load.tokens_computed
        third = ask(batcher, generation(["one more text of its own"], None, asked)).wait()
        assert batcher.load.tokens_computed - before == len("one more text of its own") + 3 * (8 - 1)
    choices = [first.tokens(choice) for choice in range(3)]
    assert [second.tokens(choice) for choice in range(3)] == choices
    assert len({tuple(c) for c in choices}) == 3
    assert [third.end.reason, third.end.completion_tokens] == ["length", 8]


def test_more_choices_than_rows_all_end(engine: Engine) -> None:
    asked = Sampling(n=5, seed=1, max_tokens=4, ignore_end=True, logprobs=1, echo=True)
    with serving(engine, max_rows=2) as few, serving(engine, max_rows=8) as many:
        found = [ask(b, generation([LONG[:12]], None, asked)).wait() for b in (few, many)]
    assert [found[0].tokens(c) for c in range(5)] == [found[1].tokens(c) for c in range(5)]
    assert [len(ear.of(EndEvent)) for ear in found] == [5, 5]
    assert {e.tokens for ear in found for e in ear.events if hasattr(e, "tokens")} == {tuple(LONG[:12].encode())}


def test_a_stop_text_ends_a_choice_and_never_shows(engine: Engine) -> None:
    whole = Sampling(temperature=0.0, max_tokens=24, ignore_end=True)
    with serving(engine) as batcher:
        said = ask(batcher, generation([LONG], None, whole)).wait()
        stop = said.text()[5:8]
        stopping = Sampling(temperature=0.0, max_tokens=24, ignore_end=True, stop=("never said", stop))
        ear = ask(batcher, generation([LONG], None, stopping)).wait()
        token = said.tokens()[4]
        by_token = ask(
            batcher,
            generation([LONG], None, Sampling(temperature=0.0, max_tokens=24, ignore_end=True, stop_tokens=(token,))),
        ).wait()
    assert ear.text() == said.text()[: said.text().index(stop)]
    assert (ear.end.reason, ear.end.matched) == ("stop", stop)
    assert (by_token.end.reason, by_token.end.matched) == ("stop", token)
    assert by_token.tokens() == said.tokens()[: said.tokens().index(token) + 1]
    assert said.end.reason == "length"


def test_the_end_token_is_reported_without_text(engine: Engine) -> None:
    """Who scores texts drops the last token of the list; without the end token that would be one of the input."""
    base = engine.base
    with serving(engine) as batcher:
        ear = next(
            e
            for seed in range(20)
            if (
                e := ask(batcher, generation(["x"], None, Sampling(seed=seed, max_tokens=300, logprobs=0))).wait()
            ).end.reason
            == "stop"
        )
    assert ear.tokens()[-1] == base.end
    assert base.end not in ear.tokens()[:-1]
    assert ear.end.matched is None
    assert ear.end.completion_tokens == len(ear.tokens())
    assert all(e.logprob is not None and e.top == () for e in ear.of(TokenEvent))


# ---- kept states -----------------------------------------------------------------------------------------------------------


def test_a_text_is_read_once_for_all_prompts_that_begin_with_it(engine: Engine) -> None:
    """One after another, and all at once; texts that begin alike share the blocks that are alike."""
    base = engine.base
    prompts = [carried(base, kind, seed=s) for s in (1, 2, 3) for kind in ("kv", "token")]
    vectors, cue = 3 * 3, 6 * 1  # of the three token prompts; ":" of all
    for together in (False, True):
        with serving(engine) as batcher:
            ears = []
            for prompt in prompts:
                ears.append(ask(batcher, generation([LONG, ":"], prompt, Sampling(temperature=0.0, max_tokens=1))))
                if not together:
                    ears[-1].wait()
            for ear in ears:
                ear.wait()
            assert batcher.load.tokens_computed == len(LONG) + vectors + cue
            assert batcher.load.tokens_reused == 5 * len(LONG)
            ask(batcher, generation([LONG[:70] + " differs", ":"], prompts[0], Sampling(max_tokens=1))).wait()
            assert batcher.load.tokens_computed == len(LONG) + vectors + cue + 70 - 64 + len(" differs:")
            assert sum(e.end.reused_tokens for e in ears) == 5 * len(LONG)


def test_vectors_that_come_first_are_computed_once(engine: Engine) -> None:
    prompt = carried(engine.base, "token", length=5)
    with serving(engine) as batcher:
        ears = [ask(batcher, generation(["", text], prompt, Sampling(max_tokens=1))) for text in ("one", "other")]
        for ear in ears:
            ear.wait()
        assert batcher.load.tokens_computed == 5 + len("oneother")


def test_a_name_used_again_for_another_prompt_finds_nothing_of_the_first(engine: Engine) -> None:
    base = engine.base
    first, second = (carried(base, "token", seed=s) for s in (1, 2))
    renamed = Carried(name=first.name, content=second.content, forms=second.forms)
    job, other = (generation(["", LONG[:20]], prompt) for prompt in (first, renamed))
    with serving(engine) as batcher:
        ask(batcher, job).wait()
        assert spoken(base, ask(batcher, other).wait().tokens()) == alone(engine, generation(["", LONG[:20]], second))


def test_what_is_kept_stays_within_its_bytes(engine: Engine) -> None:
    base = engine.base
    block = 2 * base.layers * base.heads * 32 * base.head_size * 4
    with serving(engine, text_bytes=3 * block, prompt_bytes=1000) as batcher:
        jobs = [generation([f"{n} {LONG}", ":"], carried(base, "kv", seed=n)) for n in range(4)]
        ears = [ask(batcher, job) for job in jobs]
        for job, ear in zip(jobs, ears, strict=True):
            assert spoken(base, ear.wait().tokens()) == alone(engine, job)
        load = batcher.load
        assert batcher.texts.bytes <= 3 * block
        assert batcher.prompts.cache.bytes <= 1000
        assert load.text_evictions > 0
        assert load.cached_bytes == batcher.texts.bytes + batcher.prompts.cache.bytes


# ---- bounds and faults -----------------------------------------------------------------------------------------------------


def test_a_full_queue_refuses(engine: Engine) -> None:
    batcher = Batcher(engine, BatcherSettings(queue_length=2, cache_bytes=10**7))  # not started: all wait
    ears = [ask(batcher, generation(["a"])) for _ in range(2)]
    with pytest.raises(QueueFull, match="2 requests are waiting"):
        ask(batcher, generation(["a"]))
    assert batcher.load.waiting == 2
    batcher.start()
    for ear in ears:
        ear.wait()
    batcher.close(drain=True, timeout=10.0)
    with pytest.raises(QueueFull, match="closing"):
        ask(batcher, generation(["a"]))
    assert (batcher.load.waiting, batcher.load.finished) == (0, 2)


def test_what_waiting_requests_hold_has_a_bound(engine: Engine) -> None:
    """The queue counted requests, however large: 256 of 128 choices with 20 log probabilities each were gigabytes."""
    job = generation(["a text"], None, Sampling(max_tokens=10, n=4, logprobs=5))
    each = bytes_of(job)
    batcher = Batcher(engine, BatcherSettings(held_bytes=2 * each, cache_bytes=10**7))  # not started: all wait
    ears = [ask(batcher, job) for _ in range(2)]
    with pytest.raises(QueueFull, match="MB already"):
        ask(batcher, generation(["a"]))
    with pytest.raises(TaskError, match="would hold"):
        ask(batcher, replace(job, sampling=replace(job.sampling, n=9)))
    assert batcher.load.held_bytes == 2 * each
    batcher.start()
    for ear in ears:
        ear.wait()
    ask(batcher, generation(["a"])).wait()
    batcher.close(drain=True, timeout=10.0)
    assert batcher.load.held_bytes == 0


def test_what_can_never_be_served_is_refused_at_once(engine: Engine) -> None:
    base = engine.base
    prompt = carried(base, "kv")
    nan = Carried(name="bad", content="bad", forms=(KeyValue(prompt.forms[0].keys * float("nan"), prompt.forms[0].values),))
    narrow = Carried(name="narrow", content="narrow", forms=(Embedded(torch.zeros(3, base.hidden + 1)),))
    varying = Carried(name="pool", content="pool", forms=(Embedded(torch.zeros(2, 3, base.hidden)),))
    with serving(engine, cache_bytes=20_000) as batcher:
        for job, error, match in (
            (generation(["x" * 600]), TaskError, "600 input tokens, 0 of the prompt and 8 of the answer"),
            (generation(["x" * 400]), TaskError, "never fit"),
            (generation([""]), TaskError, "input is empty"),
            (generation(["text", ""], prompt), TaskError, "nothing stands after the prompt"),
            (generation(["text"], prompt), TaskError, "1 segments of text were given for 1 prompt blocks"),
            (Generation(segments=((1, 99999),), prompt=None, sampling=GREEDY), TaskError, "token 99999"),
            (generation(["", "text"], nan), Corrupt, "not finite"),
            (generation(["", "text"], narrow), BaseMismatch, "shape"),
            (generation(["", "text"], varying), BaseMismatch, "shape"),
        ):
            with pytest.raises(error, match=match):
                ask(batcher, job)
        assert ask(batcher, generation(["fine"])).wait().end.reason == "length"


@pytest.mark.parametrize(
    "wrong", [{"max_tokens": -1}, {"temperature": -0.1}, {"top_p": 0.0}, {"n": 0}, {"stop": ("",)}, {"logprobs": -1}]
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Sampling(**wrong)


@pytest.mark.parametrize("kind", ["token", "kv"])
def test_a_prompt_whose_states_are_no_numbers_fails_alone(engine: Engine, kind: str) -> None:
    """Its tensors go bad after they were checked; nothing of them is left to those that come after it."""
    base, tree = engine.base, tree_of(engine.base, "yes", "no")
    good, bad = carried(base, kind, seed=1), carried(base, kind, seed=2)
    row = Encoded((tuple(LONG[:20].encode()), (10, 11)))
    with serving(engine) as batcher:
        batcher.prompts.prepare(bad, plain=False)
        for form in bad.forms:
            (form.vectors if isinstance(form, Embedded) else form.values)[0] = float("nan")
        jobs = [generation([LONG[:n], ":"], bad if n % 2 else good) for n in range(20, 26)]
        ears = [ask(batcher, job) for job in jobs]
        labels = [ask(batcher, Classification(rows=(row, row), prompt=p, tree=tree)) for p in (bad, good)]
        later = [ask(batcher, job) for job in jobs[::2]]
        for job, ear in [*zip(jobs, ears, strict=True), *zip(jobs[::2], later, strict=True)]:
            if job.prompt is good:
                assert spoken(base, ear.wait().tokens()) == alone(engine, job)
            else:
                assert ear.wait().end.reason == "error"
                assert f"prompt '{kind}-2' gives states that are not finite" in str(ear.end.error)
        assert [ear.wait().end.reason for ear in labels] == ["error", "stop"]


def test_a_pass_that_fails_for_one_row_is_computed_again_without_it(engine: Engine) -> None:
    with serving(engine) as batcher:
        step = batcher.decoder.step

        def failing(parts: object) -> object:
            if any(part.row.ids[0] == ord("!") for part in parts):
                raise RuntimeError("out of memory")
            return step(parts)

        batcher.decoder.step = failing
        jobs = [generation([text]) for text in ("fine text", "!bad", "another")]
        ears = [ask(batcher, job).wait() for job in jobs]
        assert [ear.end.reason == "error" for ear in ears] == [False, True, False]
        assert "could not be computed (RuntimeError)" in str(ears[1].end.error)
        assert spoken(engine.base, ears[2].tokens()) == alone(engine, jobs[2])


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in Linux's /proc")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="workers there are only beside another processor")
def test_whoever_starts_it_leaves_the_processors_to_it(engine: Engine) -> None:
    """The thread that had loaded the base kept its workers, beside which every step took 1.6 times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.randn(512, 512) @ torch.randn(512, 512)
        having = sum(1 for _ in Path("/proc/self/task").iterdir())
        batcher = Batcher(engine)
        batcher.start()
        assert sum(1 for _ in Path("/proc/self/task").iterdir()) == having  # its thread came, our worker went
        batcher.close(drain=True, timeout=10.0)
    finally:
        torch.set_num_threads(before)


def test_a_step_that_breaks_off_leaves_nobody_waiting(engine: Engine) -> None:
    """Choices that had just been taken out of the lists heard nothing, ever: their clients waited for the time to be up."""
    with serving(engine, max_rows=4) as batcher:
        admit = batcher.schedule.admit

        def failing(choice: Choice) -> bool:
            if choice.number == 1:
                raise RuntimeError("out of memory")
            return admit(choice)

        batcher.schedule.admit = failing
        ear = ask(batcher, generation(["a text"], None, Sampling(n=3, max_tokens=4))).wait()
        assert [end.reason for end in ear.of(EndEvent)] == ["error"] * 3
        assert ask(batcher, generation(["another"])).wait().end.reason == "length"
    assert (batcher.load.running, batcher.load.waiting) == (0, 0)


def test_a_listener_that_fails_loses_its_request_only(engine: Engine) -> None:
    def deaf(event: Event) -> None:
        raise ValueError("no ears")

    with serving(engine) as batcher:
        batcher.submit(generation(["a text"], None, Sampling(max_tokens=100)), deaf)
        assert ask(batcher, generation(["another"])).wait().end.reason == "length"


def test_a_cancelled_request_stops_computing(engine: Engine) -> None:
    """While it runs, while its input is read, and while it waits."""
    endless = Sampling(max_tokens=400, ignore_end=True)
    with serving(engine, max_rows=1, step_tokens=16) as batcher:
        heard = threading.Event()
        running = ask(batcher, generation(["a text"], None, endless), lambda n: heard.set() if n > 3 else None)
        waiting = ask(batcher, generation([LONG], None, endless))
        assert heard.wait(60)
        waiting.ticket.cancel()
        assert waiting.wait().end.reason == "cancelled"
        running.ticket.cancel()
        assert running.wait().end.reason == "cancelled"
        reading = ask(
            batcher,
            Classification(rows=(Encoded((tuple(LONG.encode()) * 4,)),), prompt=None, tree=tree_of(engine.base, "a", "b")),
        )
        reading.ticket.cancel()
        assert reading.wait().end.reason == "cancelled"
        assert ask(batcher, generation(["after"])).wait().end.reason == "length"
    assert len(running.tokens()) < 400


def test_closing_finishes_what_runs_or_cancels_it(engine: Engine) -> None:
    for started, drain, reason in ((True, True, "length"), (True, False, "cancelled"), (False, True, "cancelled")):
        batcher = Batcher(engine, BatcherSettings(cache_bytes=10**7))
        if started:
            batcher.start()
        ears = [ask(batcher, generation(["text"], None, Sampling(max_tokens=60, ignore_end=True))) for _ in range(3)]
        batcher.close(drain=drain, timeout=60.0)
        assert {ear.end.reason for ear in ears} == {reason}


def test_a_classification_of_no_rows_is_over_at_once(engine: Engine) -> None:
    with serving(engine) as batcher:
        ear = ask(batcher, Classification(rows=(), prompt=None, tree=tree_of(engine.base, "a", "b"))).wait()
    assert ear.labels == []


def test_classifications_and_sequences_take_turns(engine: Engine) -> None:
    """A long classification holds up neither a short one nor tokens that run."""
    tree = tree_of(engine.base, "a", "b")
    rows = tuple(Encoded((tuple(f"{n} {LONG}".encode()),)) for n in range(30))
    with serving(engine, step_tokens=64) as batcher:
        long = ask(batcher, Classification(rows=rows, prompt=None, tree=tree))
        short = ask(batcher, Classification(rows=rows[:1], prompt=None, tree=tree))
        running = ask(batcher, generation(["a text"]))
        short.wait()
        running.wait()
        assert not long.ended.is_set()
        long.wait()
    torch.testing.assert_close(torch.tensor(long.labels[:1]), torch.tensor(short.labels), atol=1e-4, rtol=0)


def test_steps_are_larger_where_only_labels_are_asked(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 256 tokens were kept small for tokens that nobody waited for: labels of short texts took a quarter longer."""
    seen: list[tuple[int, bool]] = []
    plan = schedule.Schedule.plan

    def counted(self: schedule.Schedule) -> list[schedule.Planned]:
        planned = plan(self)
        seen.append((sum(len(part.elements) for _, part in planned), bool(self.running or self.waiting)))
        return planned

    monkeypatch.setattr(schedule.Schedule, "plan", counted)
    rows = tuple(Encoded((tuple(f"{n} {LONG}".encode()),)) for n in range(12))
    with serving(engine, step_tokens=16, label_tokens=96) as batcher:
        ask(batcher, Classification(rows=rows, prompt=None, tree=tree_of(engine.base, "a", "b"))).wait()
        ask(batcher, generation([LONG])).wait()
    assert 16 < max(tokens for tokens, generates in seen if not generates) <= 96
    assert 0 < max(tokens for tokens, generates in seen if generates) <= 16


# ---- other bases -----------------------------------------------------------------------------------------------------------


def test_a_base_that_is_run_by_plain_concatenation_is_served_row_by_row() -> None:
    import transformers as t

    torch.manual_seed(0)
    model = t.BloomForCausalLM(t.BloomConfig(vocab_size=260, hidden_size=16, n_layer=2, n_head=4, eos_token_id=256))
    engine = Engine(wrap_model(model, toy_tokenizer(), name="toy-bloom"), keep=False)
    assert engine.plain
    prompt, tree = carried(engine.base, "token"), tree_of(engine.base, "yes", "yesterday", "no")
    rows = tuple(Encoded((tuple(text.encode()), (10, 11))) for text in ("one", "another text"))
    with serving(engine) as batcher:
        jobs = [generation(["some text", ":"], prompt), generation(["", "other"], prompt), generation(["bare"])]
        ears = [ask(batcher, job) for job in jobs]
        labelling = Classification(rows=rows, prompt=prompt, tree=tree)
        labelled = ask(batcher, labelling)
        choices = ask(batcher, generation(["bare"], None, Sampling(n=2, seed=1, echo=True, logprobs=1, max_tokens=3))).wait()
        for job, ear in zip(jobs, ears, strict=True):
            assert spoken(engine.base, ear.wait().tokens()) == alone(engine, job)
        torch.testing.assert_close(
            torch.tensor(labelled.wait().labels), labelled_alone(engine, labelling), atol=1e-4, rtol=0
        )
        with pytest.raises(Unsupported, match="keys and values"):
            ask(batcher, generation(["some text", ":"], carried(engine.base, "kv")))
    assert len(choices.of(EndEvent)) == 2
    assert len(choices.echo.logprobs) == 4


@pytest.mark.base
@pytest.mark.slow
def test_the_embedded_base_answers_a_mix_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPIGRAPH_HOME", os.environ["EPIGRAPH_REAL_HOME"])
    engine = Engine(load_base(dtype="float32"), keep=False)
    base = engine.base
    prompts = [None, carried(base, "kv"), carried(base, "token")]
    texts = [base.tokenize(t) for t in ("Paris is the capital of", "机器学习是", "One, two, three,")]
    jobs = []
    for text in texts:
        for p in prompts:
            segments = (tuple(text),) if p is None else (tuple(text[:2]), tuple(text[2:]))
            jobs.append(Generation(segments=segments, prompt=p, sampling=GREEDY))
    with serving(engine, cache_bytes=10**9) as batcher:
        ears = [ask(batcher, job) for job in jobs]
        for job, ear in zip(jobs, ears, strict=True):
            assert spoken(base, ear.wait().tokens()) == alone(engine, job)
            assert ear.text() == base.detokenize(ear.tokens())


def test_a_fault_while_a_token_is_chosen_ends_one_request(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It ended everybody's: only the pass of the base was tried again for each alone."""
    choose, take = batcher_module.choose, Choice.take

    def choosing(logits: torch.Tensor, samplers: list[Any]) -> list[int]:
        if any(sampler.sampling.seed == 13 for sampler in samplers):
            raise RuntimeError("a private text")
        return choose(logits, samplers)

    def taking(choice: Choice, token: int, described: Described | None) -> None:
        if choice.sampling.seed == 14:
            raise UnicodeError("a private text")
        take(choice, token, described)

    monkeypatch.setattr(batcher_module, "choose", choosing)
    monkeypatch.setattr(Choice, "take", taking)
    with serving(engine) as batcher:
        ears = [ask(batcher, generation([LONG], sampling=replace(GREEDY, seed=seed))) for seed in (12, 13, 14, 15)]
        reasons = [ear.wait().of(EndEvent)[0].reason for ear in ears]
    assert "RuntimeError at serve/batcher_test.py" in caplog.text
    assert "private" not in caplog.text
    assert reasons == ["length", "error", "error", "length"]


def test_after_a_fault_the_others_draw_what_they_would_have_drawn(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their tokens were chosen again, each alone, by the next numbers of their seeds: another answer for the same seed."""
    drawn = [Sampling(seed=seed, max_tokens=12, ignore_end=True, logprobs=seed % 3) for seed in range(6)]
    jobs = [generation([LONG[: 20 + n]], sampling=sampling) for n, sampling in enumerate(drawn)]
    with serving(engine) as batcher:
        expected = [ask(batcher, job).wait().tokens() for job in jobs]
    describe = batcher_module.describe

    def describing(logits: torch.Tensor, tokens: list[int], alternatives: list[int]) -> Any:
        if 7 in alternatives:
            raise RuntimeError("no")
        return describe(logits, tokens, alternatives)

    monkeypatch.setattr(batcher_module, "describe", describing)
    with serving(engine) as batcher:
        faulty: list[Ear] = []

        def fail(heard: int) -> None:
            if heard % 4 == 2:
                faulty.append(ask(batcher, generation(["a"], sampling=replace(GREEDY, logprobs=7))))

        ears = [ask(batcher, job, fail) for job in jobs]
        assert [ear.wait().tokens() for ear in ears] == expected
        assert {ear.wait().end.reason for ear in faulty} == {"error"}


def test_a_fault_while_states_are_taken_ends_one_request(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log probabilities of one input, over the whole vocabulary, could be too many for the memory: it ended everybody's."""
    read = Choice.read

    def reading(choice: Choice, *given: Any) -> None:
        if choice.echo is not None:
            raise MemoryError
        read(choice, *given)

    monkeypatch.setattr(Choice, "read", reading)
    with serving(engine) as batcher:
        jobs = [generation([LONG], sampling=replace(GREEDY, echo=echo, logprobs=1, n=2)) for echo in (False, True, False)]
        ears = [ask(batcher, job).wait() for job in jobs]
    assert [[end.reason for end in ear.of(EndEvent)] for ear in ears] == [["length"] * 2, ["error"] * 2, ["length"] * 2]
    assert spoken(engine.base, ears[2].tokens()) == alone(engine, jobs[2])
