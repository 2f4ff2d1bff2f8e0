"""What an Experiment's conditions say in each phase of its life.

Pure: a phase in, conditions out. Each function says everything that its phase knows, so that nothing
of the phase before is left standing. Failures are `conditions.failure_of`'s.
"""

from typing import Literal

from kubevo_core.generation import Stop
from kubevo_core.spec import ExperimentSpec
from kubevo_operator.conditions import Condition, Reason, Type, sentence
from kubevo_operator.evaluators import Evaluators

__all__ = [
    "FAILURES",
    "checkpointed",
    "evaluators_ready",
    "finished",
    "reason_of",
    "resume_refused",
    "resuming",
    "searching",
    "skipped",
    "suspended",
]

Said = tuple[Condition, ...]
# The one table of ends that are failures; every other stop is a success.
FAILURES = (Stop.ALL_EVALUATIONS_FAILED, Stop.GENOME_TOO_LONG)
_REASONS: dict[Stop, Reason] = {
    Stop.ALL_EVALUATIONS_FAILED: Reason.ALL_EVALUATIONS_FAILED,
    Stop.TARGET_FITNESS: Reason.TARGET_FITNESS,
    Stop.MAX_GENERATIONS: Reason.MAX_GENERATIONS,
    Stop.MAX_FRAMES: Reason.MAX_FRAMES,
    Stop.MAX_WALL_CLOCK_SECONDS: Reason.MAX_WALL_CLOCK_SECONDS,
    Stop.GENOME_TOO_LONG: Reason.GENOME_TOO_LONG,
}
_ENDS: dict[Stop, str] = {
    Stop.ALL_EVALUATIONS_FAILED: "not one evaluation of generation 0 gave a fitness",
    Stop.TARGET_FITNESS: "an elite has reached targetFitness",
    Stop.MAX_GENERATIONS: "maxGenerations are finished",
    Stop.MAX_FRAMES: "maxFrames are played",
    Stop.MAX_WALL_CLOCK_SECONDS: "maxWallClockSeconds are over",
    Stop.GENOME_TOO_LONG: "a parent's lineage is as long as a genome may be",
}


def reason_of(stop: Stop) -> Reason:
    """Return the reason that names why a search has stopped."""
    return _REASONS[stop]


def resuming(spec: ExperimentSpec) -> Said:
    """Say that a search starts, or goes on after its last checkpoint; nothing is played yet."""
    text = "the last checkpoint is read and the queue is made"
    return (*_open(spec), *_running("False", Reason.RESUMING, text), _as_expected())


def searching(spec: ExperimentSpec, evaluators: Evaluators, *, is_described: bool) -> Said:
    """Say that a search is driven, and why nothing is played where nothing is."""
    ready, problem = evaluators_ready(evaluators), evaluators.problem
    if not evaluators.ready:
        reason, text = ready.reason, ready.message
        if reason == Reason.SCALED_TO_ZERO:
            reason = Reason.WAITING_FOR_EVALUATORS
            if spec.scaling.mode == "Fixed":
                text = "scaling.replicas is 0 in mode Fixed: raise it, for example by kubectl scale"
        said = _running("False", reason, text)
    elif not is_described:
        text = "an evaluator is asked what the environment and the network look like"
        said = _running("True", Reason.DESCRIBING, text)
    else:
        said = _running("True", Reason.EVALUATING, "evaluators play")
    is_degraded = problem is not None and problem.type == Type.DEGRADED
    degraded = problem if is_degraded and problem else _as_expected()
    return (*_open(spec), *said, ready, degraded)


def suspended(evaluators: Evaluators) -> Said:
    """Say that ``spec.suspend`` is obeyed."""
    text = "suspended; set spec.suspend to false to go on after the last checkpoint"
    return (
        Condition(Type.READY, "True", Reason.SUSPENDED, text),
        Condition(Type.RUNNING, "False", Reason.SUSPENDED, text),
        Condition(Type.SUSPENDED, "True", Reason.SUSPENDED, text),
        Condition(Type.SUCCEEDED, "Unknown", Reason.SUSPENDED, text),
        Condition(Type.FAILED, "False", Reason.NOT_FAILED, "not failed"),
        evaluators_ready(evaluators),
        _as_expected(),
    )


def finished(stop: Stop, message: str = "") -> Said:
    """Say that a search has ended, in success or, for some stops, in failure."""
    reason, failed = _REASONS[stop], stop in FAILURES
    text = message or _ENDS[stop]
    if failed:
        text = sentence(reason, text)
    return (
        Condition(Type.READY, "False" if failed else "True", reason, text),
        Condition(Type.RUNNING, "False", reason, text),
        Condition(Type.SUSPENDED, "False", Reason.NOT_SUSPENDED, "finished"),
        Condition(Type.SUCCEEDED, "False" if failed else "True", reason, text),
        Condition(
            Type.FAILED,
            "True" if failed else "False",
            reason if failed else Reason.NOT_FAILED,
            text if failed else "not failed",
        ),
        Condition(
            Type.EVALUATORS_READY, "False", Reason.SCALED_TO_ZERO, "finished: none is wanted"
        ),
        _as_expected(),
    )


def resume_refused(spec: ExperimentSpec, *, failed: bool = False) -> Said:
    """Say that a finished Experiment got another budget and stays finished."""
    why = (
        "resumePolicy is Never"
        if spec.resume_policy == "Never"
        else "the budget asks for nothing that is not done already"
    )
    text = sentence(Reason.RESUME_REFUSED, f"finished, and {why}")
    return (Condition(Type.READY, "False" if failed else "True", Reason.RESUME_REFUSED, text),)


def checkpointed(*, is_saved: bool) -> Said:
    """Say whether a generation is durable; which one stands in ``status.checkpoint``."""
    if not is_saved:
        text = "generation 0 is not finished yet"
        return (Condition(Type.CHECKPOINTED, "False", Reason.NO_CHECKPOINT_YET, text),)
    text = "the generation in status.checkpoint is durable"
    return (Condition(Type.CHECKPOINTED, "True", Reason.CHECKPOINT_SAVED, text),)


def skipped(files: tuple[str, ...]) -> Said:
    """Say that newer checkpoints did not verify and an older one was taken."""
    text = sentence(Reason.CHECKPOINT_SKIPPED, f"skipped {', '.join(files)}")
    return (Condition(Type.DEGRADED, "True", Reason.CHECKPOINT_SKIPPED, text),)


def evaluators_ready(evaluators: Evaluators) -> Condition:
    """Say whether anybody can play; never with a number that changes with every pod."""
    if evaluators.ready:
        text = "evaluator processes are ready; status.evaluators counts them"
        return Condition(Type.EVALUATORS_READY, "True", Reason.EVALUATORS_RUNNING, text)
    if evaluators.problem is not None:
        return evaluators.problem
    if not evaluators.desired:
        text = "no evaluator is wanted at present"
        return Condition(Type.EVALUATORS_READY, "False", Reason.SCALED_TO_ZERO, text)
    text = "evaluators are on their way: their pods start"
    return Condition(Type.EVALUATORS_READY, "False", Reason.WAITING_FOR_EVALUATORS, text)


def _open(spec: ExperimentSpec) -> Said:
    """Say what is so of every Experiment that is neither finished nor suspended."""
    scaling = spec.scaling
    if scaling.replicas and scaling.mode != "Fixed":
        detail = f"scaling.replicas is {scaling.replicas}, and scaling.mode is {scaling.mode}"
        text = sentence(Reason.REPLICAS_IGNORED, detail)
        ready = Condition(Type.READY, "True", Reason.REPLICAS_IGNORED, text)
    else:
        ready = Condition(Type.READY, "True", Reason.ACCEPTED, "the spec is accepted")
    return (
        ready,
        Condition(Type.SUSPENDED, "False", Reason.NOT_SUSPENDED, "not suspended"),
        Condition(Type.FAILED, "False", Reason.NOT_FAILED, "not failed"),
    )


def _running(status: Literal["True", "False"], reason: Reason, text: str) -> Said:
    return (
        Condition(Type.RUNNING, status, reason, text),
        Condition(Type.SUCCEEDED, "Unknown", reason, text),
    )


def _as_expected() -> Condition:
    return Condition(Type.DEGRADED, "False", Reason.AS_EXPECTED, "as expected")
