"""The Kubernetes API as this service uses it: plain dicts, four kinds of request, and one watch."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException

from kubevo_api.catalogue import ActionRefused, Document, Unavailable

__all__ = ["KubernetesApi", "WatchExpired", "connect", "experiments_path"]

GROUP_VERSION = "kubevo.dev/v1alpha1"
REQUEST_SECONDS = 10.0
# The API server ends a watch after this; bookmarks come about every minute until then.
WATCH_SECONDS = 300
SILENCE_SECONDS = 90.0


class WatchExpired(Exception):
    """The place where a watch should go on is forgotten."""


def experiments_path(namespace: str = "", name: str = "") -> str:
    """Return the path of all Experiments, of a namespace's, or of one."""
    parts = [f"/apis/{GROUP_VERSION}"]
    parts += ["namespaces", quote(namespace, safe="")] if namespace else []
    parts += ["experiments", *([quote(name, safe="")] if name else [])]
    return "/".join(parts)


class KubernetesApi:
    """Requests to one API server; `connect` makes it."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def request(
        self,
        method: str,
        path: str,
        body: Document | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Document:
        """Send one request and return the answer.

        Raises:
            ActionRefused: the API server will not; ``status`` is its answer.
            Unavailable: it does not answer, or asks to come back later.
        """
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                answer = await self._send(method, path, body, content_type, query)
                text: bytes = await answer.read()
        except ApiException as exc:
            raise _refusal(exc.status, exc.body) from exc
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise _silent(exc) from exc
        if answer.status >= 400:
            raise _refusal(answer.status, text)
        found: Document = json.loads(text)
        return found

    async def watch(self, path: str, version: str) -> AsyncIterator[Document]:
        """Yield what changes after ``version``, as the API server's events, until it ends the watch.

        Raises:
            WatchExpired: it does not know that version any more.
            Unavailable: it does not answer, or has fallen silent.
        """
        query = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        try:
            answer = await self._send("GET", path, None, "application/json", query)
        except ApiException as exc:
            raise _refusal(exc.status, exc.body) from exc
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise _silent(exc) from exc
        stream = answer.response
        try:
            if answer.status == 410:
                raise WatchExpired
            if answer.status >= 400:
                raise _refusal(answer.status, await stream.read())
            while line := await _in_time(stream.content.readline()):
                event: Document = json.loads(line)
                if event["type"] == "ERROR":
                    if event["object"].get("code") == 410:
                        raise WatchExpired
                    raise Unavailable(str(event["object"].get("message", "the watch failed")))
                yield event
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
            raise _silent(exc) from exc
        finally:
            stream.close()

    async def _send(
        self,
        method: str,
        path: str,
        body: Document | None,
        content_type: str,
        query: Mapping[str, str] | None,
    ) -> Any:
        url = path + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", "Content-Type": content_type}
        prepared = await self._client.param_serialize(
            method, url, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        return await self._client.call_api(*prepared)


async def connect(kubeconfig: str | None) -> KubernetesApi:
    """Connect as the pod's service account, or as a kubeconfig file says; close with `aclose`."""
    configuration = Configuration()
    if kubeconfig is None:
        config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
    else:
        await config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=kubeconfig, client_configuration=configuration
        )
    return KubernetesApi(ApiClient(configuration))


async def _in_time(reading: Awaitable[bytes]) -> bytes:
    async with asyncio.timeout(SILENCE_SECONDS):
        return await reading


def _silent(exc: BaseException) -> Unavailable:
    return Unavailable(f"the Kubernetes API did not answer: {str(exc) or type(exc).__name__}")


def _refusal(status: int | None, body: Any) -> ActionRefused | Unavailable:
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    with suppress(ValueError, AttributeError):
        text = json.loads(text).get("message", text)
    if status is None or status == 429 or status >= 500:
        return Unavailable(f"the Kubernetes API answered {status}: {text[:500]}")
    return ActionRefused(text[:1000], status)
