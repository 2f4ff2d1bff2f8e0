"""``python -m kubevo_operator.monitoring``: write the generated files, or ``--check`` that none is stale.

Run it in the repository's root. Exit codes: 0 done, 1 a file is stale or missing, 2 used wrongly.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from kubevo_operator.monitoring import alerts, dashboard, metric_table

__all__ = ["FILES", "main"]

STALE, WRONG = 1, 2
FILES: dict[str, Callable[[], str]] = {
    "charts/kubevo/files/alerts.yaml": alerts.rendered,
    "charts/kubevo/files/dashboard.json": dashboard.rendered,
    "docs/reference-metrics.md": metric_table.markdown,
}


def main(arguments: Sequence[str], root: Path) -> int:
    """Write the files below ``root``, or compare them with ``--check``; return the exit code."""
    if list(arguments) not in ([], ["--check"]):
        sys.stderr.write("usage: python -m kubevo_operator.monitoring [--check]\n")
        return WRONG
    if not (root / "charts").is_dir():
        sys.stderr.write(f"expected the repository's root, but {root} has no charts/: go there\n")
        return WRONG
    stale = [name for name, text in FILES.items() if not _is_current(root / name, text())]
    if arguments:
        for name in stale:
            sys.stderr.write(f"{name} is stale or missing: run make monitoring\n")
        return STALE if stale else 0
    for name in stale:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FILES[name](), encoding="utf-8")
    return 0


def _is_current(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path.cwd()))
