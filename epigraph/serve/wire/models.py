"""GET /v1/models, and POST /v1/prompts."""

from typing import Annotated, Any, Literal

from pydantic import Field

from epigraph.serve.wire.shape import Request, Wire


class ModelCard(Wire):
    """A name that requests may ask for. ``root`` is the version it means now, ``parent`` the base a prompt stands on."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["epigraph"] = "epigraph"
    root: str
    parent: str | None
    max_model_len: int
    kind: Annotated[str | None, Field(description="of the task; null for the base and for auto")] = None
    labels: list[str] | None = None
    scores: dict[str, Any] | None = None


class ModelList(Wire):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class UploadRequest(Request):
    """A prompt's two files: its card as TOML, its vectors as safetensors in base64."""

    name: Annotated[str, Field(max_length=100)]
    card: Annotated[str, Field(max_length=1_000_000, description="the content of card.toml")]
    prompt: Annotated[str, Field(description="prompt.safetensors in base64")]


class Uploaded(Wire):
    """The version that it became."""

    prompt: str


class State(Wire):
    """Whether the server is up."""

    status: Literal["ok", "ready", "closing"]
