"""Losses of temporal-difference errors."""

from torch import Tensor


def huber(error: Tensor, delta: float) -> Tensor:
    """Huber loss: e²/2 where |e| ≤ δ, δ(|e| − δ/2) beyond, so that its slope never exceeds δ.

    Args:
        error: any shape.  delta: δ, in the units of the error.
    Returns:
        the loss of each element.

    Huber 1964, doi:10.1214/aoms/1177703732.  Notes: 000 L8.
    """
    absolute = error.abs()
    quadratic = absolute.clamp(max=delta)
    return quadratic * (absolute - 0.5 * quadratic)
