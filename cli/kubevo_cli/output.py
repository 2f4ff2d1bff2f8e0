"""What commands print: data to stdout, as aligned text or as JSON, everything else to stderr."""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "count",
    "note",
    "number",
    "say",
    "write",
    "write_csv",
    "write_fields",
    "write_json",
    "write_table",
]

NONE = "-"


def say(text: str) -> None:
    """Tell the person something that is not data."""
    sys.stderr.write(text + "\n")


def count(what: str, done: int, wanted: int) -> None:
    """Show on a terminal how far something is, in place; nothing elsewhere."""
    if sys.stderr.isatty():
        end = "" if done < wanted else "\r\033[K"
        sys.stderr.write(f"\r{what} {done}/{wanted}{end}")
        sys.stderr.flush()


def note(text: str) -> None:
    """Show on a terminal what is going on, in place of the note before; nothing elsewhere."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


def write(text: str) -> None:
    """Write one line of data."""
    sys.stdout.write(text + "\n")


def write_json(document: Any) -> None:
    """Write one JSON document; NaN and infinities are not JSON and never get here."""
    write(json.dumps(document, allow_nan=False, indent=2 if sys.stdout.isatty() else None))


def write_table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write aligned columns; a column of numbers is aligned to the right."""
    texts = [[cell if isinstance(cell, str) else number(cell) for cell in row] for row in rows]
    columns = range(len(headings))
    widths = [max(len(row[i]) for row in [headings, *texts]) for i in columns]
    right = [bool(rows) and not any(isinstance(row[i], str) for row in rows) for i in columns]
    for row in [headings, *texts]:
        cells = [row[i].rjust(widths[i]) if right[i] else row[i].ljust(widths[i]) for i in columns]
        write("  ".join(cells).rstrip())


def write_fields(fields: Mapping[str, Any]) -> None:
    """Write one named value a line."""
    width = max(map(len, fields))
    for name, value in fields.items():
        write(f"{name.ljust(width)}  {value if isinstance(value, str) else number(value)}")


def write_csv(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write comma-separated values; None is an empty cell, floats are written in full."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(rows)


def number(value: float | None) -> str:
    """Return a number as people read it: integers with separators, four digits of a fraction."""
    if value is None:
        return NONE
    if isinstance(value, int) or (abs(value) >= 10_000 and value.is_integer()):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
