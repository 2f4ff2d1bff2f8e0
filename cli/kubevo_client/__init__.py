"""The Python client of the REST service: look at Experiments, wait for them, play what they found.

::

    from kubevo_client import Client

    policy = Client().experiment("cartpole").wait().best().load_policy()

It stands on `kubevo_core`, numpy and the standard library's HTTP; the evaluator's libraries are used
where they are installed, and never needed. It belongs to no program: the command line uses it for
everything that it asks the service, and so may anybody's notebook.
"""

from kubevo_client.client import Client
from kubevo_client.errors import (
    AccessRefused,
    ExperimentFailed,
    NotThere,
    RequestRefused,
    ServiceError,
    ServiceUnavailable,
    WaitTimeout,
)
from kubevo_client.experiment import Experiment
from kubevo_client.genomes import Best
from kubevo_client.history import History
from kubevo_client.policy import Policy
from kubevo_client.status import Status
from kubevo_client.streams import Event

__all__ = [
    "AccessRefused",
    "Best",
    "Client",
    "Event",
    "Experiment",
    "ExperimentFailed",
    "History",
    "NotThere",
    "Policy",
    "RequestRefused",
    "ServiceError",
    "ServiceUnavailable",
    "Status",
    "WaitTimeout",
]
