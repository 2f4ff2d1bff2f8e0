"""The law of scaling: bounds, reaction, no flapping, and nothing shrinks while work is queued."""

import heapq
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubevo_core.spec import Scaling
from kubevo_operator.scaling import Demand, Memory, desired_pods, pods_for


def scaling(**fields):
    return Scaling.model_validate({"mode": "Operator", **fields})


def run(law, processes, series, memory=None):
    """Return the pods at each (second, demand) of a series."""
    memory, found = memory or Memory(), []
    for now, demand in series:
        pods, memory = desired_pods(law, processes, demand, memory, now)
        found.append(pods)
    return found


bounds = st.tuples(st.integers(0, 50), st.integers(1, 50)).map(
    lambda pair: {"min": min(pair), "max": max(pair)}
)
laws = st.builds(
    lambda bound, tasks, idle, window: scaling(
        **bound, tasksPerReplica=tasks, idleSeconds=idle, scaleDownStabilizationSeconds=window
    ),
    bounds,
    st.integers(1, 50),
    st.integers(0, 600),
    st.integers(60, 600),
)
demands = st.builds(Demand, st.integers(1, 5000), st.one_of(st.just(0), st.integers(1, 9000)))
gaps = st.floats(0.1, 400)


@given(law=laws, processes=st.integers(1, 16), steps=st.lists(st.tuples(gaps, demands)))
def test_the_pods_are_within_bounds_and_never_below_the_need(law, processes, steps):
    times = itertools.accumulate(gap for gap, _ in steps)
    series = [(now, demand) for now, (_, demand) in zip(times, steps, strict=True)]
    for (_, demand), pods in zip(series, run(law, processes, series), strict=True):
        assert 0 <= pods <= law.max
        assert pods >= pods_for(law, processes, demand)
        if demand.open_tasks:
            assert pods >= max(1, law.min)


@given(law=laws, processes=st.integers(1, 16), demand=demands, more=st.integers(0, 5000))
def test_more_open_tasks_never_give_fewer_pods(law, processes, demand, more):
    larger = Demand(demand.population_tasks, demand.open_tasks + more)
    assert pods_for(law, processes, larger) >= pods_for(law, processes, demand)


@given(law=laws, steps=st.lists(st.tuples(gaps, demands), min_size=1))
def test_fewer_pods_come_only_after_a_whole_window_of_less_need(law, steps):
    times = itertools.accumulate(gap for gap, _ in steps)
    series = [(now, demand) for now, (_, demand) in zip(times, steps, strict=True)]
    found = run(law, 1, series)
    window = law.scale_down_stabilization_seconds
    for at in range(1, len(series)):
        if 0 < found[at] < found[at - 1]:
            # Each look's need lasts until the next look; those of the window were all no larger.
            inside = [i for i in range(at) if series[i + 1][0] > series[at][0] - window]
            needs = [pods_for(law, 1, series[i][1]) for i in inside]
            assert all(need <= found[at] for need in needs)


def test_the_fleet_is_up_at_once():
    law = scaling(max=100, tasksPerReplica=10)
    assert run(law, 1, [(0, Demand(1000, 0)), (1, Demand(1000, 1000))]) == [0, 100]


def test_processes_are_rounded_up_to_pods():
    law = scaling(max=100, tasksPerReplica=10)
    assert pods_for(law, 4, Demand(1000, 1000)) == 25
    assert pods_for(law, 3, Demand(1000, 1000)) == 34
    assert pods_for(law, 64, Demand(1000, 3)) == 1


def test_the_need_is_of_the_generation_and_not_of_the_queue():
    law = scaling(max=1000, tasksPerReplica=10)
    # ceil(open / 10) would give 50 and then 10; all 100 processes still have something to do.
    assert pods_for(law, 1, Demand(1000, 500)) == 100
    assert pods_for(law, 1, Demand(1000, 100)) == 100
    assert pods_for(law, 1, Demand(1000, 40)) == 40


def test_the_fleet_is_held_through_a_boundary_between_generations():
    law = scaling(max=100, scaleDownStabilizationSeconds=60)
    series = [(0, Demand(1000, 1000)), (50, Demand(1000, 3)), (51, Demand(1000, 0))]
    series += [(52, Demand(1000, 1000)), (100, Demand(1000, 2)), (105, Demand(1000, 1000))]
    assert set(run(law, 1, series)) == {100}


def test_a_longer_lull_gives_pods_back_after_the_window():
    law = scaling(max=100, scaleDownStabilizationSeconds=60)
    series = [(0, Demand(1000, 1000)), *((t, Demand(1000, 7)) for t in range(10, 90, 10))]
    assert run(law, 1, series) == [100] * 7 + [7] * 2


def test_the_last_look_counts_until_the_next_one():
    law = scaling(max=100, scaleDownStabilizationSeconds=60)
    series = [(0, Demand(1000, 1000)), (1000, Demand(1000, 7)), (1059, Demand(1000, 7))]
    series += [(1060, Demand(1000, 7))]
    assert run(law, 1, series) == [100, 100, 100, 7]


def test_nobody_is_left_when_it_has_been_idle():
    law = scaling(min=5, max=10, idleSeconds=120, scaleDownStabilizationSeconds=60)
    series = [(0, Demand(1000, 1000)), (10, Demand(1000, 0)), (100, Demand(1000, 0))]
    series += [(129, Demand(1000, 0)), (130, Demand(1000, 0)), (131, Demand(1000, 0))]
    assert run(law, 1, series) == [10, 10, 5, 5, 0, 0]


@pytest.mark.parametrize("mode", ["Operator", "Fixed", "KEDA", "HPA", "External"])
@pytest.mark.parametrize("why", ["suspended", "finished"])
def test_suspend_and_the_end_are_zero_at_once_whatever_min_says(mode, why):
    law = scaling(mode=mode, min=5, replicas=7)
    _, memory = desired_pods(law, 1, Demand(1000, 1000), Memory(), 0)
    assert desired_pods(law, 1, Demand(1000, 1000, **{why: True}), memory, 1) == (0, Memory())


def test_fixed_is_what_the_scale_subresource_says():
    law = scaling(mode="Fixed", replicas=7, max=3)
    assert run(law, 1, [(0, Demand(1000, 0)), (1, Demand(1000, 5))]) == [7, 7]


@pytest.mark.parametrize("mode", ["KEDA", "HPA", "External"])
def test_somebody_elses_number_is_left_alone(mode):
    assert run(scaling(mode=mode), 1, [(0, Demand(1000, 5))]) == [None]


def test_a_new_operator_keeps_the_fleet_until_it_knows_better():
    law = scaling(max=100, idleSeconds=120)
    found = [(t, Demand(1000, 0)) for t in (0, 5)] + [(10, Demand(1000, 1000))]
    assert run(law, 1, found, Memory.of(40, 0)) == [40, 40, 100]
    assert run(law, 1, [(0, Demand(1000, 0))], Memory.of(0, 0)) == [0]


def test_a_lower_max_counts_at_once():
    _, memory = desired_pods(scaling(max=100), 1, Demand(1000, 1000), Memory(), 0)
    assert desired_pods(scaling(max=20), 1, Demand(1000, 1000), memory, 1)[0] == 20


def test_the_memory_is_small_however_long_it_runs():
    memory = Memory()
    for now in range(5000):
        demand = Demand(1000, 5000 - now)
        _, memory = desired_pods(scaling(max=10_000), 1, demand, memory, float(now))
        assert len(memory.needs) <= 300


def simulate(lengths, law, window_of_boundary):
    """Play generations on a fleet that follows the law; return (second, pods, queued) each second.

    A pod plays one episode after the other. Between generations nothing is open for a moment.
    """
    trace, memory, now = [], Memory(), 0.0
    for generation in lengths:
        queue, playing = list(generation), []
        while queue or playing:
            while playing and playing[0] <= now:
                heapq.heappop(playing)
            demand = Demand(len(generation), len(queue) + len(playing))
            pods, memory = desired_pods(law, 1, demand, memory, now)
            while queue and len(playing) < pods:
                heapq.heappush(playing, now + queue.pop())
            trace.append((now, pods, len(queue)))
            now += 1.0
        for _ in range(window_of_boundary):
            pods, memory = desired_pods(law, 1, Demand(len(generation), 0), memory, now)
            trace.append((now, pods, 0))
            now += 1.0
    return trace


@given(
    st.lists(st.lists(st.integers(1, 40), min_size=40, max_size=120), min_size=2, max_size=4),
    st.integers(1, 20),
    st.integers(0, 20),
)
def test_the_fleet_never_shrinks_while_work_is_queued(lengths, tasks, boundary):
    law = scaling(max=50, tasksPerReplica=tasks, scaleDownStabilizationSeconds=60)
    size = len(lengths[0])
    lengths = [[*generation, *([1] * size)][:size] for generation in lengths]
    trace = simulate(lengths, law, boundary)
    wanted = min(-(-size // tasks), 50)
    for _, pods, queued in trace:
        assert not queued or pods >= min(wanted, queued)
    for (_, before, _), (_, after, queued) in itertools.pairwise(trace):
        assert after >= before or not queued


def test_a_series_of_generations_does_not_flap():
    law = scaling(max=50, tasksPerReplica=10, scaleDownStabilizationSeconds=60)
    lengths = [[1 + (slot * 7 + g) % 5 for slot in range(200)] for g in range(20)]
    trace = simulate(lengths, law, 3)
    changes = sum(a != b for (_, a, _), (_, b, _) in itertools.pairwise(trace))
    assert changes == 0
    assert trace[0][1] == 20
