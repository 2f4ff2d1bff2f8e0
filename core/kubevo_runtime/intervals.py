"""Confidence intervals by the bootstrap, the same numbers for the same returns every time."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CONFIDENCE", "iqm", "iqm_interval", "mean_interval", "median_band"]

CONFIDENCE = 0.95
RESAMPLES = 4000
MOST_DRAWN = 1_000_000
SEED = 0
Table = npt.NDArray[np.float64]


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % percentile bootstrap interval of the mean; None below two values."""
    return _mean_interval(tuple(values)) if len(values) > 1 else None


@lru_cache(maxsize=1024)
def _mean_interval(values: tuple[float, ...]) -> tuple[float, float]:
    low, high = _interval(np.asarray(values, np.float64)[:, None], np.mean)
    return float(low[0]), float(high[0])


def median_band(table: Table) -> tuple[Table, Table, Table]:
    """Return the median over runs and its 95 % bootstrap interval at each point.

    ``table`` has shape (runs, points); so have all three results but for the first axis. Runs are
    drawn whole, so that a band follows runs, not single points.
    """
    low, high = _interval(table, np.median) if len(table) > 1 else (table[0], table[0])
    return np.median(table, axis=0), low, high


def iqm(table: Table) -> Table:
    """Return the interquartile mean over the first axis: of shape (runs, points), (points,).

    As Agarwal et al. 2021 ("Deep reinforcement learning at the edge of the statistical precipice")
    recommend. A quarter of the runs is cut at each end; a cut within a run weighs it partly.
    """
    runs = len(table)
    cut, places = runs / 4, np.arange(1, runs + 1)
    weights = np.clip(places - cut, 0, 1) - np.clip(places - (runs - cut), 0, 1)
    found: Table = np.tensordot(weights, np.sort(table, axis=0), axes=1) / weights.sum()
    return found


def iqm_interval(table: Table) -> tuple[Table, Table] | None:
    """Return the 95 % bootstrap interval of `iqm` at each point; None with a single run.

    Whole runs are drawn, so that a band follows runs and not single points.
    """
    if len(table) < 2:
        return None

    def of_each(drawn: Table, axis: int) -> Table:  # noqa: ARG001 - as numpy's own statistics
        return np.stack([iqm(each) for each in drawn])

    return _interval(table, of_each)


def _interval(table: Table, statistic: Callable[..., Any]) -> tuple[Table, Table]:
    runs, points = table.shape
    generator = np.random.default_rng(SEED)
    # In blocks: a long test drawn at once would take gigabytes.
    block = max(1, min(RESAMPLES, MOST_DRAWN // (runs * points)))
    found = []
    for start in range(0, RESAMPLES, block):
        chosen = generator.integers(0, runs, (min(block, RESAMPLES - start), runs))
        found.append(statistic(table[chosen], axis=1))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(found), (tail, 1 - tail), axis=0)
    return low, high
