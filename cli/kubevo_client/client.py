"""A service and a token: where every look at an Experiment begins."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kubevo_client.experiment import Experiment
from kubevo_client.status import Status
from kubevo_client.transport import Connect, Transport, path_of
from kubevo_core.errors import UserError

__all__ = ["Client"]

URL, TOKEN = "KUBEVO_SERVICE", "KUBEVO_TOKEN"
TOKEN_FILE = "api-token"  # noqa: S105 - a name


class Client:
    """One service.

    ``url`` and ``token`` default to KUBEVO_SERVICE and KUBEVO_TOKEN; a token may be a function,
    which is called for every request, so that it can be renewed. ``namespace`` is what `experiment`
    takes by default; without it that is ``local`` or ``default``, as the service's mode is.
    ``ca_file`` holds the certificate authority of an https service; ``connect`` opens a connection
    in place of TCP (it is given the timeout in seconds and returns a socket).
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | Callable[[], str | None] | None = None,
        *,
        namespace: str | None = None,
        timeout_seconds: float = 30.0,
        ca_file: str | Path | None = None,
        connect: Connect | None = None,
    ) -> None:
        place = url or os.environ.get(URL)
        if not place:
            raise UserError(
                f"no service is named: Client('http://127.0.0.1:8000', token=…), or set {URL} and "
                f"{TOKEN}; a service on this machine: kubevo serve DIR, Client.local(DIR)"
            )
        given = os.environ.get(TOKEN) if token is None else token
        self._transport = Transport(
            place.rstrip("/"),
            given if callable(given) else lambda: given,
            timeout_seconds,
            connect,
            None if ca_file is None else str(ca_file),
        )
        self._namespace = namespace

    def __repr__(self) -> str:
        return f"Client({self._transport.url!r})"

    @staticmethod
    def local(directory: str | Path = "kubevo-data", port: int = 8000) -> "Client":
        """Return a client of `kubevo serve DIRECTORY --port PORT`, with the token it made.

        Raises:
            UserError: there is no token that you may read.
        """
        file = Path(directory) / TOKEN_FILE
        try:
            token = file.read_text().strip()
        except OSError as exc:
            raise UserError(
                f"{file} cannot be read: {exc.strerror}; start the service first: "
                f"kubevo serve {directory} --port {port}"
            ) from exc
        return Client(f"http://127.0.0.1:{port}", token, namespace="local")

    def version(self) -> dict[str, Any]:
        """Return the service's version and mode (local or cluster).

        Raises:
            ServiceError: as the tree in `kubevo_client.errors` says, here and below.
        """
        return self._transport.get(path_of("version"))

    def experiment(self, name: str, namespace: str | None = None) -> Experiment:
        """Return one Experiment; whether it is there is seen when it is asked for something.

        Where no namespace was ever named, the service is asked whether it is a local one.
        """
        return Experiment(self._transport, namespace or self.default_namespace(), name)

    def default_namespace(self) -> str:
        """Return the namespace of names that are given without one."""
        if self._namespace is None:
            is_local = self.version()["mode"] == "local"
            self._namespace = "local" if is_local else "default"
        return self._namespace

    def experiments(
        self, namespace: str | None = None, *, labels: str = "", state: str | None = None
    ) -> Iterator[Status]:
        """Yield the Experiments that you may see, by namespace and name; default: of all namespaces.

        ``labels`` is a selector such as ``team=vision,tier!=test``; ``state`` such as ``Running``.
        """
        page: str | None = None
        while True:
            query = {
                "namespace": namespace,
                "labelSelector": labels or None,
                "state": state,
                "continue": page,
            }
            found = self._transport.get(path_of("experiments"), query)
            yield from map(Status.of, found["items"])
            page = found.get("continue")
            if page is None:
                return

    def compare(self, names: Sequence[str], points: int = 300) -> list[dict[str, Any]]:
        """Compare Experiments (``name`` or ``namespace/name``): curve and result over repeats.

        The interquartile mean over the repeats, with its 95 % bootstrap interval.
        """
        full = [name if "/" in name else f"{self.default_namespace()}/{name}" for name in names]
        found = self._transport.get(path_of("compare"), {"ids": ",".join(full), "points": points})
        items: list[dict[str, Any]] = found["items"]
        return items
