"""Prometheus' own programs, and what a query says: its metrics and its matchers."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
# Of PromQL, as far as kubevo's queries use it.
WORDS = {
    *("and", "or", "unless", "by", "on", "group_left", "offset", "bool"),
    *("sum", "max", "count", "rate", "increase", "time", "absent", "clamp_min"),
    *("histogram_quantile", "avg_over_time", "max_over_time"),
}
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')


class Selector(NamedTuple):
    """A series name and its matchers (label, operator, value) in a query."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Return where one of Prometheus' programs is; skip without it, but never in CI."""

    def find(name: str) -> str:
        found = shutil.which(name)
        if found is None:
            why = f"{name} is not on PATH; on Debian: apt-get install prometheus"
            if os.environ.get("CI"):
                pytest.fail(why)
            pytest.skip(why)
        return found

    return find


@pytest.fixture(scope="session")
def promtool(program: Callable[[str], str]) -> Callable[..., str]:
    """Run promtool; return what it says, or fail with it."""

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            [program("promtool"), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        return said

    return run


@pytest.fixture(scope="session")
def selectors() -> Callable[[str], list[Selector]]:
    """Return what a query selects; anything that is neither a known word nor a label is a name."""

    def read(expr: str) -> list[Selector]:
        found = []

        def take(match: re.Match[str]) -> str:
            found.append(Selector(match["name"], tuple(MATCHER.findall(match["inside"]))))
            return " "

        rest = re.sub(r"\b(?:by|on) \([^)]*\)|\[[^]]*\]", " ", expr)
        quoted = r'(?P<name>\b[a-zA-Z_]\w*)\{(?P<inside>(?:[^"}]|"(?:[^"\\]|\\.)*")*)\}'
        rest = re.sub(quoted, take, rest)
        bare = re.findall(r"\b[a-zA-Z_]\w*", rest)
        return [*found, *(Selector(name, ()) for name in bare if name not in WORDS)]

    return read
