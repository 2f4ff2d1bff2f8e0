"""``kubevo serve``: a directory's runs in the browser."""

import sys
from pathlib import Path

from kubevo_cli import output
from kubevo_core.errors import UserError

__all__ = ["serve"]


def serve(directory: Path, port: int) -> None:
    """Serve until Ctrl-C, and print the URL to open.

    Raises:
        UserError: the service is not installed, or cannot start.
    """
    try:
        from kubevo_api.serve import serve_directory
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("kubevo"):
            raise
        raise UserError(
            f"the service is not installed here (no module {exc.name}): pip install 'kubevo[api]'; "
            "in a checkout: make serve"
        ) from exc
    serve_directory(directory, port, _tell)


def _tell(url: str) -> None:
    # To stdout, so that a program can read it.
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
    output.say("open it in a browser; the token in it is yours alone. Ctrl-C ends the service.")
