"""The door to the native kernel, a C extension: is it here, and does it give the right bits.

``kernel.h`` draws what it computes. An instruction set is used only when a small fixed forward has
the known digest on this very machine: a compiler's mistake, or one in a library that changed how
the process adds, is noticed before the first episode. Where the kernel was not built, everything
here can still be called, and `missing` says why.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kubevo_core import noise
from kubevo_core.errors import WorkerUnfit
from kubevo_core.noise import Float32Vector

try:
    from kubevo_evaluator.native import _kernel
except ImportError as _exc:
    _import_error: str | None = str(_exc)
else:
    _import_error = None

if TYPE_CHECKING:
    from kubevo_evaluator.native._kernel import Layer, Net

__all__ = ["add_noise", "levels", "make_net", "missing"]

CHECK_SHA256 = "6721e4c48f8d28f699788d39d3952f722e90b82cbbfe94dc3645b337bc4f5dea"
# Each kind of layer and activation, with a panel that is not full: 6x6x4 pixels to 4 values.
CHECKED: tuple[tuple["Layer", ...], ...] = (
    ((4, 2, 6, 1, 1, 4, 48, 1), (0, 0, 0, 0, 0, 432, 20, 1), (0, 0, 0, 0, 0, 20, 4, 0)),
    ((0, 0, 0, 0, 0, 5, 20, 2), (0, 0, 0, 0, 0, 20, 4, 0)),
)


@cache
def missing() -> str | None:
    """Return why the kernel cannot be used here, or None."""
    folder = Path(__file__).parent
    if _import_error is None:
        # In a checkout the sources lie beside it.
        sources = [path.stat().st_mtime for path in folder.glob("*.[ch]")]
        if max(sources, default=0.0) > Path(_kernel.__file__).stat().st_mtime:
            return "the native kernel is older than its sources: install kubevo again"
        if levels():
            return None
        return "the native kernel gives other bits here than it should: install kubevo again"
    try:
        reason = (folder / "not_built.txt").read_text().strip()
    except OSError:
        reason = _import_error
    return f"the native kernel was not built here: {reason}"


@cache
def levels() -> tuple[str, ...]:
    """Return the instruction sets that run here and give the right bits, best first."""
    if _import_error is not None:
        return ()
    return tuple(level for level in _kernel.levels() if checked(level) == CHECK_SHA256)


def make_net(layers: tuple["Layer", ...], bf16: bool, level: str | None = None) -> "Net":
    """Return a network of the kernel; ``level`` None means the best.

    Raises:
        WorkerUnfit: there is no kernel here.
        ValueError: no such level here, or layers that it does not know.
    """
    reason = missing()
    if reason is not None:
        raise WorkerUnfit(f"{reason}; or use another backend")
    return _kernel.Net(layers, bf16, level or levels()[0])


def add_noise(
    theta: Float32Vector, seed: int, table: Float32Vector, out: Float32Vector | None = None
) -> None:
    """Do what `kubevo_core.noise.add_noise` does, with the same bits, in C where that is here."""
    if missing() is not None:
        noise.add_noise(theta, seed, table, out)
        return
    target = theta if out is None else out
    _kernel.add_noise(theta, *noise.keys(seed), table, target, levels()[0])


def checked(level: str) -> str:
    """Return the sha256 of a small fixed forward on one level, subnormal numbers included."""
    digest = hashlib.sha256()
    for bf16 in (False, True):
        for layers in CHECKED:
            net = _kernel.Net(layers, bf16, level)
            weights = noise.noise(1, _parameters(layers))
            weights[::3] *= np.float32(1e-39)
            net.load(weights)
            values = np.zeros(layers[-1][6], np.float32)
            for seed in range(4):
                seen = noise.noise(seed, 144 if layers[0][0] else 5)
                pixels = np.clip(seen * 50 + 60, 0, 255).astype(np.uint8)
                pixels = pixels.reshape(6, 6, 4) if layers[0][0] else pixels
                net.forward(pixels if layers[0][0] else seen, values)
                digest.update(values.tobytes())
    return digest.hexdigest()


def _parameters(layers: tuple["Layer", ...]) -> int:
    return sum(
        (kernel * kernel * inputs if kernel else inputs) * outputs + outputs
        for kernel, _, _, _, _, inputs, outputs, _ in layers
    )
