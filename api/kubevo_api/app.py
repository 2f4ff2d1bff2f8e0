"""The application: routes, middlewares and error handlers put together around one `Context`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, RedirectResponse, Response
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.staticfiles import StaticFiles

from kubevo_api.context import Context
from kubevo_api.models import Problem
from kubevo_api.routes import archives, comparison, events, experiments, models, results, system
from kubevo_api.web import ConditionalGet, HeadAsGet, Observed, SecurityHeaders, problem_handlers

__all__ = ["create_app"]

ROOT = "/api/v1"
DESCRIPTION = (
    "What kubevo's Experiments are doing and what they have found. Errors are problem details "
    "(RFC 9457); lists are paged by `limit` and `continue`; every GET has an ETag."
)
# What any route of the API may answer instead.
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }
    for status, text in {
        400: "The request is not HTTP as it should be.",
        401: "No token, or one that is not valid here.",
        403: "Your rights do not reach that far.",
        404: "There is no such thing, or not yet.",
        405: "That cannot be done here.",
        409: "It cannot be done now.",
        410: "The genomes were pruned.",
        413: "The body is too large.",
        422: "An argument is not what it should be.",
        429: "You ask for too much at once.",
        503: "Come back later.",
    }.items()
}


def create_app(context: Context) -> FastAPI:
    """Return the application; its lifespan opens and closes what is in ``context``."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        context.exports.open()
        try:
            async with context.catalogue:
                yield
        finally:
            context.exports.close()

    app = FastAPI(
        title="kubevo",
        version=version("kubevo"),
        description=DESCRIPTION,
        lifespan=lifespan,
        openapi_url=f"{ROOT}/openapi.json",
        docs_url=None,
        redoc_url=None,
        exception_handlers=problem_handlers,
    )
    app.state.context = context
    app.openapi = partial(_document, app)  # type: ignore[method-assign]
    api = APIRouter(prefix=ROOT, responses=PROBLEMS)
    for module in (experiments, results, models, archives, events, comparison, system):
        api.include_router(module.router)
    app.include_router(api)
    app.include_router(system.open_router)
    _serve_page(app)
    # The last one added is the outermost.
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=context.settings.api_body_bytes)
    app.add_middleware(ConditionalGet)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Observed, metrics=context.metrics)
    app.add_middleware(HeadAsGet)
    return app


def _document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document: FastAPI's, with the errors that all routes have in common."""
    if app.openapi_schema is None:
        found = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        found["components"]["schemas"]["Problem"] = Problem.model_json_schema(mode="serialization")
        app.openapi_schema = found
    return app.openapi_schema


def _serve_page(app: FastAPI) -> None:
    page = Path(str(resources.files("kubevo_api"))) / "page"
    plotly = Path(str(resources.files("plotly"))) / "package_data/plotly.min.js"

    @app.get("/static/plotly.min.js", include_in_schema=False)
    async def charts() -> Response:
        headers = {"cache-control": "public, max-age=86400"}
        return FileResponse(plotly, media_type="text/javascript", headers=headers)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return FileResponse(page / "index.html", headers={"cache-control": "no-cache"})

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return RedirectResponse("/static/favicon.svg", 308)

    app.mount("/static", _Page(directory=page))


class _Page(StaticFiles):
    """The page's files; asked about each time, so that no browser mixes two versions of them."""

    def file_response(self, *arguments: Any, **named: Any) -> Response:
        """Return one file."""
        found = super().file_response(*arguments, **named)
        found.headers["cache-control"] = "no-cache"
        return found
