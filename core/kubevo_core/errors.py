"""Every error that kubevo raises on purpose, split by whose fault it is and whether a retry helps.

::

    KubevoError
    ├── UserError                  the person's input; a retry gives the same error (exit code 2)
    │   ├── SpecError              an Experiment file or resource
    │   ├── GenomeError            a genome text or JSON
    │   ├── EnvironmentRefused     an evaluator's typed answer: this spec cannot be played
    │   └── WarmStartRefused       what a search should start from is not there, or does not fit
    ├── FormatError                bytes that somebody else wrote
    │   ├── MessageError           a message of an unknown version or with missing fields
    │   ├── CheckpointCorrupt      the bytes do not verify; the one before may
    │   └── CheckpointVersionError written by a newer kubevo; never skipped
    ├── StoreError                 the run's directory
    │   ├── RunInUse               another process works on it
    │   ├── RunNotFound            nothing there, or more than one run
    │   ├── RunMismatch            it belongs to another spec
    │   ├── StoreFull              no space or over the quota; the last checkpoint is intact
    │   └── Fenced                 a later takeover owns it; this process must stop
    ├── BusError                   the broker; a retry may help
    │   ├── BusUnavailable         not reachable, or it did not answer in time
    │   └── ServerTooOld           refused by version; a retry does not help
    ├── RunStopped                 the run cannot go on now; it is resumable
    │   ├── Poisoned               an evaluation kills every worker that takes it
    │   └── WorkersFailing         no worker process stays alive
    ├── WorkerUnfit                this process must not evaluate; another may
    └── IllegalTransition          our bug: the engine was driven out of order

A message says what was expected, what came, where, and what to do about it.
"""

__all__ = [
    "BusError",
    "BusUnavailable",
    "CheckpointCorrupt",
    "CheckpointVersionError",
    "EnvironmentRefused",
    "Fenced",
    "FormatError",
    "GenomeError",
    "IllegalTransition",
    "KubevoError",
    "MessageError",
    "Poisoned",
    "RunInUse",
    "RunMismatch",
    "RunNotFound",
    "RunStopped",
    "ServerTooOld",
    "SpecError",
    "StoreError",
    "StoreFull",
    "UserError",
    "WarmStartRefused",
    "WorkerUnfit",
    "WorkersFailing",
]


class KubevoError(Exception):
    """Root of the tree; catch it only at a program's edge."""


class UserError(KubevoError):
    """The person's input cannot be used; the message tells what to change."""


class SpecError(UserError):
    """An Experiment is not valid; one line per problem."""


class GenomeError(UserError):
    """A genome's text or JSON cannot be read."""


class EnvironmentRefused(UserError):
    """An evaluator answered that this environment and policy cannot be played."""


class WarmStartRefused(UserError):
    """The source of a warm start is not there yet, was pruned, or has another network."""


class FormatError(KubevoError):
    """Bytes from a file or the network are not what their format says."""


class MessageError(FormatError):
    """A message has an unknown version or lacks a field."""


class CheckpointCorrupt(FormatError):
    """A checkpoint's bytes do not verify; an older checkpoint may."""


class CheckpointVersionError(FormatError):
    """A checkpoint was written by a version this program does not know; it is never skipped."""


class StoreError(KubevoError):
    """The run's directory cannot be used."""


class RunInUse(StoreError):
    """Another process works on this run."""


class RunNotFound(StoreError):
    """No run, or more than one (then ``ambiguous``), is where one was expected."""

    def __init__(self, message: str, *, ambiguous: bool = False) -> None:
        super().__init__(message)
        self.ambiguous = ambiguous


class RunMismatch(StoreError):
    """The run belongs to another spec; the message shows the difference."""


class StoreFull(StoreError):
    """No space is left, or the quota is reached; the last checkpoint is intact."""


class Fenced(StoreError):
    """A later takeover owns this run; this process must not write to it again."""


class BusError(KubevoError):
    """The broker refused or failed."""


class BusUnavailable(BusError):
    """The broker cannot be reached or did not answer in time; a retry may help."""


class BrokerFull(BusError):
    """The broker has no room for this Experiment: its own streams' or the server's is used up."""


class ServerTooOld(BusError):
    """The broker's version is known to lose work; a retry does not help."""


class RunStopped(KubevoError):
    """The run cannot go on now; its directory is resumable."""


class Poisoned(RunStopped):
    """One evaluation killed every worker that took it: ``episode``, of the ``genome`` (a digest).

    ``worker`` is the last one that is known to have had it, if any is.
    """

    def __init__(
        self, message: str, *, episode: str = "", genome: str = "", worker: str | None = None
    ) -> None:
        super().__init__(message)
        self.episode = episode
        self.genome = genome
        self.worker = worker


class WorkersFailing(RunStopped):
    """No worker process stays alive; the message carries the last log lines."""


class WorkerUnfit(KubevoError):
    """This process must not evaluate (its libraries, memory or files fail); another one may."""


class IllegalTransition(KubevoError):
    """The engine was driven out of order: a bug, never the user's fault; nothing has changed."""
