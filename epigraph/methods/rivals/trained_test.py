import torch
from torch import nn

from epigraph.methods.rivals.trained import Trained


def test_it_shares_the_trained_parameters_and_holds_no_other() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    model[0].requires_grad_(False)
    trained = Trained(model)
    assert list(trained.form()) == []
    assert {id(p) for p in trained.parameters()} == {id(p) for p in model[1].parameters()}
    state = {name: torch.ones_like(value) for name, value in trained.state_dict().items()}
    assert set(state) == {"weights.1/weight", "weights.1/bias"}
    trained.load_state_dict(state)
    assert torch.equal(model[1].weight, torch.ones(4, 3))


def test_a_tied_parameter_is_held_once() -> None:
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5, bias=False))
    model[1].weight = model[0].weight
    assert Trained(model).trained_parameters == 15
