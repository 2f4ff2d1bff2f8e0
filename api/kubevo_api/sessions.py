"""Browsers' sessions: a random cookie that stands for a token, known to this process alone.

A cookie goes to every port of a host, and to whoever listens there; the token itself must not. The
name of the cookie ends with the port, so that two services on one machine do not take each other's.
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["SESSION_SECONDS", "Sessions", "cookie_name"]

SESSION_SECONDS = 12 * 3600
MOST = 10_000


def cookie_name(port: int | str | None) -> str:
    """Return the name of the cookie of a service that a browser sees at ``port``; None: usual."""
    return f"kubevo-session-{port}" if port else "kubevo-session"


class Sessions:
    """The open ones: they end with time, with the process, or when there are too many."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def begin(self, token: str) -> str:
        """Return a new session's identifier."""
        found = secrets.token_urlsafe(32)
        self._open[found] = (self._clock() + SESSION_SECONDS, token)
        while len(self._open) > MOST:
            self._open.popitem(last=False)
        return found

    def token(self, identifier: str) -> str | None:
        """Return the token that a session stands for; None: there is no such session."""
        end, token = self._open.get(identifier, (0.0, ""))
        if self._clock() < end:
            return token
        self._open.pop(identifier, None)
        return None
