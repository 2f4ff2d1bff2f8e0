"""The broker's keys in the cluster: made once, if there are none, and never changed.

The Secret comes first and the configuration follows from it, so that whoever dies in between, or two
that start at once, end with the same keys. The broker's pod mounts the configuration and waits for it.
"""

import secrets
import time

from kubevo_core.errors import UserError
from kubevo_operator.cluster import Cluster, Conflict, Document
from kubevo_operator.nats_accounts import AccountKeys, BrokerKeys, broker_config
from kubevo_operator.settings import OperatorSettings

__all__ = ["ensure", "keys_of"]

SECRET, CONFIG_MAP = ("v1", "Secret"), ("v1", "ConfigMap")
CONFIG_FILE = "auth.conf"
LABELS = {"app.kubernetes.io/part-of": "kubevo", "app.kubernetes.io/managed-by": "kubevo-operator"}


async def keys_of(cluster: Cluster, settings: OperatorSettings) -> AccountKeys | None:
    """Return what users of the broker are made with; None where they are not made here.

    Raises:
        UserError: what should hold the keys holds something else.
    """
    if settings.nats_account_seed is not None:
        path = settings.nats_account_seed
        try:
            return AccountKeys.of_seed(path.read_text(encoding="ascii"), str(path))
        except (OSError, UnicodeError) as exc:
            raise UserError(f"KUBEVO_NATS_ACCOUNT_SEED: cannot read {path}: {exc}") from exc
    return await ensure(cluster, settings) if settings.rules_broker else None


async def ensure(cluster: Cluster, settings: OperatorSettings) -> BrokerKeys:
    """Return the keys, made now if there are none, and make sure that the broker finds its part.

    Raises:
        UserError: the Secret holds something else.
    """
    made = BrokerKeys.make(secrets.token_bytes, int(time.time()))
    rest = {"type": "Opaque", "data": made.secret_data()}
    found = await _made_once(cluster, SECRET, settings, settings.keys_secret, rest)
    where = f"{settings.namespace}/{settings.keys_secret}"
    keys = BrokerKeys.from_secret_data(found.get("data"), where)
    await _made_once(
        cluster,
        CONFIG_MAP,
        settings,
        settings.broker_config,
        {"data": {CONFIG_FILE: broker_config(keys)}},
    )
    return keys


async def _made_once(
    cluster: Cluster, kind: tuple[str, str], settings: OperatorSettings, name: str, rest: Document
) -> Document:
    while True:
        found = await cluster.get(kind, settings.namespace, name)
        if found is not None:
            return found
        metadata = {"name": name, "namespace": settings.namespace, "labels": LABELS}
        document = {"apiVersion": kind[0], "kind": kind[1], "metadata": metadata, **rest}
        try:
            return await cluster.create(document)
        except Conflict:
            continue
