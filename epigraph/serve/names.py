"""What ``model`` names: the bare base, or a prompt of the library.

SmolLM2-135M-Instruct-Q4_1 | base    the bare base
routing | routing@latest             the newest version
routing@3                            one version, for ever
routing@prod                         the version that the alias means now
auto                                 the prompt that the library's router names for each text (``auto``)
"""

from epigraph.errors import NameRefused
from epigraph.library.names import split_reference
from epigraph.serve.faults import Refused

BARE = "base"
ROUTER = "auto"


def read_model(model: str, base: str) -> str | None:
    """The reference of a prompt, or None for the bare base. Refused (404) if it can be neither."""
    if model in (base, BARE):
        return None
    try:
        split_reference(model)
    except NameRefused as error:
        raise unknown_model(model, f"{model!r} cannot be a prompt's name.") from error
    return model


def unknown_model(model: str, why: str = "") -> Refused:
    """There is no such model."""
    message = f"there is no model {model[:200]!r}."
    hint = f"{why} GET /v1/models lists what there is.".strip()
    return Refused(404, message, hint, code="model_not_found", param="model")
