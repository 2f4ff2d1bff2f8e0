"""Helm as the tests use it, and what it renders, as documents."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts/kubevo"
NAMESPACE = "kubevo-system"
Document = dict[str, Any]


class Rendered(list):
    """The documents of one rendering."""

    def kind(self, kind: str) -> list[Document]:
        return [item for item in self if item["kind"] == kind]

    def one(self, kind: str, name: str) -> Document:
        found = [item for item in self.kind(kind) if item["metadata"]["name"] == name]
        assert len(found) == 1, f"{kind} {name}: {[i['metadata']['name'] for i in self.kind(kind)]}"
        return found[0]

    def pods(self) -> Iterator[tuple[str, Document]]:
        """Yield each workload's name and its pods' metadata and spec."""
        for item in self:
            name = f"{item['kind']}/{item['metadata']['name']}"
            if item["kind"] in ("Deployment", "StatefulSet", "Job"):
                yield name, item["spec"]["template"]
            elif item["kind"] == "Pod":
                yield name, item


def documents(text: str) -> Rendered:
    """Read what Helm has written, with libyaml where it is there: the definition is long."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return Rendered(item for item in yaml.load_all(text, loader) if item)


class Helm:
    """The helm command; arguments are given as they are typed."""

    def __init__(self, program: Path, home: Path) -> None:
        self._program = program
        self._rendered: dict[tuple[str | Path, ...], str] = {}
        # Nothing of the person who runs the tests: no kubeconfig, no repositories.
        self._environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("HELM_", "KUBE"))
        } | {f"HELM_{name}_HOME": str(home / name) for name in ("CACHE", "CONFIG", "DATA")}

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._program, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def __call__(self, *arguments: str | Path) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, f"helm {' '.join(map(str, arguments))}: {done.stderr}"
        return done.stdout

    def template(
        self, *arguments: str | Path, values: Document | None = None, chart: Path = CHART
    ) -> Rendered:
        given = [*arguments]
        for key, value in (values or {}).items():
            given += ["--set-json", f"{key}={json.dumps(value)}"]
        command = ("template", "kubevo", chart, "--namespace", NAMESPACE, *given)
        # Each rendering once a session: the chart's own folder does not change meanwhile.
        if command not in self._rendered or chart != CHART:
            self._rendered[command] = self(*command)
        return documents(self._rendered[command])
