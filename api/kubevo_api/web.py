"""What every request passes: conditional answers, security headers, time limits, problem details."""

import hashlib
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kubevo_api.access import Forbidden, Unauthenticated
from kubevo_api.catalogue import ActionRefused, Unavailable
from kubevo_api.metrics import Metrics
from kubevo_api.models import Problem
from kubevo_api.runs import GenomesPruned, NotThere
from kubevo_api.streams import TooManyStreams
from kubevo_core.errors import KubevoError, RunNotFound, SpecError, UserError

__all__ = [
    "ConditionalGet",
    "Download",
    "HeadAsGet",
    "Observed",
    "SecurityHeaders",
    "problem",
    "problem_handlers",
]

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "connect-src 'self'; media-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
SECURITY = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
RETRY_SECONDS = 5
# What each error of ours is to HTTP; the first that fits.
STATUS: tuple[tuple[type[KubevoError], int], ...] = (
    (Unauthenticated, 401),
    (Forbidden, 403),
    (GenomesPruned, 410),
    (NotThere, 404),
    (RunNotFound, 404),
    (SpecError, 422),
    (UserError, 422),
    (Unavailable, 503),
)

log = structlog.get_logger()


# --- problem details -------------------------------------------------------------------------------


def problem(
    request: Request,
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    errors: list[dict[str, str]] | None = None,
) -> JSONResponse:
    """Return an error as RFC 9457 wants it."""
    body = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=request.url.path,
        errors=errors,
    )
    return JSONResponse(
        body.model_dump(exclude_none=True),
        status,
        headers=dict(headers or {}),
        media_type="application/problem+json",
    )


async def _ours(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, KubevoError)
    status = exc.status if isinstance(exc, (ActionRefused, TooManyStreams)) else None
    if status is None:
        status = next((code for kind, code in STATUS if isinstance(exc, kind)), 500)
    if status == 500:
        log.error("request_failed", path=request.url.path, error=str(exc))
    headers = {}
    if status == 401:
        headers["www-authenticate"] = 'Bearer realm="kubevo"'
    if status in (429, 503):
        headers["retry-after"] = str(RETRY_SECONDS)
    return problem(request, status, str(exc), headers)


async def _http(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)
    return problem(request, exc.status_code, str(exc.detail), exc.headers)


async def _invalid(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)
    errors = [
        {"field": ".".join(str(part) for part in error["loc"]), "message": str(error["msg"])}
        for error in exc.errors()
    ]
    detail = "; ".join(f"{error['field']}: {error['message']}" for error in errors)
    return problem(request, 422, detail, errors=errors)


async def _unexpected(request: Request, exc: Exception) -> JSONResponse:
    log.error("request_crashed", path=request.url.path, exc_info=exc)
    return problem(request, 500, "an error of the service; its log has the details")


problem_handlers: dict[type[Exception] | int, Any] = {
    KubevoError: _ours,
    HTTPException: _http,
    RequestValidationError: _invalid,
    Exception: _unexpected,
}


class Download(FileResponse):
    """A file, whole or in parts; a range that it does not have is refused as everything else is."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        refused: Message | None = None

        async def told(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                refused = message
            elif refused is None:
                await send(message)

        await super().__call__(scope, receive, told)
        if refused is not None:
            size = Headers(raw=refused["headers"]).get("content-range", "").rpartition("/")[2]
            headers = {"accept-ranges": "bytes"}
            if size:
                headers["content-range"] = f"bytes */{size}"
            wanted = Headers(scope=scope).get("range", "")
            detail = f"Range: expected bytes=FIRST-LAST within {size or 'its'} bytes, got {wanted}"
            answer = problem(Request(scope), refused["status"], detail, headers)
            await answer(scope, receive, send)


# --- middlewares -----------------------------------------------------------------------------------


class ConditionalGet:
    """Gives whole JSON answers an ETag, and answers 304 to whoever has that one already."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        known = Headers(scope=scope).get("if-none-match", "")
        start: Message | None = None

        async def conditional(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:
                begun, start = start, None
                is_whole = message["type"] == "http.response.body" and not message.get("more_body")
                if is_whole and _not_modified(begun, message["body"], known):
                    message = {**message, "body": b""}
                await send(begun)
            await send(message)

        await self._app(scope, receive, conditional)


def _not_modified(start: Message, body: bytes, known: str) -> bool:
    headers = MutableHeaders(raw=start["headers"])
    if start["status"] != 200 or "no-store" in headers.get("cache-control", ""):
        return False
    if "etag" not in headers:
        if not body:
            return False
        headers["etag"] = f'W/"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
    headers.setdefault("cache-control", "no-cache, private")
    start["headers"] = headers.raw
    if not etag_matches(headers["etag"], known):
        return False
    start["status"] = 304
    del headers["content-length"]
    start["headers"] = headers.raw
    return True


def etag_matches(etag: str, known: str) -> bool:
    """Tell whether an If-None-Match names ``etag``; strong and weak are alike there."""
    wanted = etag.removeprefix("W/")
    names = [name.strip().removeprefix("W/") for name in known.split(",")]
    return wanted in names or "*" in names


class HeadAsGet:
    """Answers HEAD as GET without its body; an event stream, which has no end, is not asked."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if (
            scope["type"] != "http"
            or scope["method"] != "HEAD"
            or scope["path"].endswith("/events")
        ):
            await self._app(scope, receive, send)
            return

        async def bare(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        scope["method"] = "GET"
        await self._app(scope, receive, bare)


class SecurityHeaders:
    """Adds the headers that keep a browser from being used against its owner."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message["headers"]))
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
                message = {**message, "headers": headers.raw}
            await send(message)

        await self._app(scope, receive, secured)


class Observed:
    """Counts and times requests by their route's template; a path would be a label too many."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = 500, time.perf_counter()

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.request(scope["method"], route, status, time.perf_counter() - started)
