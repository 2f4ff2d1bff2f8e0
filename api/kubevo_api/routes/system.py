"""Health, metrics, version, and the browser's session."""

from importlib.metadata import version as version_of

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from kubevo_api.catalogue import Unavailable
from kubevo_api.context import ANYBODY, Here, Token
from kubevo_api.models import Version
from kubevo_api.sessions import SESSION_SECONDS, cookie_name

__all__ = ["open_router", "router"]

router = APIRouter(tags=["system"])
open_router = APIRouter(tags=["system"])


@router.get("/version", dependencies=[ANYBODY])
async def version(here: Here) -> Version:
    """Tell which service this is."""
    return Version(version=version_of("kubevo"), mode=here.catalogue.mode)


@router.post("/session", status_code=204, dependencies=[ANYBODY])
async def session(request: Request, response: Response, here: Here, token: Token) -> None:
    """Begin a session: its cookie stands for the token in a browser's streams and downloads."""
    response.set_cookie(
        cookie_name(request.url.port),
        here.sessions.begin(token),
        max_age=SESSION_SECONDS,
        path="/api",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


@open_router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """Tell that the process answers."""
    return "ok"


@open_router.get(
    "/readyz", response_class=PlainTextResponse, responses={503: {"description": "Not yet."}}
)
async def readyz(here: Here) -> str:
    """Tell that Experiments can be shown."""
    if not here.catalogue.is_ready:
        raise Unavailable("the Experiments have not been listed yet, or the watch has ended")
    return "ok"


@open_router.get("/metrics", response_class=PlainTextResponse)
async def metrics(here: Here) -> Response:
    """Return the service's own metrics; none of them names an Experiment."""
    return Response(here.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
