"""Reading an Experiment file: YAML to a checked Experiment, with clear words for what is wrong.

The loader knows plain YAML values only; duplicate keys, several documents and expanding aliases
are errors, because each of them would silently run another search than the one that was meant.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from kubevo_cli.assignments import applied, parse_assignments, wants_text
from kubevo_core import spec
from kubevo_core.errors import SpecError, UserError
from kubevo_core.spec import Experiment

__all__ = ["load_experiment", "read_bounded"]

STDIN = "-"
MEBIBYTE = 1024 * 1024
MOST_NODES = 100_000


def load_experiment(path: Path, assignments: Sequence[str] = ()) -> Experiment:
    """Read the Experiment in the file ``path`` (``-`` is stdin), changed by ``--set`` texts.

    Raises:
        SpecError: no YAML, not one document, or not a valid Experiment; one line per problem.
        UserError: the file cannot be read.
    """
    source = "stdin" if str(path) == STDIN else str(path)
    changes = parse_assignments(assignments)
    document = _one_document(read_bounded(path, MEBIBYTE), source)
    if not changes or not isinstance(document, dict):
        return spec.parse(document, source)
    source = f"{source} with --set"
    try:
        return spec.parse(applied(document, changes), source)
    except SpecError as exc:
        # A number was given where the spec wants a decimal in quotes: take it as it was typed.
        texts = wants_text(changes, str(exc), source)
        if not texts:
            raise
    return spec.parse(applied(document, changes, texts), source)


def read_bounded(path: Path, most_bytes: int) -> str:
    """Return a UTF-8 file's text (``-`` is stdin).

    Raises:
        UserError: missing, unreadable, longer than ``most_bytes``, or not UTF-8.
    """
    shown = "stdin" if str(path) == STDIN else str(path)
    try:
        if shown == "stdin":
            content = sys.stdin.buffer.read(most_bytes + 1)
        else:
            with path.open("rb") as file:
                content = file.read(most_bytes + 1)
    except FileNotFoundError:
        raise UserError(f"{shown}: no such file") from None
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise UserError(f"{shown}: cannot be read: {reason}") from exc
    if len(content) > most_bytes:
        raise UserError(f"{shown}: expected at most {most_bytes:,} bytes, it has more")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise UserError(
            f"{shown}: expected UTF-8 text, byte {exc.start} is {content[exc.start]:#04x}"
        ) from exc


def _one_document(text: str, source: str) -> Any:
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, source)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as exc:
        raise SpecError(_yaml_problem(exc, source)) from exc
    except yaml.YAMLError as exc:  # a character that YAML does not allow
        raise SpecError(f"{source}: not YAML: {str(exc).splitlines()[0]}") from exc
    except RecursionError:
        raise SpecError(f"{source}: nested too deeply for an Experiment") from None
    except ValueError as exc:  # a date such as 2026-13-45
        raise SpecError(f"{source}: a value that YAML cannot read: {exc}") from exc
    finally:
        if loader is not None:
            loader.dispose()


def _yaml_problem(exc: yaml.MarkedYAMLError, source: str) -> str:
    mark = exc.problem_mark or exc.context_mark
    where = f"{source}, line {mark.line + 1}, column {mark.column + 1}" if mark else source
    if exc.context == "expected a single document in the stream":
        return f"{where}: expected one document, another begins here: put it into its own file"
    context = f" ({exc.context})" if exc.context else ""
    return f"{where}: not YAML: {exc.problem}{context}"


def _check_size(root: yaml.Node, source: str) -> None:
    """Refuse aliases that expand to more than anybody writes, or into themselves."""
    sizes: dict[int, int] = {}
    within: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in within:
            mark = node.start_mark
            raise SpecError(f"{source}, line {mark.line + 1}: an alias contains itself")
        if id(node) not in sizes:
            within.add(id(node))
            children: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                children = [child for pair in node.value for child in pair]
            elif isinstance(node, yaml.SequenceNode):
                children = node.value
            sizes[id(node)] = 1 + sum(size(child) for child in children)
            within.discard(id(node))
        return sizes[id(node)]

    found = size(root)
    if found > MOST_NODES:
        raise SpecError(
            f"{source}: expected at most {MOST_NODES:,} values, its aliases expand to {found:,}"
        )


class _Loader(yaml.SafeLoader):
    """The safe loader, with duplicate keys as errors."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                before = first.setdefault((key.tag, key.value), key)
                if before is not key:
                    raise yaml.constructor.ConstructorError(
                        None,
                        None,
                        f"the key {key.value!r} is already given in line "
                        f"{before.start_mark.line + 1}; remove one of them",
                        key.start_mark,
                    )
        return super().construct_mapping(node, deep)
