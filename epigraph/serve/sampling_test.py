"""Draws have the probabilities they should; log probabilities are the base's own."""

import pytest
import torch

from epigraph.serve.sampling import Sampler, choose, describe
from epigraph.serve.work import Sampling

LOGITS = torch.tensor([1.0, 3.0, 2.0, -1.0, 0.0])


def frequencies(sampling: Sampling, logits: torch.Tensor = LOGITS, draws: int = 1000) -> torch.Tensor:
    sampler = Sampler(sampling, 0)
    found = torch.tensor([_drawn(sampler, logits) for _ in range(draws)])
    return torch.bincount(found, minlength=len(logits)) / draws


def _drawn(sampler: Sampler, logits: torch.Tensor) -> int:
    token = sampler.draw(logits)
    assert sampler.draw(logits) == token  # chosen again after a fault beside it
    sampler.advance()
    return token


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    expected = torch.softmax(LOGITS / temperature, 0)
    torch.testing.assert_close(frequencies(Sampling(seed=0, temperature=temperature)), expected, atol=0.06, rtol=0)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"top_k": 2}, [1, 2]),
        ({"top_p": 0.7}, [1, 2]),
        ({"top_p": 0.5}, [1]),
        ({"top_k": 3, "top_p": 0.8}, [1, 2]),
        ({"top_k": 99}, [0, 1, 2, 3, 4]),
        ({"top_k": -1}, [0, 1, 2, 3, 4]),
    ],
)
def test_draws_stay_among_the_likeliest(settings: dict[str, float | int], kept: list[int]) -> None:
    expected = torch.zeros(5)
    expected[kept] = torch.softmax(LOGITS[kept], 0)
    torch.testing.assert_close(frequencies(Sampling(seed=0, **settings)), expected, atol=0.06, rtol=0)


def test_a_wide_nucleus_is_found_beyond_the_likeliest_tried_first() -> None:
    flat = torch.zeros(2000)
    sampler = Sampler(Sampling(seed=0, top_p=0.9), 0)
    weights, tokens = sampler._likeliest(flat.exp())
    assert len(weights) == 1800
    assert len(set(tokens.tolist())) == 1800


def test_without_temperature_the_likeliest_is_taken_and_nothing_is_drawn() -> None:
    rows = torch.stack([LOGITS, -LOGITS])
    assert choose(rows, [Sampler(Sampling(temperature=0.0), 0), Sampler(Sampling(temperature=0.0, seed=3), 1)]) == [1, 3]


def test_a_seed_is_one_sequence_of_draws_a_choice() -> None:
    drawn = [[Sampler(Sampling(seed=5), choice).draw(torch.zeros(10_000)) for _ in range(1)] for choice in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    unseeded = {Sampler(Sampling(), 0).draw(torch.zeros(10_000)) for _ in range(5)}
    assert len(unseeded) > 1


def test_very_low_temperatures_take_the_likeliest() -> None:
    assert Sampler(Sampling(temperature=1e-8), 0).draw(LOGITS * 1000) == 1


def test_log_probabilities_are_before_temperature() -> None:
    (told, nothing) = describe(torch.stack([LOGITS, LOGITS]), [2, None], [2, 0])
    logs = torch.log_softmax(LOGITS, 0)
    assert told[0] == pytest.approx(float(logs[2]))
    assert [token for token, _ in told[1]] == [1, 2]
    assert told[1][0][1] == pytest.approx(float(logs[1]))
    assert nothing == (None, ())
