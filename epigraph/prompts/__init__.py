"""The kinds of prompt. To add one: a file with its class, one line in KINDS, and its line of help in ``config.KINDS``."""

from epigraph.prompts.context import ContextPrompt
from epigraph.prompts.form import AnyForm, Dependent, Embedded, Form, KeyValue, kept_numbers, plain_forms
from epigraph.prompts.kv import KvPrompt
from epigraph.prompts.mixture import MixturePrompt
from epigraph.prompts.multitask import MultitaskPrompt
from epigraph.prompts.pool import PoolPrompt
from epigraph.prompts.prefix import PrefixPrompt
from epigraph.prompts.ptuning import PTuningPrompt
from epigraph.prompts.repeated import Repeated
from epigraph.prompts.residual import ResidualPrompt
from epigraph.prompts.sink import SinkPrompt
from epigraph.prompts.soft import SoftPrompt, Supply
from epigraph.prompts.superpos import SuperposPrompt
from epigraph.prompts.token import TokenPrompt

KINDS: dict[str, type[SoftPrompt]] = {
    kind.kind: kind
    for kind in (
        TokenPrompt,
        KvPrompt,
        PTuningPrompt,
        ResidualPrompt,
        SuperposPrompt,
        PrefixPrompt,
        SinkPrompt,
        ContextPrompt,
        MultitaskPrompt,
        MixturePrompt,
        PoolPrompt,
    )
}

__all__ = [
    "KINDS",
    "AnyForm",
    "Dependent",
    "Embedded",
    "Form",
    "KeyValue",
    "KvPrompt",
    "MixturePrompt",
    "MultitaskPrompt",
    "PoolPrompt",
    "Repeated",
    "SoftPrompt",
    "Supply",
    "TokenPrompt",
    "kept_numbers",
    "plain_forms",
]
