"""What every route needs, and the arguments that routes share: who asks, for what, which repeat."""

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Query, Request, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer

from kubevo_api.access import Access, Caller, Forbidden, Unauthenticated, Verb
from kubevo_api.catalogue import Catalogue, Entry
from kubevo_api.downloads import Exports
from kubevo_api.feeds import Feeds
from kubevo_api.metrics import Metrics
from kubevo_api.models import Summary
from kubevo_api.runs import Library, NotThere, RepeatReader
from kubevo_api.sessions import Sessions, cookie_name
from kubevo_api.settings import ApiSettings
from kubevo_api.streams import StreamLimits
from kubevo_api.summaries import summary

__all__ = [
    "ANYBODY",
    "Asking",
    "Chosen",
    "Context",
    "Found",
    "GenerationNumber",
    "Here",
    "PageToken",
    "Repeat",
    "SlotNumber",
    "Token",
    "context_of",
]


@dataclass(frozen=True)
class Context:
    """The parts of one service."""

    settings: ApiSettings
    catalogue: Catalogue
    access: Access
    library: Library
    exports: Exports
    streams: StreamLimits
    sessions: Sessions
    feeds: Feeds
    metrics: Metrics

    @staticmethod
    def summarise(entry: Entry) -> Summary:
        """Return an Experiment as a list shows it."""
        return summary(entry, has_data=entry.directory.is_dir())

    async def require(self, caller: Caller, verb: Verb, namespace: str, name: str = "") -> None:
        """Refuse a caller whose rights do not reach that far.

        Raises:
            Forbidden: they do not.
            Unavailable: nobody can tell now.
        """
        if not await self.access.allows(caller, verb, namespace, name):
            what = f"experiments.kubevo.dev {name!r}" if name else "experiments.kubevo.dev"
            where = f"in the namespace {namespace!r}" if namespace else "in all namespaces"
            raise Forbidden(
                f"{caller.name} may not {verb} {what} {where}: ask for a Role with that verb"
            )


def context_of(request: Request) -> Context:
    """Return the service that a request came to."""
    found: Context = request.app.state.context
    return found


Here = Annotated[Context, Depends(context_of)]
_bearer = HTTPBearer(auto_error=False, description="A token for this service's audience.")
# For the document alone: the real name ends with the port, and is read below.
_cookie = APIKeyCookie(
    name=cookie_name("PORT"),
    auto_error=False,
    description="Stands for the token of POST /session; for GET only, where a browser cannot send "
    "headers.",
)


async def _token(
    request: Request,
    here: Here,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    _: Annotated[str | None, Security(_cookie)],
) -> str:
    token = bearer.credentials if bearer is not None else None
    # Another site can make a browser send a cookie, so a cookie changes nothing.
    if token is None and request.method == "GET":
        token = here.sessions.token(request.cookies.get(cookie_name(request.url.port), ""))
    if not token:
        raise Unauthenticated("expected a token: Authorization: Bearer TOKEN")
    return token


Token = Annotated[str, Depends(_token)]


async def _caller(here: Here, token: Token) -> Caller:
    return await here.access.identify(token)


Asking = Annotated[Caller, Depends(_caller)]
# For a route that answers everybody who has a token, the same.
ANYBODY = Depends(_caller)
Namespace = Annotated[
    str, Path(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", description="Namespace.")
]
Name = Annotated[
    str,
    Path(pattern=r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$", description="Name of the Experiment."),
]
GenerationNumber = Annotated[int, Path(alias="g", ge=0, le=10_000_000, description="Generation.")]
SlotNumber = Annotated[int, Path(alias="slot", ge=0, le=10_000_000, description="Slot.")]
PageToken = Annotated[
    str | None,
    Query(alias="continue", max_length=200, description="What the page before gave."),
]
Repeat = Annotated[
    int | None,
    Query(ge=0, le=31, description="Which repeat; default: the one with the best result."),
]


async def _found(here: Here, caller: Asking, ns: Namespace, name: Name) -> Entry:
    await here.require(caller, "get", ns, name)
    entry = here.catalogue.index.get((ns, name))
    if entry is None:
        raise NotThere(f"there is no Experiment {name!r} in the namespace {ns!r}")
    return entry


Found = Annotated[Entry, Depends(_found)]


async def _chosen(here: Here, entry: Found, repeat: Repeat = None) -> RepeatReader:
    def choose() -> RepeatReader:
        repeats = int(entry.document["spec"].get("repeats", 1))
        if not entry.directory.is_dir():
            raise NotThere(f"{entry.key[1]} has no data yet: its first generation is not finished")
        number = here.library.best_repeat(entry.directory, repeats) if repeat is None else repeat
        if number >= repeats:
            raise NotThere(f"{entry.key[1]} has repeats 0 to {repeats - 1}, not {number}")
        return here.library.repeat(entry.directory, number)

    return await asyncio.to_thread(choose)


Chosen = Annotated[RepeatReader, Depends(_chosen)]
