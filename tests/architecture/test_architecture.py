"""What the layout promises: arrows, the operator trap, exported names, no host, no machine path."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = [
    "kubevo_core",
    "kubevo_runtime",
    "kubevo_evaluator",
    "kubevo_cli",
    "kubevo_operator",
    "kubevo_api",
    "kubevo_client",
]
FOLDERS = ["core", "operator", "evaluator", "api", "cli"]


def sources():
    return [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]


def test_the_arrows_point_one_way():
    command = [sys.executable, "-m", "importlinter.cli"]
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [str(lint)] if lint.exists() else command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_nothing_shadows_the_standard_librarys_operator():
    for bad in ("operator/__init__.py", "tests/operator/__init__.py", "operator.py"):
        assert not (ROOT / bad).exists()
    assert not [path for path in sources() if path.name == "operator.py"]
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for_and_what_it_exports(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "no module docstring"
    exported = [
        node.value
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        and any(
            isinstance(target, ast.Name) and target.id == "__all__"
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        )
    ]
    if path.name == "__main__.py":
        return
    assert len(exported) == 1, "no __all__"
    found = ast.literal_eval(exported[0])  # sorted: ruff's RUF022
    defined = {
        name
        for node in ast.walk(tree)
        for name in (
            [node.name]
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            else [t.id for t in node.targets if isinstance(t, ast.Name)]
            if isinstance(node, ast.Assign)
            else [node.target.id]
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            else [alias.asname or alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert set(found) <= defined


def test_the_core_can_be_imported_alone():
    code = (
        "import sys, kubevo_core.checkpoint, kubevo_core.messages, kubevo_core.spec;"
        "bad = {'asyncio', 'nats', 'gymnasium', 'torch', 'fastapi', 'kopf', 'ale_py', 'cv2'}"
        " & set(sys.modules); sys.exit(str(bad) if bad - {'asyncio'} else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_any_module_has_no_effect(tmp_path):
    modules = [
        module.name
        for package in PACKAGES
        for module in pkgutil.walk_packages(
            importlib.import_module(package).__path__, f"{package}."
        )
        if not module.name.endswith(("__main__", "torch_policy"))
    ]
    code = f"import importlib\nfor name in {modules!r}: importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert not list(tmp_path.iterdir())


def tracked():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.split()]


def test_nothing_names_a_registrys_host():
    hosts = re.compile(
        r"python" r"hosted|py" r"pi\.org|registry\.np" r"mjs|proxy\.gol" r"ang|deb\.deb" r"ian\.org"
    )
    for path in tracked():
        if path.is_file() and path.suffix not in {".f32", ".png"}:
            assert not hosts.search(path.read_text(errors="replace")), path


def test_nothing_unpickles_or_evaluates():
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, path
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not {"pickle", "marshal", "shelve", "dill"} & set(names), path
