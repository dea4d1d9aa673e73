"""What a loop trains of a rival: the trained parameters and nothing else, under the names the model gives them.

state = {θ_i : θ_i is trained}        the frozen rest is neither kept nor copied at any step
"""

from collections.abc import Callable, Sequence

from torch import nn

from epigraph.prompts import Form, SoftPrompt


class Trained(SoftPrompt):
    """The trained parameters of a model, shared with it; ``forms`` gives what the engine reads of them, if it can."""

    kind = "rival"

    def __init__(self, model: nn.Module, forms: Callable[[], Sequence[Form]] = tuple) -> None:
        super().__init__()
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.weights = nn.ParameterDict({name.replace(".", "/"): p for name, p in trained.items()})  # a module's own names
        self._forms = forms

    def form(self, query: object = None) -> Sequence[Form]:  # noqa: ARG002 (the contract of every kind)
        """One form for a prompt, none for weights."""
        return self._forms()
