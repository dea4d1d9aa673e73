"""From what a request says to token ids: what the base will read, and where the prompt stands in it.

    task request    the text fills the template's free field, the engine adds all else, ``{prompt}`` included
    raw request     nothing is added; the prompt stands at ``prompt_at``, a token index

The task's words are put together by the code that tuned the prompt, so a served prompt answers what its score was of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from epigraph.base import Base
from epigraph.errors import DataError
from epigraph.prompts import KeyValue
from epigraph.serve.faults import Refused, bad
from epigraph.serve.pieces import Pieces
from epigraph.serve.served import Served
from epigraph.serve.work import Classification, Generation, Sampling
from epigraph.tasks.encode import Encoded, Encoder, answer_text
from epigraph.tasks.row import Row
from epigraph.tasks.rows import row_of

Segments = tuple[tuple[int, ...], ...]
Fields = Mapping[str, str | list[str]]
CHOICES = "choices"
MOST_CHOICES = 256
"""A row's own choices."""
MOST_LISTED = 100_000
"""Characters of choices that come as one text, which is split."""
MOST_BEHIND = 1024
"""Tokens that a row's choices are read by, behind it; among F of them F² may see each other."""
MOST_PAIRS = 4 * MOST_BEHIND**2
"""Σ F² of a request's rows."""
MOST_TOLD = 200_000
"""Log probabilities of a request's input that are told: each is an object or two on its way."""


@dataclass(frozen=True, kw_only=True)
class Constrained(Generation):
    """A generation that must say one of ``words``: classification where no probabilities are to be had."""

    words: Mapping[str, str]
    """What may be said → the label that it means."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A job with what its answer needs: counts for the usage, and what the text was."""

    job: Generation | Classification
    tokens: int
    """The user's tokens, the template's text included."""
    virtual: int
    served: Served | None
    text: str = ""
    """What ``echo`` gives back."""
    trimmed: bool = False
    """White space around the answer is left away, as ``predict`` does."""
    row: Row | None = None
    """What is answered by probabilities."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What one prompt of a request says besides its text."""

    sampling: Sampling
    most: int | None
    """Tokens of an answer that were asked for; None: as many as fit the task."""
    raw: bool = False
    prompt_at: tuple[int, ...] | None = None
    fields: Fields | None = None
    special: bool | None = None
    """Whether the tokenizer's beginning token is put before a text; None: on the bare base it is."""
    truncate: bool = False


def check_echo(rendered: Sequence[Rendered]) -> None:
    """Refused (400) for more log probabilities of the input than one answer may hold."""
    told = 0
    for one in rendered:
        if isinstance(one.job, Generation) and one.job.sampling.echo and one.job.sampling.logprobs is not None:
            told += one.tokens * one.job.sampling.n * (1 + one.job.sampling.logprobs)
    if told > MOST_TOLD:
        raise bad(
            f"the log probabilities of {told:,} tokens of the input were asked for; one answer holds {MOST_TOLD:,}.",
            "Ask for fewer logprobs, a smaller n or a shorter prompt, or leave echo out.",
            param="echo",
            code="too_much_echo",
        )


class Renderer:
    """Puts requests into tokens for one base. ``ceiling`` bounds the tokens of an answer."""

    def __init__(self, base: Base, pieces: Pieces, *, ceiling: int, computes_here: bool) -> None:
        self.base = base
        self.pieces = pieces
        self.ceiling = ceiling
        self.computes_here = computes_here

    # ---- task requests -------------------------------------------------------------------------------------------------

    def task(self, served: Served, text: str | None, asked: Asked, *, before: Sequence[int] = ()) -> Rendered:
        """The task's template around the text; ``before`` are the tokens of earlier messages."""
        if asked.prompt_at is not None:
            raise bad(
                "prompt_at is for raw requests; here the task's template says it.", "Add raw: true.", param="prompt_at"
            )
        row = fill_fields(served, text, asked.fields or {})
        if not served.task.writes:
            if asked.sampling.logprobs is not None and not self.computes_here:
                raise bad(
                    "logprobs of a label were asked, but this server's engine (vLLM) gives no label probabilities.",
                    "Leave logprobs out, or serve without --engine vllm.",
                    param="logprobs",
                    code="unsupported",
                )
            if asked.sampling.echo:
                raise bad("a classification prompt answers a label, there is nothing to echo.", param="echo")
            return self._labelling(served, row, before, truncate=asked.truncate)
        answer = min(served.output_tokens, self.ceiling) if asked.most is None else self._bounded(asked.most)
        encoded = self._encode(served, row, answer, before, truncate=asked.truncate)
        if asked.sampling.echo and encoded.segments[0]:
            raise bad(
                f"echo was asked, but prompt {served.reference!r} does not stand first: "
                "tokens before the prompt cannot be conditioned on it.",
                "Send a raw request with prompt_at, or leave echo out.",
                param="echo",
            )
        sampling = replace(asked.sampling, max_tokens=answer, stop=(*asked.sampling.stop, *served.task.stop))
        writing = Generation(segments=encoded.segments, prompt=served.carried, sampling=sampling)
        said = self.base.detokenize([token for segment in encoded.segments for token in segment])
        return Rendered(
            job=writing,
            tokens=encoded.length,
            virtual=served.virtual,
            served=served,
            text=said,
            trimmed=not asked.sampling.echo,
        )

    def rows(self, served: Served, rows: Sequence[Row], *, truncate: bool, before: Sequence[int] = ()) -> Classification:
        """One job that classifies all these rows."""
        for row in rows:
            _check_count(row.choices)
        room, asked = _label_room(served), served.asked(rows)
        encoded = [self._encode(served, row, room, before, truncate=truncate) for row in asked]
        if not served.task.knows_labels:
            encoded = [replace(e, choices=self._choices(served, row)) for e, row in zip(encoded, asked, strict=True)]
            _check_behind(encoded)
        return Classification(rows=tuple(encoded), prompt=served.carried, tree=served.tree, verdicts=served.verdicts)

    def _choices(self, served: Served, row: Row) -> Segments:
        template, closing = served.task.template, self._closing(served)
        said = [self.base.tokenize(answer_text(template, text, closing)) for text in row.choices]
        return tuple(tuple(ids[: served.output_tokens]) for ids in said)

    def _labelling(self, served: Served, row: Row, before: Sequence[int], *, truncate: bool) -> Rendered:
        if self.computes_here:
            job: Classification | Constrained = self.rows(served, [row], truncate=truncate, before=before)
            assert isinstance(job, Classification)
            tokens = length_of(job.rows[0])
        else:
            job = self._constrained(served, row, before, truncate=truncate)
            tokens = sum(map(len, job.segments))
        return Rendered(job=job, tokens=tokens, virtual=served.virtual, served=served, row=row)

    def _constrained(self, served: Served, row: Row, before: Sequence[int], *, truncate: bool) -> Constrained:
        assert served.trie is not None
        encoded = self._encode(served, row, _label_room(served), before, truncate=truncate)
        closing = self._closing(served)
        words = {answer_text(served.task.template, words, closing): label for label, words in served.task.labels.items()}
        # who is held to these words may still spell them by shorter tokens than ours, down to single bytes
        most = max(len(said.encode()) for said in words)
        sampling = Sampling(max_tokens=most + 1, temperature=0.0)
        return Constrained(segments=encoded.segments, prompt=served.carried, sampling=sampling, words=words)

    def _closing(self, served: Served) -> str:
        return self.base.chat_frame()[1] if served.task.chat else ""

    def _encode(self, served: Served, row: Row, answer: int, before: Sequence[int], *, truncate: bool) -> Encoded:
        room = self.base.context - served.stands - answer - len(before)
        if room <= 0:
            raise self._too_long(len(before), served.stands, answer)
        encoded = Encoder(served.task.template, self.base, room, bos=not before, chat=served.task.chat).encode(row)
        if encoded.truncated and not truncate:
            whole = Encoder(served.task.template, self.base, 1 << 30, bos=not before, chat=served.task.chat).encode(row)
            raise self._too_long(whole.length + len(before), served.stands, answer)
        first, *others = encoded.segments
        return replace(encoded, segments=((*before, *first), *others), lead=0 if before else encoded.lead)

    # ---- raw requests --------------------------------------------------------------------------------------------------

    def raw(self, served: Served | None, given: str | Sequence[int], asked: Asked) -> Rendered:
        """The tokens as they are, around the prompt if there is one."""
        ids, text = self._ids(given, special=asked.special if asked.special is not None else not (served or asked.raw))
        virtual = served.stands if served else 0
        if served is None and asked.prompt_at is not None:
            raise bad("prompt_at was given, but the bare base has no prompt.", param="prompt_at")
        if served is None and not ids:
            raise bad("the prompt is empty.", "Give the base a token to go on from.", param="prompt")
        segments = (tuple(ids),) if served is None else _split(served, ids, asked)
        room = self.base.context - len(ids) - virtual
        most = max(1, min(room, self.ceiling)) if asked.most is None else self._bounded(asked.most)
        if most > room:
            raise self._too_long(len(ids), virtual, most)
        job = Generation(
            segments=segments,
            prompt=served.carried if served else None,
            sampling=replace(asked.sampling, max_tokens=most),
        )
        return Rendered(job=job, tokens=len(ids), virtual=virtual, served=served, text=text)

    def _ids(self, given: str | Sequence[int], *, special: bool) -> tuple[list[int], str]:
        if isinstance(given, str):
            begin = [self.base.bos] if special and self.base.bos is not None else []
            return [*begin, *self.base.tokenize(given)], given
        wrong = next((token for token in given if not 0 <= token < self.pieces.size), None)
        if wrong is not None:
            raise bad(f"token id {wrong} was given; the base has 0 to {self.pieces.size - 1}.", param="prompt")
        return list(given), self.base.detokenize(given)

    # ---- bounds --------------------------------------------------------------------------------------------------------

    def _bounded(self, most: int) -> int:
        if most <= self.ceiling:
            return most
        raise bad(f"max_tokens {most} was asked; this server gives at most {self.ceiling}.", param="max_tokens")

    def _too_long(self, tokens: int, virtual: int, answer: int) -> Refused:
        vectors = f" + {virtual} virtual tokens of the prompt" if virtual else ""
        return bad(
            f"the request takes {tokens} tokens{vectors} + {answer} for the answer; the base reads {self.base.context}.",
            "Shorten the text, or ask for fewer max_tokens.",
            code="context_length_exceeded",
            param="prompt",
        )


def length_of(row: Encoded) -> int:
    """The tokens of a row's own text."""
    return sum(map(len, row.segments))


def fill_fields(served: Served, text: str | None, fields: Fields) -> Row:
    """The row: fields given by name, the text in the one that is left, its choices. Refused, naming them, otherwise."""
    columns, known = served.task.columns, served.task.template.fields
    names = [name for name in known if columns.fields.get(name, name)]
    offering = (CHOICES, *columns.choices) if columns.choices else ()
    unknown = [name for name in fields if name not in (*names, *offering)]
    if unknown:
        said = ", ".join(map(repr, [*names, *offering[:1]]))
        raise bad(f"fields {', '.join(map(repr, unknown))} were given; the task has {said}.", param="fields")
    for name in offering:
        if len(fields.get(name, "")) > (MOST_LISTED if isinstance(fields.get(name), str) else MOST_CHOICES):
            raise _too_many(f"{name} is too long")
    lists = [name for name, value in fields.items() if isinstance(value, list) and name not in offering]
    if lists:
        raise bad(f"field {lists[0]!r} is a list; it must be a text.", param="fields")
    whole = _filled(names, text, fields)
    if not offering:
        return Row(fields={name: str(value) for name, value in whole.items()})
    try:
        return row_of(whole, columns, known)
    except DataError as error:
        raise bad(error.message, error.hint, param="fields") from error


def _too_many(what: str) -> Refused:
    return bad(
        f"{what}; a row may have {MOST_CHOICES} choices of {MOST_BEHIND} tokens together.", "Send fewer.", param="fields"
    )


def _check_count(choices: Sequence[str]) -> None:
    """Refused (400) before they are put into tokens."""
    if len(choices) > MOST_CHOICES:
        raise _too_many(f"{len(choices)} choices were given")


def _check_behind(rows: Sequence[Encoded]) -> None:
    """Refused (400) for choices whose masks would not fit into memory."""
    behind = [sum(len(choice) - 1 for choice in row.choices) for row in rows]
    if max(behind, default=0) > MOST_BEHIND:
        raise _too_many(f"the choices of a row take {max(behind)} tokens")
    if sum(tokens**2 for tokens in behind) > MOST_PAIRS:
        raise _too_many(f"the choices of {len(rows)} rows take {sum(behind)} tokens, too many at once")


def _filled(names: Sequence[str], text: str | None, fields: Fields) -> dict[str, str | list[str]]:
    free = [name for name in names if name not in fields]
    if not free and text:
        raise bad("a text was given besides all of the task's fields.", "Leave one of them out.", param="fields")
    if free and text is None:
        raise bad(f"the task's field {', '.join(map(repr, free))} is missing.", "Give a text, or fields.", param="fields")
    if len(free) > 1:
        raise bad(
            f"one text was given, but the task has the fields {', '.join(map(repr, free))}.",
            'Give them by name: "fields": {' + ", ".join(f'"{name}": "…"' for name in free) + "}.",
            param="fields",
        )
    return {**fields, **({free[0]: text} if free and text is not None else {})}


def _split(served: Served, ids: Sequence[int], asked: Asked) -> Segments:
    """The tokens as segments around the prompt's blocks."""
    blocks, forms = len(served.outline), served.outline
    places = asked.prompt_at
    if places is None:
        places = tuple(_default_place(served, number, len(ids)) for number in range(blocks))
        if asked.sampling.echo and any(places):
            raise bad(
                f"echo was asked with prompt {served.reference!r}, which stands after the input: "
                "tokens before the prompt cannot be conditioned on it.",
                "Give prompt_at: 0 puts it before all of them.",
                param="prompt_at",
            )
    if len(places) != blocks:
        raise bad(f"prompt_at has {len(places)} places, the prompt {blocks} blocks.", param="prompt_at")
    if list(places) != sorted(places) or not 0 <= places[0] <= places[-1] <= len(ids):
        raise bad(f"prompt_at is {list(places)}; the places must rise from 0 to {len(ids)}.", param="prompt_at")
    if isinstance(forms[-1], KeyValue) and places[-1] >= len(ids):
        raise bad(
            f"prompt {served.reference!r} consists of keys and values, which only tokens after it see, and none follows.",
            f"With {len(ids)} tokens prompt_at is at most {len(ids) - 1}.",
            param="prompt_at",
        )
    ends = [0, *places, len(ids)]
    return tuple(tuple(ids[start:end]) for start, end in pairwise(ends))


def _default_place(served: Served, block: int, length: int) -> int:
    """0 where nothing stood before the block when it was tuned; else the end: for keys and values, before the last token."""
    if not any(served.task.template.segments[: block + 1]):
        return 0
    return max(0, length - 1) if isinstance(served.outline[block], KeyValue) else length


def _label_room(served: Served) -> int:
    """Tokens behind the text that must be read to tell the labels, or a row's own choices, apart, as in tuning."""
    trie = served.trie
    if trie is None:
        return served.output_tokens
    return max((trie.nodes[node].depth for node in trie.fed), default=0) + 1
