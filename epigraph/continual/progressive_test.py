"""Progressive prompts: oldest first, the older frozen, folded into a plain prompt."""

import pytest
import torch

from epigraph.continual.progressive import ProgressivePrompt
from epigraph.prompts import Embedded, Form, KeyValue, KvPrompt, TokenPrompt
from epigraph.prompts.packed import pack


def start(form: str, length: int) -> list[Form]:
    if form == "token":
        return [Embedded(torch.randn(length, 6))]
    return [KeyValue(torch.randn(3, 2, length, 4), torch.randn(3, 2, length, 4))]


@pytest.mark.parametrize("form", ["token", "kv"])
def test_the_older_come_first_and_stay(form: str) -> None:
    older, own = start(form, 5), start(form, 2)
    kind = TokenPrompt if form == "token" else KvPrompt
    prompt = ProgressivePrompt(kind(own), older)  # type: ignore[arg-type]
    (folded,) = prompt.fold()
    assert folded.length == 7
    joined = torch.cat([pack(older[0]), pack(own[0])], -2)
    torch.testing.assert_close(pack(folded), joined)  # type: ignore[arg-type]
    assert prompt.trained_parameters == pack(own[0]).numel()
    with torch.no_grad():
        for parameter in prompt.parameters():
            parameter.zero_()
    (after,) = prompt.form()
    torch.testing.assert_close(pack(after)[..., :5, :], pack(older[0]))
    assert not bool(pack(after)[..., 5:, :].any())
