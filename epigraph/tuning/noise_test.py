from epigraph.methods.watched import Watched, standard_error
from epigraph.tuning.noise import is_near, rank


def test_a_difference_within_a_standard_error_is_decided_by_the_loss() -> None:
    """A checkpoint with one more right answer of 45 was kept instead of later ones whose loss was far lower."""
    lucky, sound, worse = Watched(0.91, -0.5, 0.04), Watched(0.89, -0.3, 0.05), Watched(0.80, -0.1, 0.06)
    assert rank([lucky, sound, worse]) == [1, 0, 2]
    assert rank([lucky, sound, worse], usual=0) == [0, 1, 2]
    assert rank([lucky, sound, worse], usual=2) == [1, 0, 2]
    assert is_near(sound, lucky)
    assert not is_near(worse, lucky, 2.0)
    assert rank([lucky, Watched(0.84, -0.9, 0.05)], usual=1) == [1, 0]  # not surely worse


def test_the_error_is_that_of_a_share_and_never_zero() -> None:
    assert abs(standard_error("accuracy", 0.85, 150, 2) - 0.029) < 0.001
    assert standard_error("accuracy", 1.0, 4, 2) > 0.15
    assert standard_error("mae", -1.0, 100, 5) > standard_error("accuracy", 0.5, 100, 5)
