"""``python charts/generate.py``: write what the chart copies and what is made of its values.

The definition and the rights stand elsewhere in the repository and are copied into the chart, whose
package must be whole by itself. A value's description stands once, in the comment above it in
values.yaml; the schema and the reference take it from there. ``--check`` says what is stale.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

STALE, WRONG = 1, 2
CHART = "charts/kubevo"
COPIES = {
    f"{CHART}/files/crds/experiments.yaml": "crds/experiments.yaml",
    f"{CHART}/files/rbac/operator.yaml": "operator/rbac.yaml",
    f"{CHART}/files/rbac/api.yaml": "api/rbac.yaml",
}
VALUES, SCHEMA = f"{CHART}/values.yaml", f"{CHART}/values.schema.json"
REFERENCE = "docs/reference-chart.md"
MARK = "# -- "
KEY = re.compile(r"( *)([A-Za-z]\w*):(?: |$)")
HEAD = """\
# Values of the chart

Written by `make chart` from `charts/kubevo/values.yaml`; a test fails when it is stale. How to install:
[operations.md](operations.md). Examples: `examples/values/`.

| Value | Default | |
|---|---|---|
"""


class Value(NamedTuple):
    """One documented value: its path in dots, what the comment says, and the default."""

    path: str
    description: str
    default: Any


def values(text: str) -> Iterator[Value]:
    """Yield the documented values of values.yaml, in their order."""
    defaults = yaml.safe_load(text)
    path: list[tuple[int, str]] = []
    description = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith(MARK):
            description = stripped.removeprefix(MARK)
            continue
        found = KEY.match(line)
        if found is None or stripped.startswith("#"):
            continue
        indent = len(found[1])
        path = [*(part for part in path if part[0] < indent), (indent, found[2])]
        if description:
            names = [name for _, name in path]
            yield Value(".".join(names), description, _at(defaults, names))
        description = ""


def reference(text: str) -> str:
    """Return the table of all values as Markdown."""
    rows = (
        f"| `{value.path}` | `{json.dumps(value.default)}` | {value.description} |\n"
        for value in values(text)
    )
    return HEAD + "".join(rows)


def described(schema: str, text: str) -> str:
    """Return the schema with the descriptions of values.yaml in it."""
    document = json.loads(schema)
    for value in values(text):
        part = document
        for name in value.path.split("."):
            if name not in part.get("properties", {}):
                raise SystemExit(f"{SCHEMA}: expected the value {value.path}, which {VALUES} has")
            part = part["properties"][name]
        # Beside a $ref nothing else counts in draft 7, but people and editors read it.
        part["description"] = value.description
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def files(root: Path) -> dict[str, Callable[[], str]]:
    """Return how the text of each generated file is made, by its path below ``root``."""

    def read(name: str) -> str:
        return (root / name).read_text(encoding="utf-8")

    found: dict[str, Callable[[], str]] = {
        copy: (lambda source=source: read(source)) for copy, source in COPIES.items()
    }
    found[SCHEMA] = lambda: described(read(SCHEMA), read(VALUES))
    found[REFERENCE] = lambda: reference(read(VALUES))
    return found


def main(arguments: Sequence[str], root: Path) -> int:
    """Write the files below ``root``, or compare them with ``--check``; return the exit code."""
    if list(arguments) not in ([], ["--check"]):
        sys.stderr.write("usage: python charts/generate.py [--check]\n")
        return WRONG
    if not (root / VALUES).exists():
        sys.stderr.write(f"expected the repository's root, but {root} has no {VALUES}: go there\n")
        return WRONG
    stale = False
    for name, make in files(root).items():
        path, text = root / name, make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if arguments:
            sys.stderr.write(f"{name} is stale or missing: run make chart\n")
            stale = True
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return STALE if stale else 0


def _at(document: Any, names: Sequence[str]) -> Any:
    for name in names:
        document = document[name]
    return document


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path.cwd()))
