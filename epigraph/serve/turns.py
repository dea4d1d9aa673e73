"""A conversation as token ids: what the base's chat template writes around the messages, and the messages.

    frame ─ special tokens are read ─┐
                                     ├─ token ids
    what was said ─ as plain text ───┘

A user's "<|im_end|>" ends no turn, in no message. Where no message reads as a special token, the whole is put into tokens at
once, as the base was trained on it; else the frame and the messages are, each apart.
"""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from uuid import uuid4

from epigraph.base import Base
from epigraph.errors import Unsupported
from epigraph.serve.faults import bad
from epigraph.serve.wire.chat import Message

Turn = dict[str, str]
Write = Callable[[Sequence[Turn]], str]


def tokens_before(messages: Sequence[Message], base: Base) -> list[int]:
    """What stands before the last user message: the earlier ones. Refused (400) where the template does not take them."""

    def write(turns: Sequence[Turn]) -> str:
        try:
            return base.chat_frame(turns)[0]
        except Unsupported as error:
            raise bad(error.message, param="messages") from error

    return _tokens(_turns(messages), write, base)


def tokens_of(messages: Sequence[Message], base: Base, *, answer: bool = True) -> list[int]:
    """All of it; with ``answer`` it ends where the assistant begins. Refused (400) where the template does not take it."""
    from jinja2 import TemplateError

    if not messages:
        raise bad("messages is empty.", "Give a message.", param="messages")
    if not base.tokenizer.chat_template:
        raise bad(
            f"base {base.name} has no chat template.",
            "Use /v1/completions, or a prompt whose task says how its text is written.",
            param="messages",
            code="no_chat_template",
        )

    def write(turns: Sequence[Turn]) -> str:
        try:
            return str(base.tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=answer))
        except (TemplateError, TypeError, ValueError) as error:
            raise bad(f"the base's chat template refuses these messages: {error}.", param="messages") from error

    return _tokens(_turns(messages), write, base)


def _turns(messages: Sequence[Message]) -> list[Turn]:
    return [{"role": "system" if m.role == "developer" else m.role, "content": m.said} for m in messages]


def _tokens(turns: Sequence[Turn], write: Write, base: Base) -> list[int]:
    text = write(turns)
    ids = base.tokenize(text)
    if not any(base.special.intersection(base.tokenize(turn["content"])) for turn in turns):
        return ids
    frame, said = _apart(turns, write)
    for contents in (said, [content.strip() for content in said]):  # templates write a message as it is, or trimmed
        parts = list(zip_longest(frame, contents, fillvalue=""))
        if "".join(before + content for before, content in parts) == text:
            return [
                token for before, content in parts for token in (*base.tokenize(before), *base.tokenize_plainly(content))
            ]
    raise bad("a message reads as a special token, and the base's chat template changes it.", param="messages")


def _apart(turns: Sequence[Turn], write: Write) -> tuple[list[str], list[str]]:
    """What the template writes around the messages, and between these parts the messages, as it writes them."""
    marks = [f"message-{number}-{uuid4().hex}" for number in range(len(turns))]
    rest = write([{**turn, "content": mark} for turn, mark in zip(turns, marks, strict=True)])
    frame, said = [], []
    for mark, turn in zip(marks, turns, strict=True):
        before, found, after = rest.partition(mark)
        if found:
            frame.append(before)
            said.append(turn["content"])
            rest = after
    return [*frame, rest], said
