"""A stock classifier: a model that was fine-tuned with a classification head, as ``…ForSequenceClassification`` saves it.

It is no base, since it writes nothing: its answers are the softmax over the labels that its configuration names.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from epigraph.base.fingerprint import folder_fingerprint
from epigraph.base.load import Note, choose_device, freeze, load_whole, model_folder, quiet_transformers
from epigraph.base.precision import Precision, choose_precision
from epigraph.errors import Unsupported

HEAD = "ForSequenceClassification"
TOGETHER = 16  # texts in a pass
SEVERAL = "multi_label_classification"


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A frozen classifier. ``labels`` are those of its configuration, in the order of its outputs."""

    name: str
    labels: Sequence[str]
    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    fingerprint: str
    precision: Precision

    @torch.no_grad()
    def logs(self, texts: Sequence[Sequence[str]]) -> Float[Tensor, "N C"]:
        """Log p(label) for every text, or pair of texts. Without a padding token of its own it reads one at a time."""
        step = TOGETHER if self.tokenizer.pad_token_id is not None else 1
        parts = [self._logs(texts[start : start + step], padding=step > 1) for start in range(0, len(texts), step)]
        return torch.cat(parts)

    def _logs(self, texts: Sequence[Sequence[str]], *, padding: bool) -> Float[Tensor, "N C"]:
        columns = [list(column) for column in zip(*texts, strict=True)]
        read = self.tokenizer(*columns, truncation=True, max_length=self._limit, padding=padding, return_tensors="pt")
        logits = self.model(**read.to(self.model.device)).logits
        return torch.log_softmax(logits.double().cpu(), -1)

    def lengths(self, texts: Sequence[Sequence[str]]) -> list[int]:
        """Tokens that it reads of each text."""
        return [len(self.tokenizer(*text, truncation=True, max_length=self._limit)["input_ids"]) for text in texts]

    @property
    def _limit(self) -> int:
        most = getattr(self.model.config, "max_position_embeddings", None) or self.tokenizer.model_max_length
        return int(min(most, self.tokenizer.model_max_length))


def is_classifier(folder: Path) -> bool:
    """Whether a model's configuration says that it was saved with a classification head."""
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    except (OSError, ValueError, AttributeError):
        return False
    return any(str(name).endswith(HEAD) for name in said)


def load_classifier(
    name: str | Path, *, dtype: str | None = None, device: str | None = None, note: Note | None = None
) -> Classifier:
    """The classifier of this folder or hub name. Raises as ``load_base``; Unsupported where it gives several labels at once."""
    from transformers import AutoModelForSequenceClassification

    where = choose_device(device)
    precision, folder = choose_precision(dtype, where), model_folder(name, note)
    with quiet_transformers():
        model, tokenizer = load_whole(
            folder, AutoModelForSequenceClassification, "a classifier of texts", dtype=precision.dtype
        )
    freeze(model.to(where))
    if model.config.problem_type == SEVERAL:
        raise Unsupported(f"classifier {name} gives several labels at once, each by itself.", "Choose one of single labels.")
    if model.config.pad_token_id is None:  # the place of the last token is told by it
        model.config.pad_token_id = tokenizer.pad_token_id
    named = model.config.id2label
    return Classifier(
        name=folder.name if Path(name).expanduser().is_dir() else str(name),
        labels=[str(named[i]) for i in range(model.config.num_labels)],
        model=model,
        tokenizer=tokenizer,
        fingerprint=folder_fingerprint(folder),
        precision=precision,
    )
