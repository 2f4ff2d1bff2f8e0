"""The catalogue and the access rules of a cluster: custom resources by list and watch, and reviews.

Whatever happens to the watch, the index keeps what it had and says that it is not current; it is
filled again by a list, so that nothing that happened in between is missed.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import structlog

from kubevo_api.access import Caller, Remembered, Unauthenticated, Verb, fingerprint
from kubevo_api.catalogue import ActionRefused, Document, Entry, Index, Unavailable
from kubevo_api.kubernetes_api import KubernetesApi, WatchExpired, experiments_path
from kubevo_core import names, spec
from kubevo_core.errors import SpecError

__all__ = ["ClusterAccess", "ClusterCatalogue"]

AGAIN_SECONDS = 2.0
MERGE = "application/merge-patch+json"
MANAGER = "kubevo-api"
TOKEN_REVIEW = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
ACCESS_REVIEW = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

log = structlog.get_logger()


class ClusterCatalogue:
    """The Experiments of some namespaces, or of all, and their directories on the volume."""

    mode: Literal["local", "cluster"] = "cluster"

    def __init__(self, api: KubernetesApi, data: Path, namespaces: tuple[str, ...]) -> None:
        self.index = Index()
        self._api = api
        self._data = data
        self._scopes = namespaces or ("",)
        self._current: dict[str, bool] = dict.fromkeys(self._scopes, False)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_ready(self) -> bool:
        """Whether every namespace has been listed and is watched."""
        return all(self._current.values())

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._follow(scope)) for scope in self._scopes]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def patch(self, entry: Entry, spec: Document) -> Entry:
        """Merge ``spec`` into an Experiment's spec, if it is still the same one."""
        namespace, name = entry.key
        _check(entry, spec)
        body = {"metadata": {"uid": entry.uid}, "spec": spec}
        found = await self._api.request(
            "PATCH",
            experiments_path(namespace, name),
            body,
            MERGE,
            {"fieldManager": MANAGER, "fieldValidation": "Strict"},
        )
        self.index.put(self._entry(found))
        return self._entry(found)

    async def _follow(self, scope: str) -> None:
        while True:
            try:
                await self._list_and_watch(scope)
            except WatchExpired:
                continue
            except (Unavailable, ActionRefused) as exc:
                log.warning("experiments_unknown", namespace=scope or "all", error=str(exc))
                self._current[scope] = False
                await asyncio.sleep(AGAIN_SECONDS)
            except Exception:
                # A proxy's answer, a field that is not there: the next list may be as it should.
                log.exception("experiments_not_understood", namespace=scope or "all")
                self._current[scope] = False
                await asyncio.sleep(AGAIN_SECONDS)

    async def _list_and_watch(self, scope: str) -> None:
        path = experiments_path(scope)
        listed = await self._api.request("GET", path)
        entries = [self._entry(item) for item in listed["items"]]
        self.index.replace({entry.key: entry for entry in entries}, within=scope or None)
        self._current[scope] = True
        version = listed["metadata"]["resourceVersion"]
        while True:
            # The API server ends a watch from time to time; the next goes on at the same place.
            async for event in self._api.watch(path, version):
                found = event["object"]
                version = found["metadata"]["resourceVersion"]
                if event["type"] in ("ADDED", "MODIFIED"):
                    self.index.put(self._entry(found))
                elif event["type"] == "DELETED":
                    self.index.remove((found["metadata"]["namespace"], found["metadata"]["name"]))

    def _entry(self, found: Document) -> Entry:
        metadata: Document = dict(found["metadata"])
        metadata.pop("managedFields", None)
        document = {
            "apiVersion": spec.API_VERSION,
            "kind": "Experiment",
            "metadata": metadata,
            "spec": found["spec"],
            "status": found.get("status") or {},
        }
        folder = names.run_folder(metadata["name"], metadata["uid"])
        return Entry(document, self._data / metadata["namespace"] / folder)


def _check(entry: Entry, change: Document) -> None:
    """Refuse what would not be a valid Experiment with the words of `kubevo validate`.

    Raises:
        SpecError: it would not be.
    """
    changed: dict[str, Any] = dict(entry.document["spec"])
    for name, value in change.items():
        old = changed.get(name)
        changed[name] = (
            {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        )
    metadata = {"name": entry.key[1]}
    try:
        spec.parse({**entry.document, "metadata": metadata, "spec": changed}, entry.key[1])
    except SpecError:
        # A newer operator may know more than this service; then the API server decides.
        if _is_valid(entry):
            raise


def _is_valid(entry: Entry) -> bool:
    try:
        spec.parse({**entry.document, "metadata": {"name": entry.key[1]}}, entry.key[1])
    except SpecError:
        return False
    return True


class ClusterAccess:
    """Token and access reviews by the API server, remembered for a while."""

    def __init__(self, api: KubernetesApi, audience: str, clock: Callable[[], float]) -> None:
        self._api = api
        self._audience = audience
        self._callers: Remembered[Caller | None] = Remembered(
            clock, lambda found: found is not None
        )
        self._verdicts: Remembered[bool] = Remembered(clock, bool)

    async def identify(self, token: str) -> Caller:
        """Return whose token this is, if it is one for our audience."""
        mark = fingerprint(token)
        found = await self._callers.get(mark, lambda: self._review(token, mark))
        if found is None:
            raise Unauthenticated(
                "this token is not valid for the audience "
                f"{self._audience!r}: kubectl create token NAME --audience {self._audience}"
            )
        return found

    async def _review(self, token: str, mark: str) -> Caller | None:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        status = (await self._asked(TOKEN_REVIEW, body)).get("status") or {}
        # A server that does not know audiences leaves them out: such a token is for somebody else.
        if not status.get("authenticated") or self._audience not in (status.get("audiences") or ()):
            return None
        user = status.get("user") or {}
        return Caller(str(user.get("username", "")), tuple(user.get("groups") or ()), mark)

    async def allows(self, caller: Caller, verb: Verb, namespace: str, name: str) -> bool:
        """Tell whether the caller's own rights reach that far."""
        key = (caller.fingerprint, verb, namespace, name)
        return await self._verdicts.get(key, lambda: self._ask(caller, verb, namespace, name))

    async def _ask(self, caller: Caller, verb: Verb, namespace: str, name: str) -> bool:
        attributes = {
            "group": "kubevo.dev",
            "resource": "experiments",
            "verb": verb,
            "namespace": namespace,
            "name": name,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": caller.name,
                "groups": list(caller.groups),
                "resourceAttributes": attributes,
            },
        }
        status = (await self._asked(ACCESS_REVIEW, body)).get("status") or {}
        return bool(status.get("allowed")) and not status.get("denied")

    async def _asked(self, path: str, body: Document) -> Document:
        try:
            return await self._api.request("POST", path, body)
        except ActionRefused as exc:
            # Our own rights are missing: nobody is let in, and the log says what to do.
            log.error(
                "review_refused", path=path, error=str(exc), cure="grant system:auth-delegator"
            )
            raise Unavailable("the service may not review tokens: see its log") from exc
