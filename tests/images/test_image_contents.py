"""What is in the images and what is not: users, labels, sizes, packages, bytecode."""

import json
import os
import re
from pathlib import Path

import pytest
from build import IMAGES, OFFICIAL, version

PYTHON_IMAGES = ("operator", "evaluator")
NAMES = tuple(each.name.removeprefix("kubevo-") for each in IMAGES)
LICENCES = {
    "operator": {"Apache-2.0"},
    "evaluator": {"Apache-2.0", "GPL-2.0-only", "GPL-3.0-or-later"},
    "nats": {"Apache-2.0"},
}
IMPORT_ALL = """
import importlib, pkgutil, sys
found = []
for name in sorted(m.name for m in pkgutil.iter_modules() if m.name.startswith("kubevo_")):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith(("__main__", "torch_policy")):
            found.append(importlib.import_module(module.name).__name__)
    found.append(name)
print(*found)
"""
NOT_COMPILED = """
import importlib, os, sys
for name in {modules!r}:
    importlib.import_module(name)
files = [getattr(m, "__cached__", None) for m in list(sys.modules.values())]
print(*sorted(f for f in files if f and not os.path.exists(f)))
"""
TRIMMED = {"narwhals"}
TOOLS = (
    "cc",
    "gcc",
    "g++",
    "clang",
    "ld",
    "as",
    "make",
    "cmake",
    "pip",
    "pip3",
    "uv",
    "git",
    "curl",
    "wget",
)


@pytest.mark.parametrize("image", NAMES)
def test_an_image_is_no_root_and_says_what_it_is(docker, image):
    config = docker.inspect(image)["Config"]

    assert config["User"] == "65532:65532"
    assert config["StopSignal"] == "SIGTERM"
    assert not config.get("Volumes")
    labels = {k.removeprefix("org.opencontainers.image."): v for k, v in config["Labels"].items()}
    assert labels["version"] == version()
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", labels["revision"])
    assert set(labels["licenses"].split(" AND ")) == LICENCES[image]
    assert labels["title"]
    assert labels["description"]


@pytest.mark.parametrize(
    ("image", "default"), [("operator", "kubevo_operator"), ("evaluator", "kubevo_evaluator")]
)
def test_a_python_image_starts_its_program_and_another_by_arguments(docker, image, default):
    config = docker.inspect(image)["Config"]

    assert config["Entrypoint"] == ["python", "-m"]
    assert config["Cmd"] == [default]
    environment = dict(each.split("=", 1) for each in config["Env"])
    assert environment["PYTHONSAFEPATH"] == environment["PYTHONDONTWRITEBYTECODE"] == "1"


@pytest.mark.parametrize("image", IMAGES, ids=NAMES)
def test_an_image_is_as_small_as_promised(docker, image):
    size = docker.inspect(image.name.removeprefix("kubevo-"))["Size"]
    labels = docker.inspect("operator")["Config"]["Labels"]
    base = labels["org.opencontainers.image.base.name"]
    if image.on_python:
        told = docker.call("image", "inspect", "--format", "{{.Size}}", base)
        assert told.returncode == 0, told.stderr
        size -= int(told.stdout)

    assert size / 1e6 <= image.most_megabytes


@pytest.mark.parametrize("image", PYTHON_IMAGES)
def test_every_module_of_ours_imports(docker, image):
    found = set(docker.python(image, IMPORT_ALL).split())

    expected = {"operator": {"kubevo_operator", "kubevo_api"}, "evaluator": {"kubevo_evaluator"}}
    packages = {name.split(".")[0] for name in found}
    assert packages == {"kubevo_core", "kubevo_runtime", *expected[image]}
    assert len(found) > 20


def test_evaluators_have_the_native_kernel_for_every_cpu_of_its_kind(docker):
    program = (
        "import json; from kubevo_evaluator import native; from kubevo_evaluator.native import _kernel\n"
        "print(json.dumps([native.missing(), native.levels(), _kernel.levels()]))"
    )
    missing, right, runnable = json.loads(docker.python("evaluator", program))

    assert missing is None
    assert "portable" in right
    assert right == runnable


@pytest.mark.parametrize("image", PYTHON_IMAGES)
def test_nothing_is_compiled_at_a_start(docker, image):
    modules = {
        "operator": ["kubevo_operator.__main__", "kubevo_api.__main__"],
        "evaluator": ["kubevo_evaluator.__main__", "gymnasium", "ale_py"],
    }[image]

    assert docker.python(image, NOT_COMPILED.format(modules=modules)).split() == []


@pytest.mark.parametrize("image", PYTHON_IMAGES)
def test_no_compiler_no_package_manager_and_no_writable_place_but_tmp(docker, image):
    program = f"""
import importlib.util, json, os, pathlib, shutil
writable = []
for folder, _, _ in os.walk("/", topdown=True):
    if folder.startswith(("/proc", "/sys", "/dev", "/tmp")):
        continue
    if os.access(folder, os.W_OK):
        writable.append(folder)
print(json.dumps({{
    "tools": [each for each in {TOOLS!r} if shutil.which(each)],
    "modules": [each for each in ("pip", "ensurepip", "setuptools") if importlib.util.find_spec(each)],
    "writable": writable,
    "uid": os.getuid(),
    "scripts": [p.name for p in pathlib.Path("/opt/kubevo/bin").iterdir() if not p.name.startswith("python")],
}}))
"""
    told = json.loads(docker.python(image, program))

    assert told == {"tools": [], "modules": [], "writable": [], "uid": 65532, "scripts": []}


@pytest.mark.parametrize("image", PYTHON_IMAGES)
def test_an_image_holds_the_lock_and_nothing_else(docker, image):
    program = (
        "from importlib.metadata import distributions\n"
        "for each in distributions(): print(each.name.lower().replace('_', '-') + '==' + each.version)"
    )
    held = set(docker.python(image, program).split())
    lock = (Path(__file__).parents[2] / f"requirements/{image}.lock").read_text()
    locked = set(re.findall(r"^([a-z0-9-]+==[^ ;]+)", lock, flags=re.MULTILINE))

    assert held - locked == {f"kubevo=={version()}"}
    missing = {each.split("==")[0] for each in locked - held}
    marked = set(re.findall(r"^([a-z0-9-]+)==[^ ]+ ;", lock, flags=re.MULTILINE))
    assert missing <= marked | TRIMMED  # another platform's, and what nobody imports


def test_the_base_is_the_official_one_unless_told():
    dockerfiles = [Path(__file__).parents[2] / each.dockerfile for each in IMAGES]
    for each in dockerfiles:
        assert f"ARG PYTHON_IMAGE={OFFICIAL}{os.linesep}" in each.read_text()
