"""What ``kubevo run`` was asked to do, parsed once; shared by the command line and ``run``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["RunOptions"]


@dataclass(frozen=True)
class RunOptions:
    """The arguments of ``kubevo run``.

    ``file`` may be ``-`` for stdin; ``assignments`` are the raw texts of ``--set``; ``metrics_port``
    is None where no metrics are served.
    """

    file: Path
    workers: int
    data: Path
    resume: bool
    assignments: tuple[str, ...]
    output: Literal["text", "json"]
    metrics_port: int | None
