"""Any number of labels a row: each label is a question of its own, answered yes or no, all of them in one pass.

    [text] [cue] " sport:" → yes | no          log-odds(label | x) = log p(yes | x, label) − log p(no | x, label)
                 " arts:"  → yes | no          p(label | x) = σ(log-odds)

All labels hang on the row's text as one tree, so the text is read once, and labels that begin alike share their tokens.

The likelihoods of the labels themselves would be cheaper, but they share a sum of one: two labels that are both right would
have to halve it, and a threshold would depend on how many are right. A verdict a label has no such rival, means something
without any training, and its probability is that of one label alone (binary relevance: Tsoumakas & Katakis 2007, section
3.1, https://doi.org/10.4018/jdwm.2007070101).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from epigraph.errors import TaskError
from epigraph.tasks.encode import Tokens, answer_text
from epigraph.tasks.template import Template
from epigraph.tasks.trie import LabelTrie

YES, NO = " yes", " no"


@dataclass(frozen=True)
class Verdicts:
    """The questions as a trie with two leaves a label; for each label the number of the branching node that decides it, and
    which of the node's children say yes and no."""

    trie: LabelTrie
    decisions: tuple[tuple[int, int, int], ...]

    @classmethod
    def build(cls, labels: Mapping[str, str], template: Template, tokens: Tokens, *, chat: bool = False) -> "Verdicts":
        """The verdicts on a task's labels (label → words) as this base spells them after this template."""
        yes, no = tokens.tokenize(YES), tokens.tokenize(NO)
        closing = tokens.chat_frame()[1] if chat else ""
        asked = {label: tokens.tokenize(question(template, words, closing)) for label, words in labels.items()}
        spelled = {f"{label}{said}": [*asked[label], *ids] for label in labels for said, ids in ((YES, yes), (NO, no))}
        if len(spelled) < 2 * len(labels):
            raise TaskError("two labels differ only in a yes or no at their end.", "Rename one of them.")
        trie = LabelTrie.build(spelled, tokens.end)
        return cls(trie, tuple(_decision(trie, 2 * number) for number in range(len(labels))))


def question(template: Template, words: str, closing: str = "") -> str:
    """What is asked of a label after the template and a chat's closing."""
    return answer_text(template, f"{words}:", closing)


def _decision(trie: LabelTrie, yes: int) -> tuple[int, int, int]:
    """Where the paths of a label's yes and no part."""
    for (node, said), (other, unsaid) in zip(trie.decisions(yes), trie.decisions(yes + 1), strict=False):
        if (node, said) != (other, unsaid):
            children = list(trie.nodes[node].children)
            return trie.branching.index(node), children.index(said), children.index(unsaid)
    raise TaskError("this base spells yes and no alike.")
