"""One block's vectors in several places: what ``share_blocks`` asks for.

    form = [p, p, …]

Gradients of all places add up, and a prompt of n blocks has the parameters of one.
"""

from collections.abc import Sequence

from epigraph.prompts.form import Form
from epigraph.prompts.soft import SoftPrompt


class Repeated(SoftPrompt):
    """A prompt of one block, read in ``blocks`` places."""

    kind = "repeated"

    def __init__(self, prompt: SoftPrompt, blocks: int) -> None:
        super().__init__()
        self.prompt, self.blocks = prompt, blocks

    def form(self, query: object = None) -> Sequence[Form]:  # noqa: ARG002 (the contract of every kind)
        """The block's form, so many times."""
        (form,) = self.prompt.form()
        return [form] * self.blocks

    def after_step(self) -> None:
        """What the prompt does."""
        self.prompt.after_step()
