"""What kopf calls: one daemon an Experiment, indexes of its pods, and the wake-ups.

There are no create, update or field handlers: they would copy the spec into annotations. Everything
is level-triggered, so a missed event costs a resync period and never a lost change.
"""

import asyncio
from typing import Any

import kopf

from kubevo_operator import evaluators
from kubevo_operator.host import Host
from kubevo_operator.manifests import EXPERIMENT_LABEL, Owner
from kubevo_operator.services import Services, Watched

__all__ = ["EXITING_SECONDS", "operate"]

FINALIZER = "kubevo.dev/cleanup"
GROUP, VERSION, PLURAL = "kubevo.dev", "v1alpha1", "experiments"
DEPLOYMENTS, PODS = "evaluator_deployments", "evaluator_pods"  # the indexes' names
OURS = {EXPERIMENT_LABEL: kopf.PRESENT}
# A host stops at once when it is told; these only bound what hangs.
CANCEL_AFTER_SECONDS = 7.0
ABANDON_AFTER_SECONDS = 1.0
EXITING_SECONDS = 9.0

Key = tuple[str, str]


async def operate(services: Services, stop: asyncio.Event) -> None:
    """Look after every Experiment in the namespaces of the settings until ``stop``."""
    namespaces = services.settings.namespaces
    ready = asyncio.Event()

    async def note_ready() -> None:
        await ready.wait()
        services.health.is_ready = True

    waiting = asyncio.create_task(note_ready())
    try:
        await kopf.operator(
            registry=_registry(services),
            clusterwide=not namespaces,
            namespaces=list(namespaces),
            standalone=True,
            stop_flag=stop,
            ready_flag=ready,
        )
    finally:
        waiting.cancel()
        services.health.is_ready = False


class _Wakers:
    """Wakes the host of an Experiment; a host that is not there needs no waking."""

    def __init__(self) -> None:
        self._events: dict[Key, asyncio.Event] = {}

    def add(self, key: Key, event: asyncio.Event) -> None:
        self._events[key] = event

    def drop(self, key: Key, event: asyncio.Event) -> None:
        if self._events.get(key) is event:
            del self._events[key]

    def has(self, key: Key) -> bool:
        return key in self._events

    def wake(self, key: Key) -> None:
        if key in self._events:
            self._events[key].set()


def _registry(services: Services) -> kopf.OperatorRegistry:
    registry, wakers = kopf.OperatorRegistry(), _Wakers()

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        # Without the client library, whose import costs more memory than all the rest.
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.startup(registry=registry)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings)

    _watch_children(registry, wakers)
    _watch_experiments(registry, wakers, services)
    return registry


def _watch_children(registry: kopf.OperatorRegistry, wakers: _Wakers) -> None:
    @kopf.index("apps", "v1", "deployments", id=DEPLOYMENTS, labels=OURS, registry=registry)
    async def evaluator_deployments(body: kopf.Body, meta: kopf.Meta, **_: Any) -> Any:
        return {_key(meta): evaluators.brief_deployment(dict(body))}

    @kopf.index("", "v1", "pods", id=PODS, labels=OURS, registry=registry)
    async def evaluator_pods(body: kopf.Body, meta: kopf.Meta, **_: Any) -> Any:
        return {_key(meta): evaluators.brief(dict(body))}

    @kopf.on.event("apps", "v1", "deployments", labels=OURS, registry=registry)
    async def deployment_changed(meta: kopf.Meta, **_: Any) -> None:
        wakers.wake(_key(meta))

    @kopf.on.event("", "v1", "pods", labels=OURS, registry=registry)
    async def pod_changed(meta: kopf.Meta, **_: Any) -> None:
        wakers.wake(_key(meta))


def _watch_experiments(
    registry: kopf.OperatorRegistry, wakers: _Wakers, services: Services
) -> None:
    # Deleted ones that were cleaned up after, as long as the watch still shows them.
    cleaned: set[str] = set()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def experiment_changed(
        type: str | None,  # noqa: A002 - kopf's name
        body: kopf.Body,
        meta: kopf.Meta,
        namespace: str | None,
        name: str,
        uid: str,
        **_: Any,
    ) -> None:
        key = (str(namespace), name)
        services.health.seen(uid, str(meta.get("resourceVersion")))
        wakers.wake(key)
        is_gone = type == "DELETED"
        is_ending = is_gone or bool(meta.get("deletionTimestamp"))
        if is_ending and not wakers.has(key) and uid not in cleaned:
            # Deleted while no operator ran, or while its life was between two attempts: kopf starts
            # no daemon for it, and takes the finalizer off.
            cleaned.add(uid)
            await Host(services, Owner(*key, uid), _nobody_watches(dict(body))).clean_up()
        if is_gone:
            services.health.gone(uid)
            cleaned.discard(uid)

    @kopf.daemon(
        GROUP,
        VERSION,
        PLURAL,
        id="experiment",
        cancellation_backoff=CANCEL_AFTER_SECONDS,
        cancellation_timeout=ABANDON_AFTER_SECONDS,
        cancellation_polling=0.5,
        registry=registry,
    )
    async def experiment(
        body: kopf.Body,
        stopped: kopf.DaemonStopped,
        namespace: str | None,
        name: str,
        uid: str,
        **indexes: Any,
    ) -> None:
        deployments: kopf.Index[Key, Any] = indexes[DEPLOYMENTS]
        pods: kopf.Index[Key, Any] = indexes[PODS]
        changed, key = asyncio.Event(), (str(namespace), name)

        def emit(kind: str, reason: str, message: str) -> None:
            kopf.event(body, type=kind, reason=reason, message=message)

        watched = Watched(
            body=lambda: dict(body),
            deployment=lambda: next(iter(deployments.get(key, [])), None),
            pods=lambda: list(pods.get(key, [])),
            changed=changed,
            stopped=stopped,
            emit=emit,
        )
        wakers.add(key, changed)
        services.own_metrics.experiments.inc()
        try:
            await Host(services, Owner(*key, uid), watched).run()
        finally:
            services.own_metrics.experiments.dec()
            wakers.drop(key, changed)
            if watched.is_deleting:
                cleaned.add(uid)


def _nobody_watches(body: dict[str, Any]) -> Watched:
    """Return what is known of an Experiment that has no daemon: its last state."""
    return Watched(
        body=lambda: body,
        deployment=lambda: None,
        pods=list,
        changed=asyncio.Event(),
        stopped=None,
        emit=lambda _kind, _reason, _message: None,
    )


def _key(meta: kopf.Meta) -> Key:
    return str(meta.get("namespace")), str(meta.labels[EXPERIMENT_LABEL])


def _configure(settings: kopf.OperatorSettings) -> None:
    settings.persistence.finalizer = FINALIZER
    settings.posting.enabled = True
    settings.posting.loggers = False
    settings.posting.reporting_component = "kubevo-operator"
    settings.posting.event_name_prefix = "kubevo-"
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = (0.5, 1, 2, 3, 5)
    settings.watching.server_timeout = 600
    settings.watching.reconnect_backoff = 0.5
    settings.queueing.error_delays = (1, 2, 3, 5, 8, 13)
    settings.process.ultimate_exiting_timeout = EXITING_SECONDS
    settings.background.instant_exit_timeout = 0.5
    # No right to list namespaces or definitions is needed: `Cluster.wait_for_experiments` waits.
    settings.scanning.disabled = True
