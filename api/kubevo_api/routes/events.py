"""Event streams."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import StreamingResponse

from kubevo_api.catalogue import Key
from kubevo_api.context import Asking, Found, Here, Token
from kubevo_api.routes.experiments import visible_namespaces
from kubevo_api.streams import all_events, while_allowed

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


# Held until the stream has ended; too many are refused before it begins.
SLOT = [Depends(_slot)]


@router.get("/events", response_class=EventStream, dependencies=SLOT)
async def all_changes(
    here: Here,
    caller: Asking,
    token: Token,
    *,
    namespace: Annotated[str, Query(max_length=63, description="Only this namespace.")] = "",
    last_id: LastEventId = None,
) -> StreamingResponse:
    """Tell whenever an Experiment changes: summary, deleted, or reset (load the list again)."""
    sees_all = not namespace and await here.access.allows(caller, "watch", "", "")
    namespaces = await visible_namespaces(here, caller, namespace, "watch")

    def visible(key: Key) -> bool:
        return sees_all or key[0] in namespaces

    async def is_allowed() -> bool:
        again = await here.access.identify(token)
        if sees_all:
            return await here.access.allows(again, "watch", "", "")
        # With fewer or more namespaces it is another stream: the client comes again at once.
        return await visible_namespaces(here, again, namespace, "watch") == namespaces

    events = all_events(here.catalogue, visible, here.summarise, last_id)
    return _stream(while_allowed(events, is_allowed))


@router.get(
    "/namespaces/{ns}/experiments/{name}/events",
    response_class=EventStream,
    dependencies=SLOT,
)
async def changes(
    here: Here, caller: Asking, token: Token, entry: Found, last_id: LastEventId = None
) -> StreamingResponse:
    """Tell each finished generation and each change of the status."""
    await here.require(caller, "watch", *entry.key)

    async def is_allowed() -> bool:
        again = await here.access.identify(token)
        return await here.access.allows(again, "watch", *entry.key)

    return _stream(while_allowed(here.feeds.events(entry, last_id), is_allowed))


def _stream(events: AsyncIterator[bytes]) -> StreamingResponse:
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return EventStream(events, headers=headers)
