"""The rivals of a prompt, as a good practitioner would write each: PEFT's prompts, LoRA, full fine-tuning.

``RIVALS`` is the only list. A rival is made from (engine, task, train rows, validation rows, settings); a loop trains its
``module`` on its ``objective``, and evaluation scores it like any method.
"""

from typing import Any

from epigraph.methods.rivals.documented import PeftDocumented
from epigraph.methods.rivals.full import FullFineTuning, FullSettings
from epigraph.methods.rivals.lora import Lora, LoraSettings
from epigraph.methods.rivals.prefix_tuning import PeftPrefixTuning, PrefixTuningSettings
from epigraph.methods.rivals.prompt_tuning import PeftPromptTuning, PromptTuningSettings
from epigraph.methods.rivals.rival import Rival, RivalSettings

RIVALS: dict[str, type[Rival[Any]]] = {
    rival.name: rival for rival in (PeftPromptTuning, PeftPrefixTuning, Lora, FullFineTuning, PeftDocumented)
}

__all__ = [
    "RIVALS",
    "FullFineTuning",
    "FullSettings",
    "Lora",
    "LoraSettings",
    "PeftDocumented",
    "PeftPrefixTuning",
    "PeftPromptTuning",
    "PrefixTuningSettings",
    "PromptTuningSettings",
    "Rival",
    "RivalSettings",
]
