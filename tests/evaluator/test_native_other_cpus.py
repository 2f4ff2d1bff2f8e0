"""The kernel's bits on CPUs that this machine is not, by a cross-compiler and an emulator.

On Debian: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static.
"""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DIGEST = "9b25ed9e814fe9bb"


def built(folder, compiler, *more):
    """Compile the program of digests as `build_kernel` compiles the kernel; return its path."""
    file = HERE.parents[1] / "evaluator/build_kernel.py"
    spec = importlib.util.spec_from_file_location("build_kernel", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    target = subprocess.run(
        [compiler, "-dumpmachine"], capture_output=True, text=True, check=True
    ).stdout.partition("-")[0]
    levels = {**module.LEVELS.get(target, {}), "portable": module.PORTABLE}
    common = [compiler, *module.FLAGS, f"-I{module.FOLDER}"]
    objects = []
    for level, own in levels.items():
        objects.append(folder / f"{level}.o")
        named = (f"-DLEVEL={level}", f"-DLEVEL_{level}", *own)
        source = module.FOLDER / module.PER_LEVEL
        subprocess.run([*common, *named, "-c", source, "-o", objects[-1]], check=True)
    program = folder / "digests"
    sources = [HERE / "other_cpus/digests.c", module.FOLDER / "net.c", module.FOLDER / "levels.c"]
    subprocess.run([*common, *sources, *objects, "-lm", *more, "-o", program], check=True)
    return program


def digests(*command):
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.split() for line in said.splitlines())


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_this_cpu_has_the_golden_digest_on_every_instruction_set(tmp_path):
    found = digests(built(tmp_path, "gcc"))
    assert "portable" in found
    assert set(found.values()) == {DIGEST}


@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-gcc") and shutil.which("qemu-aarch64-static")),
    reason="needs gcc-aarch64-linux-gnu and qemu-user-static",
)
def test_arm_has_the_golden_digest(tmp_path):
    program = built(tmp_path, "aarch64-linux-gnu-gcc", "-static")
    assert digests("qemu-aarch64-static", program) == {"neon": DIGEST, "portable": DIGEST}
