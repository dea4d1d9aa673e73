"""A model at an OpenAI-style address as a teacher.

    labels, by echo      every label behind the text, echoed with its log probabilities; where labels part, the log softmax over
                         the tokens that lead on: what ``tasks/trie.py`` computes of a base that is here
    labels, by the top   where echo is refused: the likeliest first tokens of the answer, each given to the label that begins so,
                         whatever its case and spaces; what several labels begin with is shared among them as their own tokens
                         are; a label that is not among them gets the least of theirs
    generation           the greedy text

Where completions are refused (status 400 or 404: most hosted models only chat), the same text is asked as a user's message.

What is found is made to sum to one over the labels. The model reads the hard prompt before every row, and nothing but text goes
over the wire, so it may have any vocabulary.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from epigraph.distilling.address import Address, Refused
from epigraph.distilling.taught import Taught, of_logs
from epigraph.distilling.written import HardPrompt
from epigraph.errors import EpigraphError, FetchFailed, Unsupported
from epigraph.tasks.row import Row

TOGETHER = 8  # rows between two saves
TEXTS_A_REQUEST = 16
MOST_TOP = (20, 5)  # alternatives asked for; OpenAI gives at most 5
TAIL = 32  # characters by which an echo is known
PART_OF_A_CHARACTER = "\ufffd"
Top = list[tuple[str, float]]  # tokens with their log probabilities
Echo = list[tuple[str, float]]  # tokens with their log probabilities; that of the first is not known and counts as 0
LEAST_REST = 1e-9
MOST_SHARED = 0.5  # of the probability of all labels' tokens: above it the first tokens do not tell the labels apart
ONLY_CHATS = (400, 404)
NO_ECHO = (400, 404, 405, 415, 422, 501)


@dataclass(kw_only=True)
class RemoteTeacher:
    """Asks ``address`` about rows under ``hard``. Unsupported where labels are asked for and no log probabilities come."""

    address: Address
    hard: HardPrompt
    output_tokens: int
    together: int = TOGETHER
    vocabulary: Mapping[str, int] | None = None
    echoes: bool = field(default=True, init=False)
    chats: bool = field(default=False, init=False)

    @property
    def name(self) -> str:
        """Model and address."""
        return f"{self.address.model} at {self.address.url}"

    @property
    def text(self) -> str:
        """What it reads before every row."""
        return self.hard.before

    @property
    def shown(self) -> Sequence[Row]:
        """The examples in it."""
        return self.hard.examples

    @property
    def identity(self) -> Mapping[str, Any]:
        """Address, model, and what it is asked."""
        task = self.hard.task
        probe = Row(fields=dict.fromkeys(task.template.fields, "\0"))
        return {
            "url": self.address.endpoint,
            "model": self.address.model,
            "asked": self.hard.ask(probe),
            "labels": [[label, words] for label, words in task.labels.items()],
            "answers": [task.kind, self.output_tokens, list(task.stop)],
        }

    def teach(self, rows: Sequence[Row]) -> list[Taught]:
        """The answers to these rows; FetchFailed where what comes back has not the shape that OpenAI gives it."""
        try:
            return self._teach(rows)
        except EpigraphError:
            raise
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise FetchFailed(
                f"{self.name} answered with something that cannot be read: {type(error).__name__}: {error}.",
                "Is it an OpenAI-style address? What was answered before is kept.",
            ) from error

    def _teach(self, rows: Sequence[Row]) -> list[Taught]:
        if self.hard.task.writes:
            return [Taught(text=text) for text in self._write(rows)]
        if self.echoes:
            try:
                return self._by_echo(rows)
            except _NoEcho:
                self.echoes = False
        return [self._by_top(row) for row in rows]

    def ask(self, row: Row) -> None:
        """One request alone: the first token of an answer, or the whole text."""
        if self.hard.task.writes:
            self._write([row])
        else:
            self._first_token(row)

    def tokens(self, rows: Sequence[Row]) -> float | None:
        """Tokens that one request reads, as the address counts them; None where it does not say."""
        some = rows[:4]
        found = [self._first_token(row) for row in some]
        counts = [(one.get("usage") or {}).get("prompt_tokens") for one in found]
        known = [count for count in counts if isinstance(count, int)]
        return sum(known) / len(known) if known else None

    def _first_token(self, row: Row) -> Mapping[str, Any]:
        text, request = self.hard.ask(row), {"max_tokens": 1, "temperature": 0}
        try:
            return self._asked(text, request)
        except Refused as refusal:
            if self.chats or refusal.status not in ONLY_CHATS:
                raise
        found = self.address.chat(text, request)
        self.chats = True
        return found

    def _asked(self, text: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer to one text, in the way that this address takes."""
        return self.address.chat(text, request) if self.chats else self.address.complete({"prompt": text, **request})

    # ---- labels ------------------------------------------------------------------------------------------------------

    def _by_echo(self, rows: Sequence[Row]) -> list[Taught]:
        said = [self.hard.say(words) for words in self.hard.task.labels.values()]
        texts = [self.hard.ask(row) + words for row in rows for words in said]
        echoes: list[Echo] = []
        for start in range(0, len(texts), TEXTS_A_REQUEST):
            echoes += self._echoed(texts[start : start + TEXTS_A_REQUEST])
        each = len(said)
        return [of_logs(tree_logs(echoes[i * each : (i + 1) * each])) for i in range(len(rows))]

    def _echoed(self, texts: Sequence[str]) -> list[Echo]:
        request = {"prompt": list(texts), "max_tokens": 0, "echo": True, "logprobs": 1, "temperature": 0}
        try:
            choices = _in_order(self.address.complete(request), len(texts), self.name)
        except Refused as refusal:
            if refusal.status in NO_ECHO:
                raise _NoEcho from refusal
            raise
        return [_echo_of(choice, text) for choice, text in zip(choices, texts, strict=True)]

    def _by_top(self, row: Row) -> Taught:
        words = [self.hard.say(one).strip() for one in self.hard.task.labels.values()]
        try:
            return of_logs(first_token_logs(self._top(row), words))
        except _Shared as shared:
            raise Unsupported(
                f"{self.name} does not echo, and its likeliest tokens do not tell the labels apart: several begin with "
                f"{str(shared)!r}.",
                "Give the labels words that begin differently, under [labels] in the task TOML.",
            ) from None

    def _top(self, row: Row) -> Top:
        """The likeliest first tokens of the answer with their log probabilities."""
        text = self.hard.ask(row)
        try:
            return self._likeliest(text)
        except Refused as refusal:
            if self.chats or refusal.status not in ONLY_CHATS:
                raise self._without(str(refusal.message)) from refusal
            self.chats = True
            try:
                return self._likeliest(text)
            except Refused as other:
                self.chats = False
                raise self._without(f"{refusal.message} {other.message}") from other

    def _likeliest(self, text: str) -> Top:
        for count in MOST_TOP:
            said = {"logprobs": True, "top_logprobs": count} if self.chats else {"logprobs": count}
            try:
                (choice,) = _in_order(self._asked(text, {"max_tokens": 1, "temperature": 0, **said}), 1, self.name)
            except Refused as refusal:
                if refusal.status in NO_ECHO and count != MOST_TOP[-1]:
                    continue
                raise
            if found := _top_of(choice):
                return found
            break
        raise self._without("its answers hold none")

    def _without(self, why: str) -> Unsupported:
        return Unsupported(
            f"{self.name} gives no log probabilities, without which no distribution over labels is known: {why}.",
            "Choose an address that gives logprobs (epigraph serve, vLLM, llama.cpp, hosted models that chat), or a model in a folder.",
        )

    # ---- generation --------------------------------------------------------------------------------------------------

    def _write(self, rows: Sequence[Row]) -> list[str]:
        texts = [self.hard.ask(row) for row in rows]
        request: dict[str, Any] = {"max_tokens": self.output_tokens, "temperature": 0}
        if self.hard.task.stop:
            request["stop"] = list(self.hard.task.stop)
        if not self.chats:
            try:
                choices = _in_order(self.address.complete({"prompt": texts, **request}), len(rows), self.name)
                return [str(choice.get("text") or "").strip() for choice in choices]
            except Refused as refusal:
                if refusal.status not in ONLY_CHATS:
                    raise
                return self._chatted(texts, request, refusal)
        return self._chatted(texts, request)

    def _chatted(self, texts: Sequence[str], request: Mapping[str, Any], refused: Refused | None = None) -> list[str]:
        """The answers to messages, one a request; ``refused`` is why no completions are asked, where that is new."""
        try:
            answers = [self.address.chat(text, request) for text in texts]
        except Refused as other:
            raise (refused if refused is not None and other.status in ONLY_CHATS else other) from other
        self.chats = True
        choices = [_in_order(answer, 1, self.name)[0] for answer in answers]
        return [str((choice.get("message") or {}).get("content") or "").strip() for choice in choices]


class _Shared(Exception):
    """Several labels begin with this token, which holds most of their probability."""


class _NoEcho(Exception):
    """The address does not echo a text with its log probabilities."""


def _in_order(answer: Mapping[str, Any], count: int, name: str) -> list[Mapping[str, Any]]:
    choices = [one for one in answer["choices"] if isinstance(one, dict)]
    if len(choices) != count:
        raise FetchFailed(f"{name} was asked {count} texts and answered {len(choices)}.", "Is it an OpenAI-style address?")
    return sorted(choices, key=lambda one: int(one.get("index") or 0))


def _echo_of(choice: Mapping[str, Any], text: str) -> Echo:
    """The tokens of an echoed text; _NoEcho where they are not there, or something was written behind them."""
    logprobs = choice.get("logprobs") or {}
    tokens, logs = logprobs.get("tokens"), logprobs.get("token_logprobs")
    if not tokens or not logs or len(tokens) != len(logs) or not str(choice.get("text") or "").endswith(text[-TAIL:]):
        raise _NoEcho
    if any(log is None for log in logs[1:]):
        raise _NoEcho
    return [(str(token), float(log or 0.0)) for token, log in zip(tokens, logs, strict=True)]


def tree_logs(echoes: Sequence[Echo]) -> list[float]:
    """For texts that differ at their ends, log p of each end as the house's label trie has it: where paths part, the log softmax
    over the tokens that lead on, and nothing where only one does.

    Of a label that begins another one, the end is whatever is not the other's next token. A token that is part of a character is
    shown as U+FFFD, like any other such token, so these are told apart by their probability.
    """
    found = [0.0] * len(echoes)
    _descend(list(range(len(echoes))), 0, echoes, found)
    return found


def _descend(among: list[int], depth: int, echoes: Sequence[Echo], found: list[float]) -> None:
    while True:
        groups: dict[tuple[str, float], list[int]] = {}
        ended = [i for i in among if len(echoes[i]) <= depth]
        for i in among:
            if len(echoes[i]) > depth:
                token, log = echoes[i][depth]
                groups.setdefault((token, round(log, 1) if PART_OF_A_CHARACTER in token else 0.0), []).append(i)
        if len(groups) != 1 or ended:
            break
        depth += 1
    logs = [echoes[group[0]][depth][1] for group in groups.values()]
    if ended:
        logs.append(math.log(max(LEAST_REST, 1 - sum(map(math.exp, logs)))))
    whole = math.log(sum(map(math.exp, logs))) if logs else 0.0
    for group, log in zip([*groups.values(), ended], [*logs, 0.0], strict=False):
        for i in group:
            found[i] += log - whole
        if len(group) > 1 and group is not ended:
            _descend(group, depth + 1, echoes, found)


def _top_of(choice: Mapping[str, Any]) -> Top:
    """The likeliest first tokens of an answer: a mapping where a text was completed, a list where a message was answered."""
    logprobs = choice.get("logprobs") or {}
    found = (logprobs.get("top_logprobs") or [None])[0]
    if isinstance(found, dict):
        return [(str(token), float(log)) for token, log in found.items()]
    first = (logprobs.get("content") or [{}])[0]
    return [(str(one["token"]), float(one["logprob"])) for one in first.get("top_logprobs") or []]


def first_token_logs(top: Top, words: Sequence[str]) -> list[float]:
    """For the words of each label, log of the probability that the likeliest tokens give them, all spellings together.

    A token that several labels begin with is split among them as their own tokens are. _Shared where that is most of all.
    """
    least = min(log for _, log in top)
    of = {token: _beginning(token, words) for token, _ in top}
    own = [_sum([log for token, log in top if of[token] == [i]], least) for i in range(len(words))]
    shared = [(log, token) for token, log in top if len(of[token]) > 1]
    told = _sum([log for token, log in top if len(of[token]) == 1], -math.inf)
    if shared and _sum([log for log, _ in shared], -math.inf) > told + math.log(MOST_SHARED / (1 - MOST_SHARED)):
        raise _Shared(max(shared)[1])
    parts = [[one] for one in own]
    for log, token in shared:
        among = of[token]
        whole = _sum([own[i] for i in among], -math.inf)
        for i in among:
            parts[i].append(log + own[i] - whole)
    return [_sum(logs, least) for logs in parts]


def _sum(logs: Sequence[float], default: float) -> float:
    return float(np.logaddexp.reduce(np.asarray(logs, dtype=np.float64))) if logs else default


def _beginning(token: str, words: Sequence[str]) -> list[int]:
    """Which of these words begin with a token, whatever its case, unless that is all that tells them apart."""
    folded = [one.casefold() for one in words]
    bare = token.strip()
    if len(set(folded)) == len(folded):
        words, bare = folded, bare.casefold()
    return [i for i, one in enumerate(words) if bare and one.startswith(bare)]
