"""From an emulator's screens to the stack of small pictures that a policy sees.

A picture is the pixelwise maximum of the greys of a step's last two frames, shrunk to 84x84 by
area. ``native/pixels.h`` states the arithmetic; in C it is used where it was built, and here it
stands in numpy, with the same bytes. Both learn the grey of a colour from the emulator, because a
copy of its screen costs a twentieth of the same screen in grey.
"""

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kubevo_core import networks
from kubevo_evaluator import native

__all__ = ["BEFORE", "NEWEST", "NumpyPixels", "Pixels", "make_pixels"]

# The two frames of a step that its picture is made of.
BEFORE = 0
NEWEST = 1
SIDE = networks.PIXELS[0]
LARGEST = 256

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class Pixels(Protocol):
    """The preprocessing of one emulator's screens, uint8 of shape (height, width).

    For each frame of a step that counts `see` it; at the end of the step `push`. A stack is uint8
    of shape (84, 84, 4), newest last.
    """

    def learn(self, screen: Bytes, grey: Bytes, /) -> None:
        """Learn the grey of every colour of a screen."""

    def see(self, frame: int, screen: Bytes, /) -> bool:
        """Take a frame; return whether all of its colours are known: else learn and see again."""
        ...

    def fill(self, stack: Bytes, /) -> None:
        """Begin an episode: all four pictures are the newest frame."""

    def push(self, stack: Bytes, /) -> None:
        """Push the maximum of the step's frames; the last picture stands for a newest not seen."""


def make_pixels(height: int, width: int) -> Pixels:
    """Make the preprocessing of screens of a size: in C where it was built, else in numpy."""
    if native.missing() is not None:
        return NumpyPixels(height, width)
    from kubevo_evaluator.native import _kernel

    return _kernel.Pixels(height, width)


class NumpyPixels:
    """`Pixels` in numpy."""

    def __init__(self, height: int, width: int) -> None:
        if not (SIDE < height <= LARGEST and SIDE < width <= LARGEST):
            raise ValueError(
                f"a screen of {height} x {width}: expected sides of {SIDE + 1} to {LARGEST}"
            )
        self._grey = np.zeros(256, dtype=np.uint8)
        self._known = np.zeros(256, dtype=np.bool_)
        self._screens = np.zeros((2, height, width), dtype=np.uint8)
        self._seen = [False, False]  # BEFORE in this episode, NEWEST since the last picture
        self._changed = np.ones(height, dtype=np.bool_)  # rows in which the picture is out of date
        self._picture = np.zeros((height, width), dtype=np.uint8)
        self._sums = np.zeros((height, SIDE), dtype=np.float32)
        self._small = np.zeros((SIDE, SIDE), dtype=np.uint8)
        self._across, self._down = _taps(width), _taps(height)

    def learn(self, screen: Bytes, grey: Bytes, /) -> None:
        """Learn the grey of every colour of a screen."""
        self._grey[screen] = grey
        self._known[screen] = True

    def see(self, frame: int, screen: Bytes, /) -> bool:
        """Take a frame; return whether all of its colours are known."""
        kept = self._screens[frame]
        # What was seen is known, but the zeros of the very beginning were not seen.
        rows = np.flatnonzero((kept != screen).any(axis=1) | ~self._known[screen[:, 0]])
        if not self._known[screen[rows]].all():
            return False
        kept[rows] = screen[rows]
        self._changed[rows] = self._seen[frame] = True
        return True

    def fill(self, stack: Bytes, /) -> None:
        """Begin an episode: all four pictures are the newest frame."""
        self._seen = [False, True]
        self._changed.fill(True)
        self._refresh()
        stack[:] = self._small[..., None]
        self._seen[NEWEST] = False

    def push(self, stack: Bytes, /) -> None:
        """Push the maximum of the step's frames."""
        self._refresh()
        # A pixel's four pictures as one little-endian number: shifting it by 8 drops the oldest.
        packed = stack.view("<u4")
        np.right_shift(packed, 8, out=packed)
        stack[..., -1] = self._small
        self._changed.fill(not self._seen[NEWEST])
        self._seen[NEWEST] = False

    def _refresh(self) -> None:
        rows = np.flatnonzero(self._changed)
        seen = [frame for frame in (BEFORE, NEWEST) if self._seen[frame]]
        greys = [self._grey[self._screens[frame, rows]] for frame in seen]
        if NEWEST not in seen:
            greys.append(self._picture[rows])
        self._picture[rows] = picture = np.maximum.reduce(greys)
        self._sums[rows] = _shrink(picture.T.astype(np.float32), *self._across).T
        sources, weights = self._down
        small = np.flatnonzero(self._changed[sources].any(axis=0))
        self._small[small] = np.rint(_shrink(self._sums, sources[:, small], weights[:, small]))


def _shrink(rows: Floats, sources: npt.NDArray[np.intp], weights: Floats) -> Floats:
    """Return weighted sums of rows, each added up from its first tap on."""
    total: Floats = rows[sources[0]] * weights[0]
    for source, weight in zip(sources[1:], weights[1:], strict=True):
        total += rows[source] * weight
    return total


def _taps(size: int) -> tuple[npt.NDArray[np.intp], Floats]:
    """Return, by tap and small pixel, the source pixels and (as columns) their weights.

    A small pixel with fewer taps than others has the weight 0 there, which changes no sum.
    """
    found = [_taps_of(number, size) for number in range(SIDE)]
    most = max(len(each) for each in found)
    sources = np.zeros((most, SIDE), dtype=np.intp)
    weights = np.zeros((most, SIDE, 1), dtype=np.float32)
    for number, each in enumerate(found):
        for tap, (source, weight) in enumerate(each):
            sources[tap, number], weights[tap, number] = source, weight
    return sources, weights


def _taps_of(number: int, size: int) -> list[tuple[int, float]]:
    scale, least = 1 / (SIDE / size), 1e-3
    start = number * scale
    end, length = start + scale, min(scale, size - start)
    last = min(math.floor(end), size - 1)
    whole = min(math.ceil(start), last)
    taps = [(source, 1 / length) for source in range(whole, last)]
    if whole - start > least:
        taps.insert(0, (whole - 1, (whole - start) / length))
    if end - last > least:
        taps.append((last, min(end - last, 1.0, length) / length))
    return taps
