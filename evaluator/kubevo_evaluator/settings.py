"""A worker's settings, read once from the environment by the program's entry point."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

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
    """Token for the broker; None for a broker that asks for none, or for credentials."""

    nats_credentials: Path | None = None
    """File with this Experiment's credentials for the broker, in place of a token."""

    nats_tls_ca: Path | None = None
    """PEM file of the authorities that may have signed the broker's certificate."""

    nats_tls_cert: Path | None = None
    """PEM file of this worker's own certificate, for a broker that asks for one."""

    nats_tls_key: Path | None = None
    """PEM file of that certificate's key."""

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
            UserError: one is missing or not a number, or two exclude each other.
        """
        env = os.environ if environ is None else environ
        missing = [n for n in ("KUBEVO_NATS_URL", "KUBEVO_EXPERIMENT_ID") if not env.get(n)]
        if missing:
            raise UserError(
                f"a worker needs {' and '.join(missing)} in its environment; "
                "`kubevo run` and the operator set them"
            )
        _refuse_contradictions(env)
        try:
            return Settings(
                nats_url=env["KUBEVO_NATS_URL"],
                experiment=env["KUBEVO_EXPERIMENT_ID"],
                nats_token=env.get("KUBEVO_NATS_TOKEN") or None,
                nats_credentials=_path(env, "KUBEVO_NATS_CREDENTIALS"),
                nats_tls_ca=_path(env, "KUBEVO_NATS_TLS_CA"),
                nats_tls_cert=_path(env, "KUBEVO_NATS_TLS_CERT"),
                nats_tls_key=_path(env, "KUBEVO_NATS_TLS_KEY"),
                worker=env.get("KUBEVO_WORKER") or f"{os.uname().nodename}-{os.getpid()}",
                cache_mebibytes=int(env.get("KUBEVO_CACHE_MEBIBYTES", "384")),
                grace_seconds=float(env.get("KUBEVO_GRACE_SECONDS", "20")),
                ack_wait_seconds=float(env.get("KUBEVO_ACK_WAIT_SECONDS", "20")),
            )
        except ValueError as exc:
            raise UserError(f"a worker's settings: {exc}") from exc


def _path(env: Mapping[str, str], name: str) -> Path | None:
    text = env.get(name)
    return Path(text) if text else None


def _refuse_contradictions(env: Mapping[str, str]) -> None:
    if env.get("KUBEVO_NATS_TOKEN") and env.get("KUBEVO_NATS_CREDENTIALS"):
        raise UserError(
            "a worker's settings: set KUBEVO_NATS_TOKEN or KUBEVO_NATS_CREDENTIALS, not both"
        )
    if bool(env.get("KUBEVO_NATS_TLS_CERT")) != bool(env.get("KUBEVO_NATS_TLS_KEY")):
        raise UserError(
            "a worker's settings: KUBEVO_NATS_TLS_CERT and KUBEVO_NATS_TLS_KEY belong together; "
            "set both or neither"
        )
