"""How many evaluator pods there should be: a pure function of demand, spec, memory and time.

Up at once; down only after fewer were enough for a whole window; held over the moment between two
generations, in which next to nothing is open; zero on suspend, at the end, and when idle.

The wanted number is min(ceil(tasks of a generation / tasksPerReplica), open tasks) processes. The
obvious ceil(open / tasksPerReplica) is wrong: it lets the fleet shrink while work is queued, and
costs several times the wall time. Ours takes a process away only when it would have nothing to do.
"""

from dataclasses import dataclass

from kubevo_core.spec import Scaling

__all__ = ["Demand", "Memory", "desired_pods", "pods_for"]


@dataclass(frozen=True)
class Demand:
    """What there is to do: tasks are episodes.

    ``population_tasks``: those of one generation's populations, over all repeats. ``open_tasks``:
    those that are demanded now and have no result, the ones being played included.
    """

    population_tasks: int
    open_tasks: int
    finished: bool = False
    suspended: bool = False


@dataclass(frozen=True)
class Memory:
    """What one decision leaves for the next: plain `Memory()` before the first.

    ``needs`` are (second until which it was needed, pods), both strictly ordered: later ones are
    fewer. ``now`` and ``pods`` repeat the last look, whose need lasts until the next one.
    """

    needs: tuple[tuple[float, int], ...] = ()
    busy_until: float | None = None
    pods: int = 0
    was_busy: bool = False

    @staticmethod
    def of(pods: int, now: float) -> "Memory":
        """Return the memory of who finds ``pods`` running: after a takeover they are kept a while.

        Without it a new operator would end the fleet before it has read its first checkpoint.
        """
        return Memory(((now, pods),), now, pods, was_busy=True) if pods else Memory()


def pods_for(scaling: Scaling, processes_per_pod: int, demand: Demand) -> int:
    """Return the pods that would have something to do, within max, and at least min of them."""
    if not demand.open_tasks:
        return 0
    wanted = -(-demand.population_tasks // scaling.tasks_per_replica)
    processes = max(1, min(wanted, demand.open_tasks))
    return min(max(-(-processes // processes_per_pod), scaling.min), scaling.max)


def desired_pods(
    scaling: Scaling, processes_per_pod: int, demand: Demand, memory: Memory, now: float
) -> tuple[int | None, Memory]:
    """Return the number of pods to ask for, and what to remember; ``now`` in seconds.

    None leaves the number to whoever rules it in the modes KEDA, HPA and External. Suspended and
    finished are zero in every mode, whatever ``min`` says.
    """
    if demand.suspended or demand.finished:
        return 0, Memory()
    if scaling.mode == "Fixed":
        return scaling.replicas, Memory()
    if scaling.mode != "Operator":
        return None, Memory()
    is_busy = demand.open_tasks > 0
    busy_until = now if is_busy or memory.was_busy else memory.busy_until
    if busy_until is None or (not is_busy and now - busy_until >= scaling.idle_seconds):
        return 0, Memory()
    # Between two bursts the least fleet stays; it goes when the pause is long enough to be idle.
    needed = pods_for(scaling, processes_per_pod, demand) or max(1, scaling.min)
    # The last look's need has lasted until this one, however long ago that was.
    needs = _with(memory.needs, now, memory.pods) if memory.pods else memory.needs
    since = now - scaling.scale_down_stabilization_seconds
    needs = _with(tuple(need for need in needs if need[0] > since), now, needed)
    pods = min(needs[0][1], scaling.max)
    return pods, Memory(needs, busy_until, needed, was_busy=is_busy)


def _with(
    needs: tuple[tuple[float, int], ...], now: float, pods: int
) -> tuple[tuple[float, int], ...]:
    """Return ``needs`` and a new one; what it covers can never be the largest again."""
    return (*(need for need in needs if need[1] > pods), (now, pods))
