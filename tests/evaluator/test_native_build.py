import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from kubevo_evaluator import native

ROOT = Path(__file__).parents[2]
needs_kernel = pytest.mark.skipif(native.missing() is not None, reason=str(native.missing()))


def hook(folder=ROOT):
    """Return the build hook's module of a checkout."""
    spec = importlib.util.spec_from_file_location(
        "build_kernel", folder / "evaluator/build_kernel.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def a_kernel_is_not_required(monkeypatch):
    monkeypatch.delenv("KUBEVO_KERNEL", raising=False)


@pytest.fixture
def checkout(tmp_path):
    """Return a copy of what a wheel is made of, without a kernel."""
    for name in ("core", "operator", "evaluator", "api", "cli"):
        ignored = shutil.ignore_patterns("*.so", "not_built.txt", "__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def wheel(checkout, compiler):
    """Build a wheel with this compiler; return its name and the files of its kernel's folder."""
    environment = {**os.environ, "CC": compiler} if compiler else dict(os.environ)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "out"]
    subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True)
    (built,) = (checkout / "out").iterdir()
    names = zipfile.ZipFile(built).namelist()
    return built, {Path(n).name for n in names if n.startswith("kubevo_evaluator/native/")}


def test_the_kernel_is_here_where_it_can_be_built():
    """Without this, every test of the kernel would be skipped by a mistake in it."""
    headers = Path(sysconfig.get_path("include"), "Python.h").is_file()
    if not (headers and any(map(shutil.which, ("cc", "gcc", "clang")))):
        pytest.skip("no C compiler, or no Python.h")
    assert native.missing() is None
    assert native.levels() == native._kernel.levels()


def test_without_a_compiler_a_wheel_is_built_and_says_why_it_has_no_kernel(checkout):
    built, files = wheel(checkout, "/no/such/cc")
    assert built.name.endswith("-py3-none-any.whl")
    assert "not_built.txt" in files
    assert not any(name.endswith((".so", ".c", ".h")) for name in files)
    zipfile.ZipFile(built).extractall(checkout / "installed")
    code = (
        "from kubevo_evaluator.policies import BACKENDS, make_policy, resolve\n"
        "from kubevo_evaluator import native\n"
        "print(resolve('auto'), native.levels(), BACKENDS['native'].unavailable())\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(checkout / "installed"), "PYTHONSAFEPATH": "1"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert said.startswith("numpy () the native kernel was not built here: the C compiler cannot")
    assert "/no/such/cc" in said


@needs_kernel
def test_with_a_compiler_a_wheel_has_the_kernel_for_every_python(checkout):
    built, files = wheel(checkout, None)
    assert f"-cp311-abi3-linux_{platform.machine()}.whl" in built.name
    assert "_kernel.abi3.so" in files
    assert "not_built.txt" not in files


def test_a_kernel_that_must_be_built_is_an_error_where_it_cannot(checkout, monkeypatch):
    monkeypatch.setenv("CC", "/no/such/cc")
    monkeypatch.setenv("KUBEVO_KERNEL", "require")
    module = hook(checkout)
    with pytest.raises(module.NotBuilt, match="cannot be started"):
        module.build_into(module.FOLDER)


@needs_kernel
def test_a_build_that_fails_leaves_a_kernel_that_others_use(checkout, monkeypatch):
    module = hook(checkout)
    built, reason = module.build_into(module.FOLDER)
    assert reason is None
    monkeypatch.setenv("CC", "/no/such/cc")
    assert module.build_into(module.FOLDER) == (built, None)
    assert not (module.FOLDER / module.REASON).exists()


@needs_kernel
def test_a_compiler_for_another_machine_is_refused(checkout, monkeypatch):
    other = checkout / "cc"
    other.write_text("#!/bin/sh\necho vax-dec-ultrix\n")
    other.chmod(0o755)
    monkeypatch.setenv("CC", str(other))
    module = hook(checkout)
    with pytest.raises(module.NotBuilt, match="builds for 'vax'"):
        module.build(checkout / "kernel.so")


@needs_kernel
def test_a_kernel_older_than_its_sources_is_not_used(monkeypatch, tmp_path):
    (tmp_path / "net.c").touch()
    monkeypatch.setattr(native, "__file__", str(tmp_path / "__init__.py"))
    native.missing.cache_clear()
    try:
        os.utime(tmp_path / "net.c", (1, 1))
        assert native.missing() is None
        native.missing.cache_clear()
        os.utime(tmp_path / "net.c")
        assert "older than its sources" in native.missing()
    finally:
        monkeypatch.undo()
        native.missing.cache_clear()


@needs_kernel
def test_a_source_that_does_not_compile_names_its_first_error(checkout):
    module = hook(checkout)
    (module.FOLDER / "net.c").write_text("int main(void) { return nonsense; }\n")
    with pytest.raises(module.NotBuilt, match=r"does not compile.*nonsense"):
        module.build(checkout / "kernel.so")
    assert not (checkout / "kernel.so").exists()


@needs_kernel
def test_an_instruction_set_with_other_bits_is_not_used(monkeypatch):
    native.levels.cache_clear()
    native.missing.cache_clear()
    try:
        monkeypatch.setattr(native, "checked", lambda level: "0" * 64)
        assert native.levels() == ()
        assert "other bits" in native.missing()
    finally:
        native.levels.cache_clear()
        native.missing.cache_clear()


@needs_kernel
@pytest.mark.timeout(600)
def test_the_sanitizers_of_address_and_undefined_behaviour_find_nothing(tmp_path):
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")
    module = hook()
    try:
        module.build(tmp_path / "_kernel.abi3.so", flags)
    except module.NotBuilt as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"this compiler has no sanitizers: {exc}")
    asan = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
    ).stdout.strip()
    code = (
        "import importlib.util, sys\n"
        "name = 'kubevo_evaluator.native._kernel'\n"
        f"spec = importlib.util.spec_from_file_location(name, {str(tmp_path / '_kernel.abi3.so')!r})\n"
        "sys.modules[name] = module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "from kubevo_evaluator import native\n"
        "assert native.missing() is None and native._kernel is module, native.missing()\n"
        "import pytest\n"
        f"sys.exit(pytest.main({[str(p) for p in SANITIZED]!r} + "
        "['-q', '-n', '0', '-p', 'no:cacheprovider', '-k', 'not ten_thousand and not every_game']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        # detect_leaks: the interpreter itself leaks at its end
        env={**os.environ, "LD_PRELOAD": asan, "ASAN_OPTIONS": "detect_leaks=0"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    assert "passed" in done.stdout


SANITIZED = [ROOT / f"tests/evaluator/test_{name}.py" for name in ("native_kernel", "pixels")]
