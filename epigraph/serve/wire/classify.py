"""POST /v1/classify."""

from typing import Annotated, Literal

from pydantic import Field

from epigraph.serve.wire.shape import Fields, Request, Text, Usage, Wire

Given = Text | Fields


class ClassifyRequest(Request):
    """One text or many; a task of several fields takes objects."""

    model: Annotated[str, Field(max_length=1000, examples=["routing"])]
    input: Given | Annotated[list[Given], Field(min_length=1)]
    truncate: Annotated[bool, Field(description="shorten a text that is too long instead of 400")] = False

    @property
    def given(self) -> list[str | dict[str, str]]:
        """All of them."""
        return self.input if isinstance(self.input, list) else [self.input]


class Labelled(Wire):
    """The likeliest label of one text, and the probability of every label."""

    index: int
    label: str
    probabilities: dict[str, float]


class Classified(Wire):
    """An entry for every text, in order."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Labelled]
    usage: Usage
