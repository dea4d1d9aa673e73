"""From tokens to text as it becomes certain: characters whole, stop texts held back.

A token may end within a character, and a stop text may begin in one token and end in another. What could still become part of
either is kept; the texts given out, put together, are the text of all tokens, up to the stop.
"""

from collections.abc import Callable, Sequence

UNFINISHED = "\ufffd"  # how a decoder shows bytes that are no character, or not yet
WINDOW = 24  # tokens decoded again with every new one, at most; then the window moves on
CONTEXT = 6
LONGEST = 3  # bytes of an unfinished character


class Speller:
    """The text of one growing sequence of tokens."""

    def __init__(self, detokenize: Callable[[Sequence[int]], str], stops: Sequence[str]) -> None:
        self.detokenize = detokenize
        self.stops = stops
        self._tokens: list[int] = []
        self._given = 0  # characters of the window that are certain already
        self._held = ""  # certain, but perhaps the beginning of a stop text

    def push(self, token: int | None, *, last: bool = False) -> tuple[str, str | None]:
        """The text that became certain with this token (None: a token without text), and the stop text that was found.

        ``last``: no token follows, so nothing is kept.
        """
        if token is not None:
            self._tokens.append(token)
        pending = self._held + self._certain(last=last)
        found = min(((pending.find(s), n) for n, s in enumerate(self.stops) if s in pending), default=None)
        if found is not None:
            return pending[: found[0]], self.stops[found[1]]
        keep = 0 if last else self._begun(pending)
        self._held = pending[len(pending) - keep :]
        return pending[: len(pending) - keep], None

    def _certain(self, *, last: bool) -> str:
        text = self.detokenize(self._tokens) if self._tokens else ""
        unfinished = len(text) - len(text.rstrip(UNFINISHED))
        end = len(text) - (0 if last else min(unfinished, LONGEST))
        new = text[self._given : end]
        self._given = max(end, self._given)
        if end == len(text) and len(self._tokens) >= WINDOW:
            self._move_on(text)
        return new

    def _move_on(self, text: str) -> None:
        """Forget tokens whose text is given, but for a few: some tokens look different at the beginning of a text."""
        rest = self._tokens[-CONTEXT:]
        tail = self.detokenize(rest)
        if tail and text.endswith(tail) and not tail.startswith(UNFINISHED):
            self._tokens, self._given = rest, len(tail)

    def _begun(self, text: str) -> int:
        """How long an ending of the text is the beginning of a stop text."""
        longest = max(map(len, self.stops), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self.stops):
                return size
        return 0
