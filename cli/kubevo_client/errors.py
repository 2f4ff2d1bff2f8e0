"""What can go wrong between a client and the service, by whose fault it is and whether a retry helps.

::

    KubevoError
    └── ServiceError             ``status`` is HTTP's; None: there was no answer
        ├── ServiceUnavailable   no answer, or it asks to come back later; a retry may help
        ├── AccessRefused        the token, or the rights of its owner
        ├── NotThere             (UserError) no such Experiment, generation or file
        ├── RequestRefused       (UserError) the request cannot be carried out as it is
        ├── ExperimentFailed     the search that was waited for will not succeed by itself
        └── WaitTimeout          (TimeoutError) the search goes on; wait again
"""

from kubevo_core.errors import KubevoError, UserError

__all__ = [
    "AccessRefused",
    "ExperimentFailed",
    "NotThere",
    "RequestRefused",
    "ServiceError",
    "ServiceUnavailable",
    "WaitTimeout",
]


class ServiceError(KubevoError):
    """The service did not do what was asked; ``status`` is HTTP's, None without an answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ServiceUnavailable(ServiceError):
    """The service does not answer, or asks to come back later; a retry may help."""


class AccessRefused(ServiceError):
    """The token is missing or not valid there, or its owner lacks the right."""


class NotThere(ServiceError, UserError):
    """There is no such Experiment, generation, individual or file."""


class RequestRefused(ServiceError, UserError):
    """The request cannot be carried out; the message says which part of it."""


class ExperimentFailed(ServiceError):
    """The search has failed, or nobody works on it; the message says why and what to do."""


class WaitTimeout(ServiceError, TimeoutError):
    """The time given is over; the search goes on."""
