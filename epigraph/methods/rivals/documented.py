"""``peft`` prompt tuning as PEFT's documentation writes it: what a user gets who follows the guide.

    loss = model(input_ids, attention_mask, labels).loss        labels: −100 on the text; logits over V at every position

Source: https://huggingface.co/docs/peft/task_guides/prompt_based_methods. As there: the loss over the whole vocabulary,
plainly shuffled batches padded to the longest, fp32 on a CPU. Differs: padding on the right, as PEFT's own benchmark has
it, since padding between prompt and text would shift positions; length, start and rate are those of ``prompt_tuning.py``,
so that the two differ in the loop alone.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.base import Base
from epigraph.engine.assembly import Prompts
from epigraph.methods.rivals.objective import Loss, make_loss, pad_right
from epigraph.methods.rivals.prompt_tuning import PeftPromptTuning
from epigraph.methods.watched import Watched
from epigraph.prompts import Form
from epigraph.tasks.encode import answer_text
from epigraph.tasks.row import Row

IGNORED = -100
Example = tuple[list[int], list[int]]


class PeftDocumented(PeftPromptTuning):
    """PEFT's prompt, trained as its guide does."""

    name = "peft-documented"

    def _dtype(self, base: Base) -> torch.dtype:
        return torch.float32 if base.device.type == "cpu" else base.dtype

    def _objective(self, train: Sequence[Row], validation: Sequence[Row]) -> "WholeVocabulary":
        return WholeVocabulary(self, make_loss(self, train, validation), self._examples(train))

    def _examples(self, rows: Sequence[Row]) -> list[Example]:
        """The text and what to say after it, as token ids."""
        encoded = self.solver.encode(rows, answers=not self.task.has_labels)
        texts = [list(row.segments[-1]) for row in encoded]
        if not self.task.has_labels:
            return [(text, list(row.answer)) for text, row in zip(texts, encoded, strict=True)]
        said = [answer_text(self.solver.template, self.task.labels[row.target or ""]) for row in rows]
        return [(text, self.base.tokenize(words)) for text, words in zip(texts, said, strict=True)]

    def loss(self, examples: Sequence[Example]) -> Float[Tensor, ""]:
        """The model's own loss of a padded batch."""
        device = self.base.device
        ids = pad_right([[*text, *said] for text, said in examples], device)
        lengths = torch.tensor([len(text) + len(said) for text, said in examples], device=device)
        mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
        text_lengths = torch.tensor([len(text) for text, _ in examples], device=device)
        silent = ~mask | (torch.arange(ids.shape[1], device=device) < text_lengths[:, None])
        found: Tensor = self.model(input_ids=ids, attention_mask=mask.long(), labels=ids.masked_fill(silent, IGNORED)).loss
        positions = len(ids) * (ids.shape[1] + self.settings.virtual_tokens)
        self._count(len(ids), ids.shape[1], positions * self.base.head.weight.shape[0])
        return found


class WholeVocabulary:
    """The guide's objective; watched like any other."""

    def __init__(self, rival: PeftDocumented, watched: Loss, examples: Sequence[Example]) -> None:
        self.rival, self.watched, self.examples = rival, watched, examples
        self.metric = watched.metric
        self.lengths = [0] * len(examples)  # all alike: the order stays a plain shuffle

    def losses(self, chosen: Sequence[Sequence[int]], prompts: Prompts) -> list[Float[Tensor, ""]]:  # noqa: ARG002
        """The mean over all tokens to be said, in nats."""
        (rows,) = chosen
        return [self.rival.loss([self.examples[i] for i in rows])]

    def weight(self, rows: Sequence[int]) -> float:
        """All rows count alike."""
        return float(len(rows))

    def rows_at_once(self, rows: Sequence[int], prompts: int) -> int:  # noqa: ARG002
        """All of them, as in the guide."""
        return len(rows)

    def watch(self, forms: Sequence[Form]) -> Watched:
        """The metric on validation, and the mean loss there."""
        return self.watched.watch(forms)
