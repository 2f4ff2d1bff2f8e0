"""A worker's settings, read once from the environment by the program's entry point."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from kubevo_core.errors import UserError

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """What a worker process must be told."""

    nats_url: str
    """Address of the broker, such as nats://127.0.0.1:4222."""

    experiment: str
    """The Experiment's id on the broker (``kubevo_core.names.experiment_id``)."""

    nats_token: str | None = field(default=None, repr=False)
    """Token for the broker; None for a broker that asks for none."""

    worker: str = "worker"
    """This process in results and logs; unique, because two workers must confirm a failure."""

    cache_mebibytes: int = 384
    """Most memory for parents' parameters: 20 parents of large-dqn are 310 MiB. 0 caches nothing."""

    grace_seconds: float = 20.0
    """After SIGTERM an episode may finish within this time; then it is given back."""

    ack_wait_seconds: float = 20.0
    """The broker's lease on a task; a sign of life is sent every third of it."""

    @staticmethod
    def from_environment(environ: Mapping[str, str] | None = None) -> "Settings":
        """Read KUBEVO_NATS_URL, KUBEVO_EXPERIMENT_ID and the optional ones.

        Raises:
            UserError: one is missing or not a number.
        """
        env = os.environ if environ is None else environ
        missing = [n for n in ("KUBEVO_NATS_URL", "KUBEVO_EXPERIMENT_ID") if not env.get(n)]
        if missing:
            raise UserError(
                f"a worker needs {' and '.join(missing)} in its environment; "
                "`kubevo run` and the operator set them"
            )
        try:
            return Settings(
                nats_url=env["KUBEVO_NATS_URL"],
                experiment=env["KUBEVO_EXPERIMENT_ID"],
                nats_token=env.get("KUBEVO_NATS_TOKEN") or None,
                worker=env.get("KUBEVO_WORKER") or f"{os.uname().nodename}-{os.getpid()}",
                cache_mebibytes=int(env.get("KUBEVO_CACHE_MEBIBYTES", "384")),
                grace_seconds=float(env.get("KUBEVO_GRACE_SECONDS", "20")),
                ack_wait_seconds=float(env.get("KUBEVO_ACK_WAIT_SECONDS", "20")),
            )
        except ValueError as exc:
            raise UserError(f"a worker's settings: {exc}") from exc
