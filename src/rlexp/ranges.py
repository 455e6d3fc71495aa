"""Legal ranges of hyperparameters, written as `Annotated[float, Range(0, 1)]` where the hyperparameter is declared."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """low <= x <= high; `open_low` excludes the lower end itself."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False

    def __contains__(self, x: float) -> bool:
        return (self.low < x if self.open_low else self.low <= x) and x <= self.high

    def __str__(self) -> str:
        low = f"greater than {self.low:g}" if self.open_low else f"at least {self.low:g}"
        return low if math.isinf(self.high) else f"{low} and at most {self.high:g}"


POSITIVE = Range(0, open_low=True)
PROBABILITY = Range(0, 1)
