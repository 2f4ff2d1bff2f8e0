"""``python -m kubevo_operator.uninstall``: leave nothing stuck before the operator is uninstalled.

The chart's pre-delete hook. Experiments are suspended while the operator can still do that tidily;
then it is ended, because it would put its finalizer back; then the finalizers go, which nobody would
take off any more, and what the operator has made for itself. Runs again from the start when it dies.

Exit codes: 0 done, 1 the API server refuses or does not answer, 2 for settings that are wrong.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from kubevo_core.errors import KubevoError, UserError
from kubevo_operator.cluster import EXPERIMENT, ApiRefused, Cluster, Kind, connect
from kubevo_operator.handlers import FINALIZER
from kubevo_operator.status import is_over
from kubevo_runtime.logs import configure

__all__ = ["Plan", "main", "uninstall"]

Document = dict[str, Any]
FAILED, WRONG = 1, 2
DEPLOYMENT: Kind = ("apps/v1", "Deployment")
POD: Kind = ("v1", "Pod")
KINDS: dict[str, Kind] = {
    "ConfigMap": ("v1", "ConfigMap"),
    "Lease": ("coordination.k8s.io/v1", "Lease"),
    "Pod": POD,
    "Secret": ("v1", "Secret"),
}
LOOK_SECONDS = 1.0
# A pod has the 30 s of its grace period, and its node some time to say that it is gone.
GONE_SECONDS = 90.0

log = structlog.get_logger()


@dataclass(frozen=True)
class Plan:
    """What there is to undo; the hook's environment says it."""

    namespace: str
    """Where the operator is."""

    namespaces: tuple[str, ...]
    """Where its Experiments are; none: in all."""

    operator: str
    """Name of its Deployment."""

    operator_pods: str
    """Selector of its pods."""

    deleted: tuple[tuple[Kind, str], ...]
    """What it has made for itself, as kinds and names."""

    patience_seconds: float
    """How long Experiments may take to be suspended, or to go."""

    @staticmethod
    def from_environment(environ: Mapping[str, str]) -> "Plan":
        """Read it.

        Raises:
            UserError: something is missing or wrong.
        """
        needed = ("KUBEVO_NAMESPACE", "KUBEVO_OPERATOR", "KUBEVO_OPERATOR_PODS")
        missing = [name for name in needed if not environ.get(name)]
        if missing:
            raise UserError(f"{', '.join(missing)}: expected in the environment, as the chart does")
        deleted = []
        for text in _names(environ.get("KUBEVO_DELETED", "")):
            kind, _, name = text.partition("/")
            if kind not in KINDS or not name:
                raise UserError(
                    f"KUBEVO_DELETED: expected KIND/NAME with a kind of {', '.join(KINDS)}, "
                    f"got {text!r}"
                )
            deleted.append((KINDS[kind], name))
        patience = environ.get("KUBEVO_PATIENCE_SECONDS", "60")
        if not patience.isdecimal():
            raise UserError(f"KUBEVO_PATIENCE_SECONDS: expected whole seconds, got {patience!r}")
        return Plan(
            namespace=environ["KUBEVO_NAMESPACE"],
            namespaces=tuple(_names(environ.get("KUBEVO_NAMESPACES", ""))),
            operator=environ["KUBEVO_OPERATOR"],
            operator_pods=environ["KUBEVO_OPERATOR_PODS"],
            deleted=tuple(deleted),
            patience_seconds=float(patience),
        )


async def uninstall(cluster: Cluster, plan: Plan) -> None:
    """Do it; what is done already is passed over."""
    experiments = await _experiments(cluster, plan)
    log.info("suspending", experiments=len(experiments))
    for item in experiments:
        if _is_searching(item):
            await _change(cluster, item, {"spec": {"suspend": True}})

    async def are_quiet() -> bool:
        return all(_is_quiet(item) for item in await _experiments(cluster, plan))

    if not await _wait(plan.patience_seconds, are_quiet):
        log.warning("not_all_are_suspended", waited_seconds=plan.patience_seconds)
    try:
        change = {"spec": {"replicas": 0}}
        await cluster.merge(DEPLOYMENT, plan.namespace, plan.operator, change, "scale")
    except ApiRefused as exc:
        if exc.status != 404:
            raise

    async def is_gone() -> bool:
        return not await cluster.selected(POD, plan.namespace, plan.operator_pods)

    if not await _wait(GONE_SECONDS, is_gone):
        # A node that does not answer: its operator lost the Lease long ago, and writes no more.
        log.warning("operator_is_still_there", waited_seconds=GONE_SECONDS)
    for item in await _experiments(cluster, plan):
        await _release(cluster, item)
    for kind, name in plan.deleted:
        if await cluster.delete(kind, plan.namespace, name):
            log.info("deleted", kind=kind[1], name=name)


async def _experiments(cluster: Cluster, plan: Plan) -> list[Document]:
    try:
        return await cluster.experiments(plan.namespaces)
    except ApiRefused as exc:
        if exc.status == 404:  # the definition is gone, and every Experiment with it
            return []
        raise


def _is_searching(item: Document) -> bool:
    return not (
        item["metadata"].get("deletionTimestamp")
        or item["spec"].get("suspend")
        or is_over(item.get("status") or {})
    )


def _is_quiet(item: Document) -> bool:
    """Whether the operator has nothing to do about it any more."""
    if item["metadata"].get("deletionTimestamp"):
        return FINALIZER not in item["metadata"].get("finalizers", [])
    status = item.get("status") or {}
    conditions = {row["type"]: row["status"] for row in status.get("conditions") or []}
    return is_over(status) or conditions.get("Suspended") == "True"


async def _release(cluster: Cluster, item: Document) -> None:
    finalizers = item["metadata"].get("finalizers", [])
    if FINALIZER in finalizers:
        kept = [each for each in finalizers if each != FINALIZER]
        await _change(cluster, item, {"metadata": {"finalizers": kept}})


async def _change(cluster: Cluster, item: Document, change: Document) -> None:
    namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
    try:
        await cluster.merge(EXPERIMENT, namespace, name, change)
    except ApiRefused as exc:
        if exc.status != 404:
            raise
    log.info("changed", namespace=namespace, name=name, change=change)


async def _wait(seconds: float, is_done: Callable[[], Awaitable[bool]]) -> bool:
    end = time.monotonic() + seconds
    while not await is_done():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(LOOK_SECONDS)
    return True


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


async def _run(plan: Plan) -> None:
    cluster = await connect(os.environ.get("KUBECONFIG") or None)
    try:
        await uninstall(cluster, plan)
    finally:
        await cluster.aclose()


def main() -> int:
    """Run the program and return its exit code."""
    configure("json")
    try:
        asyncio.run(_run(Plan.from_environment(os.environ)))
    except UserError as exc:
        sys.stderr.write(f"kubevo uninstall: {exc}\n")
        return WRONG
    except KubevoError as exc:
        sys.stderr.write(f"kubevo uninstall: {exc}\n")
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
