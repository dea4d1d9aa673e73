"""The kinds of prompt. To add one: a file with its class, and one line in KINDS."""

from epigraph.prompts.form import Embedded, Form, KeyValue
from epigraph.prompts.kv import KvPrompt
from epigraph.prompts.soft import SoftPrompt
from epigraph.prompts.token import TokenPrompt

KINDS: dict[str, type[SoftPrompt]] = {kind.kind: kind for kind in (TokenPrompt, KvPrompt)}

__all__ = ["KINDS", "Embedded", "Form", "KeyValue", "KvPrompt", "SoftPrompt", "TokenPrompt"]
