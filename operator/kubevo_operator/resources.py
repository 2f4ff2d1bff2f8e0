"""Resources of the evaluators: a pod's quantities, shared out among the processes in it.

Pure. A quantity is read exactly, as a fraction, and written in whole units.
"""

import math
from fractions import Fraction

from kubevo_core.spec import Evaluator

__all__ = ["PER_PROCESS", "processes_per_pod", "quantity", "shares"]

Resources = dict[str, dict[str, str]]
# What one evaluator process gets where the spec says nothing: large-dqn with its parents' cache.
PER_PROCESS: Resources = {
    "requests": {"cpu": "1", "memory": "512Mi"},
    "limits": {"memory": "1Gi"},
}
_SUFFIXES: dict[str, Fraction] = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    **{name: Fraction(10) ** (3 * (i + 1)) for i, name in enumerate("kMGTPE")},
    **{f"{name}i": Fraction(1024) ** (i + 1) for i, name in enumerate("KMGTPE")},
}


def quantity(text: str) -> Fraction:
    """Return what a quantity such as 500m, 1.5Gi or 2e3 is worth."""
    digits = text.rstrip("numkMGTPEi")
    # 1e3 and 1E3 are powers of ten; 1E alone is a suffix.
    return Fraction(digits) * _SUFFIXES[text[len(digits) :]]


def processes_per_pod(evaluator: Evaluator) -> int:
    """Return the evaluator processes in a pod: as said, else the CPU limit rounded down, else 1."""
    if evaluator.processes_per_pod is not None:
        return evaluator.processes_per_pod
    limit = evaluator.resources.get("limits", {}).get("cpu", "1")
    return max(1, min(512, math.floor(quantity(limit))))


def shares(evaluator: Evaluator, processes: int) -> list[Resources]:
    """Return the resources of each process of a pod.

    What the spec says is a pod's and is shared out; the first processes take what does not divide,
    so that a device that cannot be divided goes to the first. Without a word of the spec, each
    process gets `PER_PROCESS`.
    """
    resources = {str(k): dict(v) for k, v in evaluator.resources.items() if v}
    if not resources:
        return [{kind: dict(of) for kind, of in PER_PROCESS.items()} for _ in range(processes)]
    if processes == 1:
        return [resources]
    found: list[Resources] = [{} for _ in range(processes)]
    for kind, of in resources.items():
        for name, text in of.items():
            for index, share in enumerate(_share(name, text, processes)):
                if share is not None:
                    found[index].setdefault(kind, {})[name] = share
    return found


def _share(name: str, text: str, processes: int) -> list[str | None]:
    unit = Fraction(1, 1000) if name == "cpu" else Fraction(1)
    suffix = "m" if name == "cpu" else ""
    whole, rest = divmod(math.ceil(quantity(text) / unit), processes)
    numbers = [whole + (index < rest) for index in range(processes)]
    return [f"{number}{suffix}" if number else None for number in numbers]
