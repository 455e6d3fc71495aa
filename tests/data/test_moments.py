"""Running moments against those of all samples at once."""

import numpy as np
import pytest

from rlexp.data.moments import Moments


def test_literal_numbers() -> None:
    moments = Moments(2, (2,))
    assert moments.variance.tolist() == [[1, 1], [1, 1]]
    moments.learn(0, np.array([[1.0, 10.0], [3.0, 10.0]]))
    moments.learn(0, np.array([[8.0, 40.0]]))
    assert moments.count.tolist() == [3, 0]
    assert moments.mean.tolist() == [[4, 20], [0, 0]]
    assert np.allclose(moments.variance, [[26 / 3, 200], [1, 1]], rtol=1e-15)


@pytest.mark.parametrize("cuts", [[], [1], [3, 3, 40], list(range(1, 100))])
def test_any_split_gives_the_moments_of_all(cuts: list[int]) -> None:
    """Far from zero, where a sum of squares would lose every digit."""
    samples = 1e6 + np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32).astype(np.float64)
    moments = Moments(1, (3,))
    for part in np.split(samples, cuts):
        moments.learn(0, part)
    assert moments.count[0] == 100
    assert np.allclose(moments.mean[0], samples.mean(0), rtol=1e-14)
    assert np.allclose(moments.variance[0], samples.var(0), rtol=1e-8)


def test_they_come_back() -> None:
    moments, loaded = Moments(2, ()), Moments(2, ())
    samples = np.random.default_rng(0).normal(size=(2, 2, 50))
    for seed in range(2):
        moments.learn(seed, samples[0, seed])
    loaded.load_state_dict(moments.state_dict())
    for each in (moments, loaded):
        each.learn(1, samples[1, 1])
    assert np.array_equal(moments.variance, loaded.variance)
    assert moments.state_dict().keys() == loaded.state_dict().keys()
