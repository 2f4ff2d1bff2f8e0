"""Make an image's installed packages small and quick to start: ``trim.py SITE_PACKAGES``.

Runs in the builder stage of the Dockerfiles, standard library only. It removes what no program of
ours imports, by the table below, then writes the bytecode once, because the root is read-only and
nothing can be written at run time. `tests/images` imports every module and uses every format in the
finished images, so that a row too many shows.
"""

import argparse
import compileall
import hashlib
import re
import struct
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

# Glob patterns under site-packages. A wheel that has grown such a part again loses it again; one
# that has lost it is no error.
REMOVED = (
    # Of every package: its tests, what only compilers and type checkers read.
    "**/tests",
    "**/*.pyi",
    "**/*.pyx",
    "**/*.pxd",
    "**/*.pxi",
    "**/*.h",
    "**/*.hpp",
    "**/*.a",
    # The page needs one file of plotly, which `kubevo_api` finds by importing the package.
    "plotly/[!p_]*",
    "plotly/package_data/[!p]*",
    "plotly/package_data/plotly.json",
    "plotly/p[!a]*",
    "narwhals*",
    # Parquet alone: no object stores, no Flight. (Its other libraries need one another.)
    "pyarrow/libarrow_flight*",
    "pyarrow/libarrow_python_flight*",
    "pyarrow/libarrow_s3*",
    "pyarrow/_flight*",
    "pyarrow/_s3fs*",
    "pyarrow/_pyarrow_cpp_tests*",
    "pyarrow/include",
    "pyarrow/src",
    # Models of other people's networks that onnx tests its backends with.
    "onnx/backend/test",
    "onnx/reference",
    # Operator and service speak to the API server in plain documents: of the client they take the
    # connection, the configuration and the election, not its thousands of typed calls and kinds.
    "kubernetes/client/api",
    "kubernetes/client/apis",
    "kubernetes/client/models",
    "kubernetes/aio/client/api",
    "kubernetes/aio/client/models",
    "numpy/f2py",
    "numpy/distutils",
    "numpy/_pyinstaller",
    # Editors, viewers, samples.
    "mujoco/studio",
    "mujoco/_render_filament*",
    "mujoco/doc",
    "mujoco/sysid",
    "mujoco/testdata",
    "mujoco/*_test.py",
    "Box2D/examples",
    # Of torch's own tests: syntax that an older Python cannot compile.
    "torch/testing/_internal/py312_intrinsics.py",
    "pygame/docs",
    "pygame/examples",
    "../../../bin/mujoco-studio",
)
# What the rows above must leave: the packages' own first lines import it.
KEPT = re.compile(
    r"/kubernetes/(aio/)?client/(api|models)/"
    r"(__init__|v1_managed_fields_entry|v1_object_meta|v1_owner_reference)\.py$"
)

# Libraries that carry code for GPUs, and may look for it in their own file, stay as they came.
UNTOUCHED = ("nvidia", "torch", "triton")


def trim(site_packages: Path) -> int:
    """Remove the table's rows and return how many bytes that were."""
    removed = 0
    for pattern in REMOVED:
        for path in sorted(site_packages.glob(pattern)):
            for file in [path, *path.rglob("*")]:
                if (file.is_symlink() or file.is_file()) and not KEPT.search(str(file)):
                    removed += file.lstat().st_size
                    file.unlink()
    for folder in sorted(site_packages.rglob("*"), reverse=True):
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
    return removed


def share_copies(site_packages: Path) -> int:
    """Make links of a library's copies under its other names; return the bytes saved.

    A wheel cannot hold links, so pyarrow carries libarrow_python.so three times.
    """
    saved = 0
    kept: dict[bytes, Path] = {}
    for library in sorted(site_packages.glob("pyarrow/lib*.so*"), key=lambda path: -len(path.name)):
        first = kept.setdefault(hashlib.sha256(library.read_bytes()).digest(), library)
        if first is not library:
            saved += library.stat().st_size
            library.unlink()
            library.symlink_to(first.name)
    return saved


def drop_symbols(site_packages: Path) -> int:
    """Cut off what the loader never reads from shared libraries; return the bytes saved.

    Symbols for debuggers and the table of sections stand behind the last segment, which is where a
    64-bit ELF file may end: offset 40 is the table's place, 60 the number of its rows.
    """
    saved = 0
    for library in site_packages.rglob("*.so*"):
        if library.is_symlink() or not library.is_file():
            continue
        if library.relative_to(site_packages).parts[0] in UNTOUCHED:
            continue
        with library.open("r+b") as file:
            header = file.read(64)
            if header[:6] != b"\x7fELF\x02\x01":
                continue
            (place,), (rows,) = (
                struct.unpack_from("<Q", header, 32),
                struct.unpack_from("<H", header, 56),
            )
            file.seek(place)
            segments = [struct.unpack("<IIQQQQQQ", file.read(56)) for _ in range(rows)]
            end = max(place + 56 * rows, *(each[2] + each[5] for each in segments))
            size = file.seek(0, 2)
            if end < size:
                file.seek(40)
                file.write(bytes(8))
                file.seek(60)
                file.write(bytes(4))
                file.truncate(end)
                saved += size - end
    return saved


def compile_once(site_packages: Path, strip: str | None) -> bool:
    """Write bytecode that is never compared with its source; ``strip`` is no part of its paths."""
    return compileall.compile_dir(
        site_packages,
        quiet=1,
        maxlevels=30,
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
        stripdir=strip,
        prependdir="/" if strip else None,
    )


def _size(path: Path) -> int:
    if path.is_symlink() or path.is_file():
        return path.lstat().st_size
    return sum(each.lstat().st_size for each in path.rglob("*") if not each.is_dir())


def main() -> int:
    """Trim and compile the folder on the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site_packages", type=Path)
    parser.add_argument("--strip", help="folder that stands for the image's root")
    chosen = parser.parse_args()
    before = _size(chosen.site_packages)
    removed = sum(each(chosen.site_packages) for each in (trim, share_copies, drop_symbols))
    if not compile_once(chosen.site_packages, chosen.strip):
        sys.stderr.write(f"{chosen.site_packages}: a file could not be compiled, see above\n")
        return 1
    after = _size(chosen.site_packages)
    print(f"{before / 1e6:.0f} MB - {removed / 1e6:.0f} MB + bytecode = {after / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
