"""The service's settings, read once from the environment by the program's entry point."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kubevo_core.errors import UserError

__all__ = ["ApiSettings"]

PREFIX = "KUBEVO_"


@dataclass(frozen=True)
class ApiSettings:
    """What the service must be told; each field is the variable KUBEVO_<FIELD> in capitals."""

    data: Path
    """Root of the runs' directories: the operator's volume, mounted read-only."""

    namespaces: tuple[str, ...] = ()
    """Namespaces whose Experiments are shown, comma-separated; none: all."""

    api_address: str = "0.0.0.0"  # noqa: S104 - it is a service
    """Address to listen at."""

    api_port: int = 8000
    """Port to listen at; 0: any free one."""

    api_audience: str = "kubevo-api"
    """Audience that a caller's token must be for: kubectl create token NAME --audience kubevo-api."""

    api_cache: Path = Path("/tmp/kubevo-api")  # noqa: S108 - the image mounts an empty volume there
    """Folder for exported models; it is emptied at the start."""

    api_cache_bytes: int = 1024**3
    """Exported models are dropped, oldest first, beyond so many bytes."""

    api_streams: int = 1000
    """Open event streams in all; beyond it 503."""

    api_streams_each: int = 50
    """Open event streams of one caller; beyond it 429."""

    api_connections: int = 4000
    """Open connections; beyond it 503."""

    api_body_bytes: int = 64 * 1024
    """Largest request body; beyond it 413."""

    api_request_seconds: float = 10.0
    """A request must have arrived whole within this time."""

    api_stall_seconds: float = 60.0
    """A client that takes nothing of an answer for so long is let go."""

    api_exports: int = 2
    """Models that are exported at the same time."""

    log_format: Literal["json", "console"] = "json"
    """json or console."""

    log_level: int = logging.INFO
    """DEBUG, INFO, WARNING or ERROR."""

    @staticmethod
    def from_environment(environ: Mapping[str, str] | None = None) -> "ApiSettings":
        """Read the settings.

        Raises:
            UserError: one is missing or is not what its field says; each problem has a line.
        """
        env = os.environ if environ is None else environ
        problems: list[str] = []
        values: dict[str, object] = {}
        for name, (read, wanted) in _READERS.items():
            text = env.get(PREFIX + name.upper(), "").strip()
            if not text:
                continue
            try:
                values[name] = read(text)
            except (ValueError, KeyError):
                problems.append(f"{PREFIX}{name.upper()}: expected {wanted}, got {text!r}")
        if "data" not in values:
            problems.append("KUBEVO_DATA is missing: the folder where the runs are")
        if problems:
            raise UserError("\n".join(problems))
        return ApiSettings(**values)  # type: ignore[arg-type]


def _within(kind: Callable[[str], float], low: float, high: float) -> Callable[[str], object]:
    def read(text: str) -> object:
        value = kind(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}
_FORMATS = {"json": "json", "console": "console"}
_COUNT = (_within(int, 1, 1_000_000), "a number from 1 to 1000000")
_BYTES = (_within(int, 1024, 2**50), "a number of bytes from 1024")
_SECONDS = (_within(float, 0.1, 86_400), "a number of seconds from 0.1 to 86400")
_READERS: dict[str, tuple[Callable[[str], object], str]] = {
    "data": (Path, "a folder"),
    "namespaces": (_names, "names"),
    "api_address": (str, "an address"),
    "api_port": (_within(int, 0, 65535), "a port from 0 to 65535"),
    "api_audience": (str, "a name"),
    "api_cache": (Path, "a folder"),
    "api_cache_bytes": _BYTES,
    "api_streams": _COUNT,
    "api_streams_each": _COUNT,
    "api_connections": _COUNT,
    "api_body_bytes": _BYTES,
    "api_request_seconds": _SECONDS,
    "api_stall_seconds": _SECONDS,
    "api_exports": _COUNT,
    "log_format": (_FORMATS.__getitem__, "json or console"),
    "log_level": (lambda text: _LEVELS[text.upper()], "DEBUG, INFO, WARNING or ERROR"),
}
