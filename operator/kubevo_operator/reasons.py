"""Why an Experiment is where it is: every reason that a condition or an event may give.

The one place where they are named and explained; ``docs/reference-conditions.md`` is made of it.
Pure: constants and texts.
"""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["EXPLAINED", "Explanation", "Reason"]


class Reason(StrEnum):
    """One word for why, as conditions, events and the column Status show it."""

    # --- on its way
    ACCEPTED = "Accepted"
    REPLICAS_IGNORED = "ReplicasIgnored"
    RESUMING = "Resuming"
    DESCRIBING = "Describing"
    WAITING_FOR_EVALUATORS = "WaitingForEvaluators"
    EVALUATING = "Evaluating"
    SUSPENDED = "Suspended"
    NOT_SUSPENDED = "NotSuspended"
    NOT_FAILED = "NotFailed"
    CHECKPOINT_SAVED = "CheckpointSaved"
    NO_CHECKPOINT_YET = "NoCheckpointYet"
    EVALUATORS_RUNNING = "EvaluatorsRunning"
    SCALED_TO_ZERO = "ScaledToZero"
    AS_EXPECTED = "AsExpected"
    # --- the end
    TARGET_FITNESS = "TargetFitness"
    MAX_GENERATIONS = "MaxGenerations"
    MAX_FRAMES = "MaxFrames"
    MAX_WALL_CLOCK_SECONDS = "MaxWallClockSeconds"
    ALL_EVALUATIONS_FAILED = "AllEvaluationsFailed"
    GENOME_TOO_LONG = "GenomeTooLong"
    RESUME_REFUSED = "ResumeRefused"
    # --- the spec
    SPEC_INVALID = "SpecInvalid"
    INPUT_REFUSED = "InputRefused"
    ENVIRONMENT_REFUSED = "EnvironmentRefused"
    WARM_START_REFUSED = "WarmStartRefused"
    # --- the evaluators
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_NOT_CREATED = "ContainerNotCreated"
    CRASH_LOOPING = "CrashLooping"
    OUT_OF_MEMORY = "OutOfMemory"
    UNSCHEDULABLE = "Unschedulable"
    QUEUED = "Queued"
    QUOTA_EXCEEDED = "QuotaExceeded"
    PODS_FORBIDDEN = "PodsForbidden"
    WORKERS_FAILING = "WorkersFailing"
    POISONED = "Poisoned"
    # --- the broker
    BROKER_UNREACHABLE = "BrokerUnreachable"
    BROKER_REFUSED = "BrokerRefused"
    BROKER_FULL = "BrokerFull"
    BROKER_TOO_OLD = "BrokerTooOld"
    MESSAGE_UNREADABLE = "MessageUnreadable"
    # --- the volume
    VOLUME_FULL = "VolumeFull"
    VOLUME_UNAVAILABLE = "VolumeUnavailable"
    CHECKPOINT_SKIPPED = "CheckpointSkipped"
    CHECKPOINT_DAMAGED = "CheckpointDamaged"
    CHECKPOINT_TOO_NEW = "CheckpointTooNew"
    RUN_IN_USE = "RunInUse"
    RUN_MISMATCH = "RunMismatch"
    TAKEN_OVER = "TakenOver"
    # --- the API server
    KEDA_MISSING = "KEDAMissing"
    RIGHTS_MISSING = "RightsMissing"
    OBJECT_REFUSED = "ObjectRefused"
    TEMPORARY_FAILURE = "TemporaryFailure"
    INTERNAL_ERROR = "InternalError"


@dataclass(frozen=True)
class Explanation:
    """What a reason means and what to do about it; an empty ``cure``: nothing."""

    group: str
    meaning: str
    cure: str = ""


_WAY, _END, _SPEC = "On its way", "The end", "The spec is refused"
_PODS, _BROKER = "The evaluators", "The broker"
_VOLUME, _API = "The volume", "The API server"

EXPLAINED: dict[Reason, Explanation] = {
    Reason.ACCEPTED: Explanation(_WAY, "The spec is valid and nothing stands in its way."),
    Reason.REPLICAS_IGNORED: Explanation(
        _WAY,
        "`scaling.replicas` is set, but counts only in mode Fixed; the rest is fine.",
        "Set `scaling.mode: Fixed`, or remove `replicas` and use `min` and `max`.",
    ),
    Reason.RESUMING: Explanation(
        _WAY, "The last checkpoint is read and the queue is made anew; this takes seconds."
    ),
    Reason.DESCRIBING: Explanation(
        _WAY, "An evaluator is asked for the environment's shapes and the network."
    ),
    Reason.WAITING_FOR_EVALUATORS: Explanation(
        _WAY,
        "There is work and no evaluator is ready yet.",
        "Wait for the image and the pods; `kubectl get pods -l kubevo.dev/experiment=NAME`.",
    ),
    Reason.EVALUATING: Explanation(_WAY, "Evaluators play."),
    Reason.SUSPENDED: Explanation(
        _WAY,
        "`spec.suspend` is true: the evaluators are gone, everything is kept.",
        "Set `spec.suspend: false` to go on after the last checkpoint.",
    ),
    Reason.NOT_SUSPENDED: Explanation(_WAY, "`spec.suspend` is false."),
    Reason.NOT_FAILED: Explanation(_WAY, "Nothing has ended the search for good."),
    Reason.CHECKPOINT_SAVED: Explanation(
        _WAY, "The generation in `status.checkpoint` is durable on the operator's volume."
    ),
    Reason.NO_CHECKPOINT_YET: Explanation(_WAY, "Generation 0 is not finished yet."),
    Reason.EVALUATORS_RUNNING: Explanation(_WAY, "At least one evaluator process is ready."),
    Reason.SCALED_TO_ZERO: Explanation(
        _WAY, "No evaluator is wanted: suspended, finished, idle, or `scaling` says zero."
    ),
    Reason.AS_EXPECTED: Explanation(_WAY, "Nothing is wrong that the search has to live with."),
    Reason.TARGET_FITNESS: Explanation(
        _END, "Succeeded: an elite's validated mean has reached `budget.targetFitness`."
    ),
    Reason.MAX_GENERATIONS: Explanation(
        _END,
        "Succeeded: `budget.maxGenerations` generations are finished.",
        "To go on, raise the budget (with `resumePolicy: FromCheckpoint`).",
    ),
    Reason.MAX_FRAMES: Explanation(
        _END,
        "Succeeded: `budget.maxFrames` frames are played.",
        "To go on, raise the budget (with `resumePolicy: FromCheckpoint`).",
    ),
    Reason.MAX_WALL_CLOCK_SECONDS: Explanation(
        _END,
        "Succeeded: the search has run for `budget.maxWallClockSeconds`.",
        "To go on, raise the budget (with `resumePolicy: FromCheckpoint`).",
    ),
    Reason.ALL_EVALUATIONS_FAILED: Explanation(
        _END,
        "Failed: not one evaluation of generation 0 gave a fitness.",
        "Read the evaluators' logs; correct the environment in a new Experiment.",
    ),
    Reason.GENOME_TOO_LONG: Explanation(
        _END,
        "Failed: a parent's lineage is as long as a genome may be (512 KiB of text).",
        "The best is kept; start a new Experiment from it with `warmStart`, or end earlier.",
    ),
    Reason.RESUME_REFUSED: Explanation(
        _END,
        "The budget of a finished Experiment was changed, and it stays finished.",
        "Set `resumePolicy: FromCheckpoint` and a budget beyond what is done already.",
    ),
    Reason.SPEC_INVALID: Explanation(
        _SPEC,
        "The operator does not accept the spec; the message has a line per problem.",
        "Correct the named fields. Is the custom resource definition as new as the operator?",
    ),
    Reason.INPUT_REFUSED: Explanation(
        _SPEC, "Something that the spec names cannot be used.", "The message says what to change."
    ),
    Reason.ENVIRONMENT_REFUSED: Explanation(
        _SPEC,
        "An evaluator answered that this environment and policy cannot be played: no such game "
        "in the image, or a network that does not fit.",
        "Set an `evaluator.image` that has the game, or make a new Experiment with another "
        "environment or policy.",
    ),
    Reason.WARM_START_REFUSED: Explanation(
        _SPEC,
        "What `warmStart` names is not there, has finished no generation, was pruned, or has "
        "another network. It is tried again each minute.",
        "Wait for the source, or make a new Experiment with another `warmStart`.",
    ),
    Reason.IMAGE_PULL_FAILED: Explanation(
        _PODS,
        "A node cannot pull the evaluators' image.",
        "Correct `evaluator.image`, or give the operator a pull secret for the registry.",
    ),
    Reason.CONTAINER_NOT_CREATED: Explanation(
        _PODS,
        "A node has the image and cannot make the container: a missing Secret or volume, a "
        "command that is not there, a user that the image does not allow.",
        "Correct what the message names, usually in `evaluator.podTemplate`.",
    ),
    Reason.CRASH_LOOPING: Explanation(
        _PODS,
        "Evaluator processes end again and again. Exit code 3: the process found itself unfit "
        "(its libraries, files or numbers); 4: it asked to be replaced, as after an episode "
        "beyond `taskTimeoutSeconds`.",
        "Read the message and `kubectl logs --previous`; set another `evaluator.image` or more "
        "`resources`.",
    ),
    Reason.OUT_OF_MEMORY: Explanation(
        _PODS,
        "An evaluator was killed because it needed more memory than its limit.",
        "Raise `evaluator.resources.limits.memory`, or lower `processesPerPod`.",
    ),
    Reason.UNSCHEDULABLE: Explanation(
        _PODS,
        "No node has room for a pod; the message is the scheduler's.",
        "Lower `evaluator.resources` or `scaling.max`, or add nodes.",
    ),
    Reason.QUEUED: Explanation(
        _PODS,
        "The pods wait until a queue (Kueue, or another scheduling gate) admits them.",
        "Look at the queue that the label `kueue.x-k8s.io/queue-name` names.",
    ),
    Reason.QUOTA_EXCEEDED: Explanation(
        _PODS,
        "The namespace's ResourceQuota allows no further pod or object.",
        "Lower `scaling.max` or `evaluator.resources`, or raise the quota.",
    ),
    Reason.PODS_FORBIDDEN: Explanation(
        _PODS,
        "The API server refuses the pods: Pod Security or another admission policy.",
        "Make `evaluator.podTemplate` fit the policy that the message names.",
    ),
    Reason.WORKERS_FAILING: Explanation(
        _PODS,
        "No evaluator process stays alive.",
        "Read the last log lines in the message; set another `evaluator.image`.",
    ),
    Reason.POISONED: Explanation(
        _PODS,
        "One evaluation killed every evaluator that took it. The search stops, resumable; the "
        "message names the genome and the last evaluator.",
        "Raise memory or change `evaluator.image`, or set `failurePolicy.onPoison: Score`.",
    ),
    Reason.BROKER_UNREACHABLE: Explanation(
        _BROKER,
        "The broker does not answer; it is tried again by itself and nothing is lost.",
        "Is its pod ready? Does a NetworkPolicy stand between?",
    ),
    Reason.BROKER_REFUSED: Explanation(
        _BROKER,
        "The broker answered with a refusal; it is tried again by itself.",
        "Compare the operator's credentials and the broker's limits with the message.",
    ),
    Reason.BROKER_FULL: Explanation(
        _BROKER,
        "This Experiment's part of the broker is full, or the broker has no room for it. Others go "
        "on; it is emptied and tried again by itself.",
        "Use an `evaluator.image` of the operator's version, or give the broker more storage.",
    ),
    Reason.BROKER_TOO_OLD: Explanation(
        _BROKER, "This nats-server is known to lose work.", "Run the version the chart ships."
    ),
    Reason.MESSAGE_UNREADABLE: Explanation(
        _BROKER,
        "A message has a form that this operator does not know.",
        "Use an `evaluator.image` of the operator's version.",
    ),
    Reason.VOLUME_FULL: Explanation(
        _VOLUME,
        "No space is left, or `checkpoint.quotaMebibytes` is reached; the last checkpoint is "
        "intact.",
        "Free space or enlarge the volume; raise the quota or lower `keepLast`.",
    ),
    Reason.VOLUME_UNAVAILABLE: Explanation(
        _VOLUME,
        "The operator's volume cannot be read or written; it is tried again by itself.",
        "Look at the claim and at the operator's log.",
    ),
    Reason.CHECKPOINT_SKIPPED: Explanation(
        _VOLUME,
        "The newest checkpoint did not verify; the search went on after an older one.",
        "Nothing is lost but time; check the volume's health.",
    ),
    Reason.CHECKPOINT_DAMAGED: Explanation(
        _VOLUME,
        "No checkpoint verifies.",
        "Restore the run's directory from a copy, or make a new Experiment.",
    ),
    Reason.CHECKPOINT_TOO_NEW: Explanation(
        _VOLUME,
        "A checkpoint was written by a newer kubevo.",
        "Run an operator of that version or a newer one.",
    ),
    Reason.RUN_IN_USE: Explanation(
        _VOLUME,
        "Another process works on the run's directory; it is tried again by itself.",
        "End the other process.",
    ),
    Reason.RUN_MISMATCH: Explanation(
        _VOLUME,
        "The run's directory does not belong to this spec.",
        "Move the directory that the message names away, or restore the right one.",
    ),
    Reason.TAKEN_OVER: Explanation(
        _VOLUME, "Another operator has taken over; this one must not write and ends."
    ),
    Reason.KEDA_MISSING: Explanation(
        _API,
        "`scaling.mode` is KEDA and the cluster knows no ScaledObject.",
        "Install KEDA 2.20 or newer, or set `scaling.mode: Operator`.",
    ),
    Reason.RIGHTS_MISSING: Explanation(
        _API,
        "The operator may not do what it has to.",
        "Install the operator's roles for this namespace again.",
    ),
    Reason.OBJECT_REFUSED: Explanation(
        _API,
        "The API server will not have an object of this Experiment.",
        "Correct what the message names, usually in `evaluator.podTemplate` or `resources`.",
    ),
    Reason.TEMPORARY_FAILURE: Explanation(
        _API, "Something did not answer; it is tried again by itself."
    ),
    Reason.INTERNAL_ERROR: Explanation(
        _API,
        "A mistake of kubevo's own; it is tried again from the last checkpoint.",
        "Report it with the operator's log.",
    ),
}
