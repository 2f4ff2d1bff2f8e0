"""Who may see and do what: a bearer token to an identity, and an identity to a verdict.

Locally one random token may do everything. On a cluster a token is reviewed by the API server for
our audience, and each action by the caller's own rights on ``experiments.kubevo.dev``; answers are
kept for a minute, refusals for ten seconds, by the token's hash. When the API server does not
answer, nobody is let in.
"""

import asyncio
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from kubevo_core.errors import KubevoError

__all__ = ["Access", "Caller", "Forbidden", "LocalAccess", "Remembered", "Unauthenticated", "Verb"]

Verb = Literal["get", "list", "watch", "patch"]
T = TypeVar("T")
POSITIVE_SECONDS = 60.0
NEGATIVE_SECONDS = 10.0
REMEMBERED = 10_000


class Unauthenticated(KubevoError):
    """No token, or one that is not valid here."""


class Forbidden(KubevoError):
    """The caller's rights do not reach that far."""


@dataclass(frozen=True)
class Caller:
    """Who asks: ``fingerprint`` stands for the token wherever one must be told from another."""

    name: str
    groups: tuple[str, ...]
    fingerprint: str


class Access(Protocol):
    """What decides."""

    async def identify(self, token: str) -> Caller:
        """Return whose token this is.

        Raises:
            Unauthenticated: nobody's.
            Unavailable: it cannot be asked now.
        """

    async def allows(self, caller: Caller, verb: Verb, namespace: str, name: str) -> bool:
        """Tell whether a caller may do ``verb``; an empty namespace or name means all.

        Raises:
            Unavailable: it cannot be asked now.
        """


def fingerprint(token: str) -> str:
    """Return the sha256 of a token: what is kept and compared in its place."""
    return hashlib.sha256(token.encode()).hexdigest()


class LocalAccess:
    """One token that may do everything."""

    def __init__(self, token: str) -> None:
        self._fingerprint = fingerprint(token)

    async def identify(self, token: str) -> Caller:
        """Return the one caller there is."""
        given = fingerprint(token)
        if not hmac.compare_digest(given, self._fingerprint):
            raise Unauthenticated(
                "this is not the token of this server: it is in the file api-token of the data "
                "directory, and in the URL that kubevo serve prints"
            )
        return Caller("local", (), given)

    async def allows(
        self,
        caller: Caller,  # noqa: ARG002 - the protocol's arguments, here and below
        verb: Verb,  # noqa: ARG002
        namespace: str,  # noqa: ARG002
        name: str,  # noqa: ARG002
    ) -> bool:
        """Allow everything."""
        return True


class Remembered(Generic[T]):
    """Answers that cost a request, kept for a while: good ones longer than bad ones."""

    def __init__(self, clock: Callable[[], float], is_good: Callable[[T], bool]) -> None:
        self._clock = clock
        self._is_good = is_good
        # Apart: no number of wrong tokens takes the answers of the right ones away.
        self._good: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()
        self._bad: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()
        self._asked: dict[Hashable, asyncio.Future[T]] = {}

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what is known for ``key``, or ask; an error is not remembered."""
        found = self._good.get(key) or self._bad.get(key)
        if found is not None and self._clock() < found[0]:
            return found[1]
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.ensure_future(self._ask(key, ask))
            task.add_done_callback(lambda done: self._forget(key, done))
        # Who asks the same meanwhile waits for one answer; one who goes away takes it from nobody.
        return await asyncio.shield(task)

    async def _ask(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        answer = await ask()
        is_good = self._is_good(answer)
        self._good.pop(key, None)
        self._bad.pop(key, None)
        known = self._good if is_good else self._bad
        seconds = POSITIVE_SECONDS if is_good else NEGATIVE_SECONDS
        known[key] = (self._clock() + seconds, answer)
        while len(known) > REMEMBERED:
            known.popitem(last=False)
        return answer

    def _forget(self, key: Hashable, done: asyncio.Future[T]) -> None:
        self._asked.pop(key, None)
        if not done.cancelled():
            done.exception()  # whoever asked may be gone
