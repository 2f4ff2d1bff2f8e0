"""Event streams."""

from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import StreamingResponse

from kubevo_api.catalogue import Key
from kubevo_api.context import Asking, Found, Here
from kubevo_api.routes.experiments import visible_namespaces
from kubevo_api.streams import all_events

__all__ = ["router"]

router = APIRouter(tags=["events"])


class EventStream(StreamingResponse):
    """Encoded events; FastAPI's own class logs a crash for a client that goes away in between."""

    media_type = "text/event-stream"


LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", max_length=400, description="Id of the last event you have."),
]


async def _slot(here: Here, caller: Asking) -> AsyncIterator[None]:
    with here.streams.one(caller.fingerprint):
        yield


async def _visible(
    here: Here,
    caller: Asking,
    namespace: Annotated[str, Query(max_length=63, description="Only this namespace.")] = "",
) -> Callable[[Key], bool]:
    """Return which Experiments the caller sees: as the list at the stream's start."""
    if not namespace and await here.access.allows(caller, "list", "", ""):
        return lambda _: True
    namespaces = await visible_namespaces(here, caller, namespace)
    return lambda key: key[0] in namespaces


# Held until the stream has ended; too many are refused before it begins.
SLOT = [Depends(_slot)]
Visible = Annotated[Callable[[Key], bool], Depends(_visible)]


@router.get("/events", response_class=EventStream, dependencies=SLOT)
async def all_changes(
    here: Here, visible: Visible, last_id: LastEventId = None
) -> StreamingResponse:
    """Tell whenever an Experiment changes: summary, deleted, or reset (load the list again)."""
    return _stream(all_events(here.catalogue, visible, here.summarise, last_id))


@router.get(
    "/namespaces/{ns}/experiments/{name}/events",
    response_class=EventStream,
    dependencies=SLOT,
)
async def changes(here: Here, entry: Found, last_id: LastEventId = None) -> StreamingResponse:
    """Tell each finished generation and each change of the status."""
    return _stream(here.feeds.events(entry, last_id))


def _stream(events: AsyncIterator[bytes]) -> StreamingResponse:
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return EventStream(events, headers=headers)
