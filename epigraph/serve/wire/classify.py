"""POST /v1/classify."""

from typing import Annotated, Literal

from pydantic import Field, Tag

from epigraph.serve.wire.shape import LIST_OF_SOME, Fields, Request, RouteTaken, Text, Usage, Wire, absent, by_first

Given = Annotated[Annotated[Text, Tag("text")] | Annotated[Fields, Tag("object")], by_first("text", "object")]


class ClassifyRequest(Request):
    """One text or many; a task of several fields takes objects."""

    model: Annotated[str, Field(max_length=1000, examples=["routing"])]
    input: Annotated[
        Annotated[Text, Tag("text")] | Annotated[Fields, Tag("object")] | Annotated[list[Given], LIST_OF_SOME, Tag("texts")],
        by_first("text", "object", "texts"),
    ]
    truncate: Annotated[bool, Field(description="shorten a text that is too long instead of 400")] = False

    @property
    def given(self) -> list[str | dict[str, str | list[str]]]:
        """All of them."""
        return self.input if isinstance(self.input, list) else [self.input]


class Labelled(Wire):
    """The answer to one text, and the probability of every label or choice.

    ``label`` is null where the task gives any number of ``labels``, or where "auto" found no prompt.
    """

    index: int
    label: str | None
    probabilities: dict[str, float]
    labels: list[str] | None = absent("of a task of several labels")
    choice: int | None = absent("which of the text's own choices the label is, from 0")
    route: RouteTaken | None = absent('model: "auto": where the text went')


class Classified(Wire):
    """An entry for every text, in order."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Labelled]
    usage: Usage
