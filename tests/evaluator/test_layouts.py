import numpy as np

from kubevo_evaluator.layouts import ActionLayout, ObservationLayout

NAN, INF = np.nan, np.inf


def f32(*values):
    return np.array(values, dtype=np.float32)


def test_the_lowest_index_wins_a_tie():
    decide = ActionLayout("discrete", (4,)).decide
    assert decide(f32(1, 3, 3, 2)) == 1
    assert decide(f32(0, -0.0, 0, 0)) == 0


def test_nan_never_wins():
    decide = ActionLayout("discrete", (3,)).decide
    assert decide(f32(NAN, -5, -7)) == 1
    assert decide(f32(-INF, NAN, 2)) == 2
    assert decide(f32(NAN, NAN, NAN)) == 0


def test_each_block_of_a_multi_discrete_action_is_decided_alone():
    layout = ActionLayout("multi-discrete", (3, 2, 2))
    assert layout.outputs == 7
    assert layout.decide(f32(0, 9, 1, 5, 5, NAN, -8)).tolist() == [1, 0, 1]


def test_a_continuous_action_is_clipped_and_free_of_nan():
    layout = ActionLayout("continuous", low=(-1, -INF, 2), high=(1, INF, 3))
    assert layout.decide(f32(5, 1e9, NAN)).tolist() == [1.0, 1e9, 2.0]
    assert layout.decide(f32(5, 1e9, NAN)).dtype == np.float32


def test_layouts_read_as_text():
    assert str(ObservationLayout("pixels", (84, 84, 4))) == "pixels 84x84x4 uint8"
    assert str(ObservationLayout("vector", (8,))) == "vector 8 float32"
    assert str(ActionLayout("discrete", (18,))) == "discrete 18"
    assert str(ActionLayout("multi-discrete", (3, 2))) == "multi-discrete 3+2"
    assert str(ActionLayout("continuous", low=(-1.0,), high=(1.0,))) == "continuous 1"
