"""From episode returns to fitness: the one rule for means, failures and ties.

``math.fsum`` is exact, so the order in which results arrive cannot show in the last bit.
"""

import math
from collections.abc import Sequence

__all__ = ["format_fitness", "mean_return"]


def mean_return(returns: Sequence[float | None]) -> float | None:
    """Return the mean of the episode returns in episode order, or None for a failed evaluation.

    None, NaN or an infinity among the returns, or a sum beyond a double, is a failure; a zero is
    +0.0.
    """
    values = [value for value in returns if value is not None and math.isfinite(value)]
    if len(values) != len(returns) or not values:
        return None
    try:
        mean = math.fsum(values) / len(values)
    except OverflowError:
        return None
    return mean + 0.0  # -0.0 + 0.0 is +0.0


def format_fitness(fitness: float | None) -> str:
    """Return the text of a fitness in a digest: ``float.hex()``, or the word failed."""
    return "failed" if fitness is None else fitness.hex()
