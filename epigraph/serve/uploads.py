"""POST /v1/prompts: a prompt from outside becomes the next version of its name, or nothing is written at all.

Its files are checked as the library checks its own: the card's seal, the tensors' hash, format (safetensors, never a pickle),
names, shapes, dtype, finite values; and besides that it stands on this server's base and its task can be read.
"""

import base64
from dataclasses import replace

from epigraph.base import Base
from epigraph.errors import Corrupt, Diverged, EpigraphError, NotFound
from epigraph.library import Card, Library, Lineage
from epigraph.library.cardfile import CARD, read_card
from epigraph.library.disk import staged, write_file
from epigraph.library.folder import PROMPT, StoredPrompt, read_forms
from epigraph.library.names import check_name
from epigraph.library.tensors import refuse_pickle
from epigraph.serve.faults import Refused, bad
from epigraph.serve.served import prepare
from epigraph.serve.wire.models import UploadRequest


def take_upload(request: UploadRequest, base: Base, library: Library, *, computes_here: bool = True) -> Card:
    """Store the prompt and return its card. Refused (400) with what is wrong."""
    try:
        name = check_name(request.name)
        content = _content(request.prompt)
        refuse_pickle(content, "prompt")
        stored = _read(request.card.encode(), content, library)
        prepare(stored, base, computes_here=computes_here)
    except (Corrupt, Diverged, NotFound) as error:
        raise bad(_without_paths(error, library), param="prompt", code="prompt_corrupt") from error
    except Refused:
        raise
    except EpigraphError as error:
        raise bad(error.message, error.hint, param="card") from error
    before = stored.card
    lineage = Lineage(parents=(before.reference, *before.lineage.parents), how=f"uploaded; before that {before.lineage.how}")
    return library.add(name, stored.forms, replace(before, lineage=lineage))


def _content(prompt: str) -> bytes:
    try:
        return base64.b64decode(prompt, validate=True)
    except ValueError as error:  # binascii.Error is one; letters beyond ASCII raise the plain one
        raise bad(f"prompt is no base64: {error}.", param="prompt") from error


def _read(card: bytes, prompt: bytes, library: Library) -> StoredPrompt:
    with staged(library.root, "an uploaded prompt") as stage:
        write_file(stage / CARD, card)
        write_file(stage / PROMPT, prompt)
        found = read_card(stage)
        return StoredPrompt(card=found, forms=read_forms(stage, found))


def _without_paths(error: EpigraphError, library: Library) -> str:
    """The message without the temporary folder: its paths are nobody's business."""
    words = error.message.split(" ")
    return " ".join(word.rsplit("/", 1)[-1] if str(library.root) in word else word for word in words)
