"""Running mean and variance of what has been seen, one set for each seed."""

from typing import Any

import numpy as np


class Moments:
    """Of samples [n, *shape], for each of `num_seeds` seeds; float64, so that the millionth sample still counts.

        n = nₐ + n_b,   δ = x̄_b − x̄ₐ
        x̄ = x̄ₐ + δ n_b / n,   M = Mₐ + M_b + δ² nₐ n_b / n,   variance = M / n

    A batch of samples at a time. Chan, Golub and LeVeque 1983, doi:10.1080/00031305.1983.10483115, eq. 2.1.
    """

    def __init__(self, num_seeds: int, shape: tuple[int, ...]) -> None:
        self.count = np.zeros(num_seeds, np.int64)
        self.mean = np.zeros((num_seeds, *shape))
        self._squares = np.zeros((num_seeds, *shape))  # M, the sum of squared distances to the mean

    @property
    def variance(self) -> np.ndarray:
        """[S, *shape]; 1 where nothing was seen yet."""
        count = self.count.reshape(-1, *[1] * (self.mean.ndim - 1))
        return np.where(count > 0, self._squares / np.maximum(count, 1), 1.0)

    def learn(self, seed: int, samples: np.ndarray) -> None:
        """Take in the samples [n, *shape] of the seed at this place."""
        added = len(samples)
        if not added:
            return
        values = np.ascontiguousarray(samples, np.float64)  # one layout, one order of summation
        before, self.count[seed] = self.count[seed], self.count[seed] + added
        with np.errstate(invalid="ignore"):  # where a stacked seed's numbers are not finite, its row says so
            mean = values.mean(0)
            delta, count = mean - self.mean[seed], self.count[seed]
            self._squares[seed] += np.square(values - mean).sum(0) + np.square(delta) * (before * added / count)
            self.mean[seed] += delta * (added / count)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count.copy(), "mean": self.mean.copy(), "squares": self._squares.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count[...], self.mean[...], self._squares[...] = state["count"], state["mean"], state["squares"]
