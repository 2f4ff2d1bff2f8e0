"""Builds the native kernel: hatchling's build hook, and ``python evaluator/build_kernel.py`` by hand.

One object for each instruction set that the compiler's target may have; which of them is used is
chosen where it is loaded. A wheel or an editable install without a C compiler succeeds, carries the
reason in place of the kernel, and uses other backends; KUBEVO_KERNEL=require makes that an error.
The flags are part of the arithmetic, so CFLAGS of the environment are not read; CC is.
"""

import contextlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["NotBuilt", "build", "build_into"]

PACKAGE = "kubevo_evaluator/native"
FOLDER = Path(__file__).parent / PACKAGE
# Loaded by any CPython from 3.11 on: the stable ABI.
MODULE, TAG = "_kernel.abi3.so", "cp311-abi3"
# Written in its place where it could not be built.
REASON = "not_built.txt"
# -ffp-contract=off: products and sums are fused where the source says so, and nowhere else.
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
# The portable vectors are wider than some registers; they are only passed to what is inlined.
PORTABLE = ("-Wno-psabi",)
LEVELS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "avx512": ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma"),
        "avx2": ("-mavx2", "-mfma"),  # the one does not imply the other
    },
    "aarch64": {"neon": ()},
}
PER_LEVEL = "kernel.c"


class NotBuilt(Exception):
    """There is no kernel; the text says why, in one line."""


def build(out: Path, more_flags: Iterable[str] = ()) -> None:
    """Compile and link the kernel into the file ``out``, all of it or nothing.

    Raises:
        NotBuilt: there is no C compiler, no Python.h, or it does not compile.
    """
    compiler = shlex.split(os.environ.get("CC", "")) or [_found_compiler()]
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").is_file():
        raise NotBuilt("Python.h is missing: install Python's headers (on Debian: python3-dev)")
    target, here = _run([*compiler, "-dumpmachine"]).partition("-")[0], platform.machine()
    if target != here:
        raise NotBuilt(f"the C compiler builds for {target!r}, this machine is {here!r}")
    flags, levels = [*FLAGS, *more_flags], LEVELS.get(target, {})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = [
            (
                folder / f"{level}.o",
                FOLDER / PER_LEVEL,
                (f"-DLEVEL={level}", f"-DLEVEL_{level}", *own),
            )
            for level, own in {**levels, "portable": PORTABLE}.items()
        ]
        jobs += [
            (folder / f"{source.stem}.o", source, (f"-I{include}",))
            for source in sorted(FOLDER.glob("*.c"))
            if source.name != PER_LEVEL
        ]
        for target, source, own in jobs:
            _run([*compiler, *flags, *own, "-c", str(source), "-o", str(target)])
        linked = folder / MODULE
        objects = [str(target) for target, _, _ in jobs]
        _run([*compiler, *more_flags, "-shared", *objects, "-lm", "-o", str(linked)])
        # Beside the old one and renamed: a process that has loaded that keeps it.
        try:
            with tempfile.NamedTemporaryFile(dir=out.parent, delete=False) as beside:
                beside.write(linked.read_bytes())
            Path(beside.name).chmod(0o755)
            Path(beside.name).replace(out)
        except OSError as exc:
            raise NotBuilt(f"{out} cannot be written: {exc}") from exc


def build_into(folder: Path) -> tuple[Path, str | None]:
    """Build the kernel into a folder; return what lies there now and why it is no kernel, or None.

    A kernel that is there already and newer than its sources stays where none can be built: other
    Pythons may use it, for it is one file for all of them.
    """
    module, reason = folder / MODULE, folder / REASON
    try:
        build(module)
    except NotBuilt as exc:
        if os.environ.get("KUBEVO_KERNEL") == "require":
            raise
        if module.exists() and module.stat().st_mtime > max(map(_changed, FOLDER.glob("*.[ch]"))):
            return module, None
        with contextlib.suppress(OSError):  # a folder that cannot be written
            module.unlink(missing_ok=True)
            reason.write_text(f"{exc}\n")
        return reason, str(exc)
    reason.unlink(missing_ok=True)
    return module, None


def _changed(path: Path) -> float:
    return path.stat().st_mtime


def _found_compiler() -> str:
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return name
    raise NotBuilt("no C compiler was found: install one (on Debian: gcc libc6-dev)")


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as exc:
        raise NotBuilt(f"the C compiler cannot be started: {exc}") from exc
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or ["no message"]
        raise NotBuilt(f"{Path(command[0]).name} does not compile the kernel: {errors[0].strip()}")
    return done.stdout


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand, or by a test
    pass
else:

    class KernelHook(BuildHookInterface[Any]):
        """Puts the kernel into the wheel, and names the platform that it is for."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Build it, in place for an editable install, else in a folder that goes again."""
            if version == "editable":
                _, reason = build_into(FOLDER)
            else:
                self._folder = tempfile.TemporaryDirectory(prefix="kubevo-kernel-")
                built, reason = build_into(Path(self._folder.name))
                build_data["force_include"][str(built)] = f"{PACKAGE}/{built.name}"
            if reason is not None:
                self.app.display_warning(f"kubevo is built without its native kernel: {reason}")
                return
            build_data["pure_python"] = False
            name = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"{TAG}-{name}"


if __name__ == "__main__":
    sys.exit(build_into(FOLDER)[1])
