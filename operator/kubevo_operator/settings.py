"""The operator's settings, read once from the environment by the program's entry point."""

import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kubevo_core.errors import UserError

__all__ = ["OperatorSettings"]

PREFIX = "KUBEVO_"
SERVICE_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class OperatorSettings:
    """What the operator must be told; each field is the variable KUBEVO_<FIELD> in capitals."""

    nats_url: str
    """Address of the broker for the operator, such as nats://kubevo-nats:4222."""

    data: Path
    """Root of the runs' directories: the mount of the operator's volume."""

    evaluator_image: str
    """Image of evaluators whose Experiment names none."""

    evaluator_nats_url: str = ""
    """Address of the broker for evaluators; default: the operator's."""

    evaluator_pull_policy: str = "IfNotPresent"
    """Pull policy of the evaluators' image."""

    evaluator_pull_secrets: tuple[str, ...] = ()
    """Names of pull secrets for the evaluators' image, comma-separated."""

    namespace: str = "default"
    """The operator's own namespace: its Lease and its keys are there. Default: the pod's."""

    namespaces: tuple[str, ...] = ()
    """Namespaces whose Experiments are looked after, comma-separated; none: all."""

    keys_secret: str = "kubevo-nats-keys"  # noqa: S105 - a name
    """Secret with the broker's signing keys, made once by the operator; the one to back up."""

    broker_config: str = "kubevo-nats-config"
    """ConfigMap with the public part that nats-server includes, made with the keys."""

    nats_credentials: Path | None = None
    """Credentials file for a broker that the operator does not rule; evaluators get it, too."""

    nats_token: str | None = field(default=None, repr=False)
    """Token for a broker that the operator does not rule; evaluators get it, too."""

    nats_account_seed: Path | None = None
    """Seed of an account of a broker that somebody else configures; users are made with it."""

    nats_tls_ca: Path | None = None
    """Authority that signed the broker's certificate, for tls:// addresses."""

    nats_monitoring: str = ""
    """host:port of the broker's monitoring, which KEDA asks; needed for scaling mode KEDA."""

    nats_pods: str = "app.kubernetes.io/name=kubevo-nats"
    """Label of the broker's pods, the one place that evaluators may connect to."""

    network_policies: bool = True
    """Whether evaluators get a NetworkPolicy."""

    ack_wait_seconds: float = 20.0
    """The broker's lease on a task; a dead evaluator's task comes back after it."""

    lease: str = "kubevo-operator"
    """Name of the Lease that elects the one replica that works."""

    lease_seconds: float = 15.0
    """A replica that has not renewed for so long is replaced."""

    renew_seconds: float = 10.0
    """A leader that could not renew for so long exits."""

    retry_seconds: float = 2.0
    """Pause between two looks at the Lease."""

    identity: str = field(default_factory=socket.gethostname)
    """This replica's name in the Lease; default: the host's name, which is the pod's."""

    http_port: int = 8080
    """Port of /healthz, /readyz and /metrics."""

    http_address: str = "0.0.0.0"  # noqa: S104 - probes and Prometheus come from other pods
    """Address of that port."""

    status_seconds: float = 5.0
    """Least time between two status patches of one Experiment without a condition change."""

    resync_seconds: float = 60.0
    """An Experiment's children are compared and repaired at least so often."""

    log_format: Literal["json", "console"] = "json"
    """json or console."""

    log_level: int = logging.INFO
    """DEBUG, INFO, WARNING or ERROR."""

    @staticmethod
    def from_environment(environ: Mapping[str, str] | None = None) -> "OperatorSettings":
        """Read the settings.

        Raises:
            UserError: one is missing or is not what its field says; each problem has a line.
        """
        env = os.environ if environ is None else environ
        problems: list[str] = []
        values: dict[str, object] = {}
        for name, kind in _KINDS.items():
            text = env.get(PREFIX + name.upper(), "").strip()
            if not text:
                continue
            try:
                values[name] = kind(text)
            except ValueError:
                problems.append(f"{PREFIX}{name.upper()}: expected {_WANTED[kind]}, got {text!r}")
        problems += [
            f"{PREFIX}{name.upper()} is missing: the operator needs it in its environment"
            for name in ("nats_url", "data", "evaluator_image")
            if name not in values
        ]
        if problems:
            raise UserError("\n".join(problems))
        values.setdefault("namespace", _own_namespace())
        settings = OperatorSettings(**values)  # type: ignore[arg-type]
        if not 0 < settings.retry_seconds < settings.renew_seconds < settings.lease_seconds:
            raise UserError(
                "expected 0 < KUBEVO_RETRY_SECONDS < KUBEVO_RENEW_SECONDS < KUBEVO_LEASE_SECONDS, "
                f"got {settings.retry_seconds:g}, {settings.renew_seconds:g}, "
                f"{settings.lease_seconds:g}"
            )
        for name in ("nats_url", "evaluator_nats_url"):
            if "@" in str(getattr(settings, name)):
                raise UserError(
                    f"{PREFIX}{name.upper()}: expected an address without a password, since it is "
                    "shown in every evaluator's pod: put it into KUBEVO_NATS_TOKEN or the file of "
                    "KUBEVO_NATS_CREDENTIALS"
                )
        ways = (settings.nats_token, settings.nats_credentials, settings.nats_account_seed)
        if sum(way is not None for way in ways) > 1:
            raise UserError(
                "set one of KUBEVO_NATS_TOKEN, KUBEVO_NATS_CREDENTIALS and KUBEVO_NATS_ACCOUNT_SEED"
            )
        return settings

    @property
    def rules_broker(self) -> bool:
        """Whether the operator makes the broker's users itself."""
        return self.nats_token is None and self.nats_credentials is None


def _own_namespace() -> str:
    try:
        return SERVICE_ACCOUNT_NAMESPACE.read_text().strip() or "default"
    except OSError:
        return "default"


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError(text)
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise ValueError(text)
    return value


def _format(text: str) -> str:
    if text not in ("json", "console"):
        raise ValueError(text)
    return text


def _level(text: str) -> int:
    try:
        return {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}[text.upper()]
    except KeyError:
        raise ValueError(text) from None


_KINDS: dict[str, Callable[[str], object]] = {
    "nats_url": str,
    "data": Path,
    "evaluator_image": str,
    "evaluator_nats_url": str,
    "evaluator_pull_policy": str,
    "evaluator_pull_secrets": _names,
    "namespace": str,
    "namespaces": _names,
    "keys_secret": str,
    "broker_config": str,
    "nats_credentials": Path,
    "nats_token": str,
    "nats_account_seed": Path,
    "nats_tls_ca": Path,
    "nats_monitoring": str,
    "nats_pods": str,
    "network_policies": _truth,
    "ack_wait_seconds": _seconds,
    "lease": str,
    "lease_seconds": _seconds,
    "renew_seconds": _seconds,
    "retry_seconds": _seconds,
    "identity": str,
    "http_port": _port,
    "http_address": str,
    "status_seconds": _seconds,
    "resync_seconds": _seconds,
    "log_format": _format,
    "log_level": _level,
}
_WANTED: dict[Callable[[str], object], str] = {
    _format: "json or console",
    _level: "DEBUG, INFO, WARNING or ERROR",
    _truth: "true or false",
    _seconds: "a number of seconds above 0, such as 20",
    _port: "a port from 0 to 65535",
}
