"""Interquartile means and their intervals."""

import numpy as np
import pytest

from kubevo_runtime.intervals import iqm, iqm_interval, mean_interval


def of(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


def test_a_quarter_is_cut_at_each_end():
    assert iqm(of(-1000, 1, 2, 3, 4, 5, 6, 1000))[0] == pytest.approx(3.5)


def test_a_cut_within_a_run_weighs_it_partly():
    # Of five runs 1.25 are cut at each end: weights 0, .75, 1, .75, 0.
    assert iqm(of(0, 10, 20, 60, 100))[0] == pytest.approx((7.5 + 20 + 45) / 2.5)


@pytest.mark.parametrize("values", [(7.0,), (7.0, 9.0), (7.0, 8.0, 9.0)])
def test_few_runs_have_a_mean_between_them(values):
    assert min(values) <= iqm(of(*values))[0] <= max(values)


def test_order_does_not_matter_and_points_are_apart():
    table = np.array([[1.0, 10.0], [3.0, 30.0], [2.0, 20.0], [4.0, 40.0]])
    assert iqm(table).tolist() == iqm(table[::-1]).tolist() == [2.5, 25.0]


def test_one_run_has_no_interval_and_equal_runs_a_narrow_one():
    assert iqm_interval(of(1)) is None
    low, high = iqm_interval(of(5, 5, 5))
    assert low[0] == high[0] == 5


def test_an_interval_holds_the_mean_and_is_the_same_every_time():
    table = np.random.default_rng(1).normal(size=(8, 3))
    low, high = iqm_interval(table)
    assert (low <= iqm(table)).all()
    assert (iqm(table) <= high).all()
    again = iqm_interval(table)
    assert np.array_equal(low, again[0])
    assert np.array_equal(high, again[1])


def test_a_mean_has_an_interval_from_two_values_on():
    assert mean_interval([1.0]) is None
    low, high = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert 1 <= low <= 2.5 <= high <= 4
