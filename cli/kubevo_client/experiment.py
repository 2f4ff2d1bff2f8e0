"""One Experiment: look at it, wait for it, change its budget, fetch what it found."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from kubevo_client.errors import ExperimentFailed, NotThere, ServiceUnavailable, WaitTimeout
from kubevo_client.genomes import Best
from kubevo_client.history import History
from kubevo_client.status import Status
from kubevo_client.streams import Event
from kubevo_client.transport import Transport, path_of
from kubevo_core.errors import UserError

__all__ = ["Experiment"]

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)


class Experiment:
    """An Experiment by name; nothing is asked before a method is called.

    Raises:
        UserError: the name or the namespace cannot be one.
    """

    def __init__(self, transport: Transport, namespace: str, name: str) -> None:
        # The service may unescape a slash, and would then be asked for something else.
        for what, text in (("namespace", namespace), ("name of an Experiment", name)):
            if not _NAME.fullmatch(text):
                raise UserError(
                    f"{what}: expected lower-case letters, digits, - and ., such as cartpole-1, "
                    f"got {text[:80]!r}"
                )
        self.namespace, self.name = namespace, name
        self._transport = transport

    def __repr__(self) -> str:
        return f"Experiment({self.namespace}/{self.name})"

    # --- looking -------------------------------------------------------------------------------

    def detail(self) -> dict[str, Any]:
        """Return all that the service knows: Summary, spec, status, actions.

        Raises:
            ServiceError: as the tree in `kubevo_client.errors` says, here and below.
        """
        return self._transport.get(self._path())

    def status(self) -> Status:
        """Return how it is now."""
        return Status.of(self.detail())

    def history(self, repeat: int | None = None, points: int | None = None) -> History:
        """Return the finished generations; by default of the repeat with the best result.

        ``points`` thins a long history out: each point stands for several generations.
        """
        query = {"repeat": repeat, "points": points}
        found = self._transport.get(self._path("history"), query)
        return History(found["repeat"], found["repeats"], found["columns"])

    def best(self, repeat: int | None = None) -> Best:
        """Return the best genome so far; by default of all repeats."""
        found = self._transport.get(self._path("best"), {"repeat": repeat})
        return Best.of(found, self._transport, (self.namespace, self.name))

    def failures(self, repeat: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the failed episodes that were kept, newest first, page by page."""
        page: str | None = None
        while True:
            query = {"repeat": repeat, "continue": page, "limit": 1000}
            found = self._transport.get(self._path("logs"), query)
            yield from found["items"]
            page = found.get("continue")
            if page is None:
                return

    def download_run(self, target: Path) -> int:
        """Write the whole run to a tar file, to go on with it elsewhere, and return its bytes.

        Raises:
            OSError: the file cannot be written; what was there before still is.
        """
        return self._transport.download(self._path("run.tar"), None, target)

    # --- waiting -------------------------------------------------------------------------------

    def events(self, last_id: str | None = None) -> Iterator[Event]:
        """Yield what happens from now on, or from ``last_id`` on, until the Experiment is deleted.

        ``status`` events carry a Summary, ``generation`` events a repeat and a row of the history.
        A connection that breaks is made again, without a gap; only the first must succeed.
        """
        pause, is_open = FIRST_PAUSE_SECONDS, False
        while True:
            try:
                for event in self._transport.events(self._path("events"), last_id):
                    is_open, pause = True, FIRST_PAUSE_SECONDS
                    last_id = event.id if event.id is not None else last_id
                    yield event
                    if event.kind == "deleted":
                        return
            except ServiceUnavailable:
                if not is_open:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def wait(self, timeout: float | None = None, *, check: bool = True) -> Self:
        """Wait until the search has ended and return this Experiment.

        A service that is away is waited for, once it has answered; so is a suspended search.
        ``timeout`` is in seconds. With ``check`` a search that failed, or a local one that was left
        behind, raises.

        Raises:
            ExperimentFailed: it failed, or was interrupted (with ``check``).
            WaitTimeout: the time is over; the search goes on.
            NotThere: there is no such Experiment, or it was deleted meanwhile.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for found in self._statuses(deadline):
            if found.is_finished or (check and found.state == "Interrupted"):
                if check and not found.has_succeeded:
                    raise ExperimentFailed(
                        f"{self.namespace}/{self.name} is {found.state}"
                        f"{f' ({found.reason})' if found.reason else ''}: {found.message}"
                    )
                return self
        raise AssertionError  # the statuses end by an error only

    def _statuses(self, deadline: float | None) -> Iterator[Status]:
        """Yield the status whenever it is known anew: by events, and by polling where there are none.

        The first look tells errors at once; after that the service may be away for a while.
        """
        found = self.status()
        yield found
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                for event in self._transport.events(self._path("events"), deadline=deadline):
                    pause = FIRST_PAUSE_SECONDS
                    if event.kind == "deleted":
                        raise NotThere(f"{self.namespace}/{self.name} was deleted meanwhile")
                    if event.kind == "status":
                        found = Status.of(event.document)
                        yield found
            except ServiceUnavailable:  # away, or too many streams are open
                pass
            self._rest(pause, deadline, found)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            try:
                found = self.status()
            except ServiceUnavailable:
                continue
            yield found

    def _rest(self, seconds: float, deadline: float | None, found: Status) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            at = "no generation" if found.generation is None else f"generation {found.generation}"
            raise WaitTimeout(
                f"{self.namespace}/{self.name} is still {found.state} ({at} finished): the time to "
                "wait is over, the search is not; wait again"
            )
        time.sleep(seconds if left is None else min(seconds, left))

    # --- changing ------------------------------------------------------------------------------

    def suspend(self) -> Status:
        """Pause the search; nothing is lost."""
        return self._act("suspend")

    def resume(self) -> Status:
        """Let a paused search go on."""
        return self._act("resume")

    def stop(self) -> Status:
        """End the search after the generation that runs now, with its final test."""
        return self._act("stop")

    def extend(
        self,
        *,
        generations: int | None = None,
        frames: int | None = None,
        seconds: int | None = None,
        target: str | float | None = None,
    ) -> Status:
        """Set another budget, in all; a finished search goes on if it is larger.

        Raises:
            UserError: nothing is given.
        """
        wanted = {
            "maxGenerations": generations,
            "maxFrames": frames,
            "maxWallClockSeconds": seconds,
            "targetFitness": None if target is None else str(target),
        }
        changes = {name: value for name, value in wanted.items() if value is not None}
        if not changes:
            raise UserError("extend: expected generations, frames, seconds or target")
        return Status.of(self._transport.post(self._path("extend"), changes))

    def _act(self, action: str) -> Status:
        return Status.of(self._transport.post(self._path(action)))

    def _path(self, *parts: str | int) -> str:
        return path_of("namespaces", self.namespace, "experiments", self.name, *parts)
