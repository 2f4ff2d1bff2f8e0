"""What the evaluators of every Experiment share: the operator's settings as the manifests use them.

Pure. Made once by the program's entry point; it holds a token at most, and never shows it.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from kubevo_operator.settings import OperatorSettings

__all__ = ["Broker", "Defaults"]

NATS_PORT = 4222
NAMESPACE_LABEL = "kubernetes.io/metadata.name"
ALL_ACCOUNTS = "$G"  # the one account of a broker that has no accounts


@dataclass(frozen=True)
class Broker:
    """Where the broker's pods are, for the NetworkPolicy.

    ``labels`` empty: nothing is known of them, and only the ``ports`` are opened. ``namespace``
    empty: pods with these labels in any namespace.
    """

    ports: tuple[int, ...] = (NATS_PORT,)
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""


@dataclass(frozen=True)
class Defaults:
    """What is the same for the evaluators of all Experiments."""

    image: str
    nats_url: str
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    nats_token: str | None = field(default=None, repr=False)
    certificate_authority: str = field(default="", repr=False)
    """PEM text of who signed the broker's certificate; a copy comes with every Experiment."""
    ack_wait_seconds: float = 20.0
    network_policies: bool = True
    broker: Broker = field(default_factory=Broker)
    nats_monitoring: str = ""
    """host:port of the broker's monitoring, for KEDA."""
    nats_account: str = ALL_ACCOUNTS
    """The account's public key, for KEDA; $G where the broker has no accounts."""

    @staticmethod
    def of(
        settings: OperatorSettings, account: str | None = None, certificate_authority: str = ""
    ) -> "Defaults":
        """Return what the operator's settings say.

        ``account`` is the public key of the account in a broker whose users the operator makes;
        ``certificate_authority`` is the text of the file ``settings.nats_tls_ca``.
        """
        url = settings.evaluator_nats_url or settings.nats_url
        return Defaults(
            image=settings.evaluator_image,
            nats_url=url,
            image_pull_policy=settings.evaluator_pull_policy,
            image_pull_secrets=settings.evaluator_pull_secrets,
            nats_token=settings.nats_token,
            certificate_authority=certificate_authority,
            ack_wait_seconds=settings.ack_wait_seconds,
            network_policies=settings.network_policies,
            broker=_broker(url, settings),
            nats_monitoring=settings.nats_monitoring,
            nats_account=account or ALL_ACCOUNTS,
        )


def _broker(url: str, settings: OperatorSettings) -> Broker:
    servers = [urlsplit(part if "//" in part else f"nats://{part}") for part in url.split(",")]
    ports = tuple(sorted({server.port or NATS_PORT for server in servers}))
    host = servers[0].hostname or ""
    key, _, value = settings.nats_pods.partition("=")
    # The labels are those of a broker that is installed with the operator.
    is_own = settings.rules_broker and settings.nats_account_seed is None
    if not (is_own and value) or not _is_service(host):
        return Broker(ports)
    parts = host.split(".")
    namespace = parts[1] if len(parts) > 1 else settings.namespace
    return Broker(ports, {key.strip(): value.strip()}, namespace)


def _is_service(host: str) -> bool:
    """Whether a host's name is a Service of the cluster: name, name.namespace or …svc…."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        parts = host.split(".")
        return len(parts) <= 2 or parts[2] == "svc"
    return False
