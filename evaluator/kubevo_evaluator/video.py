"""Recording an episode as an mp4 (H.264, yuv420p: what every browser plays).

One picture a step, at the game's own speed: an Atari console makes 60 frames a second, of which a
step shows one in frameSkip (15 pictures a second by default). ``kubevo play --record`` uses it, and
an evaluator that was asked for a recording.
"""

import os
from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

from kubevo_core import spec
from kubevo_core.errors import EnvironmentRefused, UserError

if TYPE_CHECKING:
    from kubevo_evaluator.environments import Environment

__all__ = ["LongEnough", "Recorder", "even_and_large", "native_fps"]

CONSOLE_FPS = 60
DEFAULT_FPS = 30
LEAST_HEIGHT = 400
FASTEST = 240
Picture = npt.NDArray[np.uint8]


class LongEnough(Exception):
    """The recording has the length that it may have; the rest of the episode is not needed."""


class Recorder:
    """Takes a picture at every step and writes the file when its context ends without an error.

    Use it as the ``on_step`` of one episode. A failed episode is recorded up to its failure. After
    ``most_seconds`` of video it raises `LongEnough`, through which the file is written all the same.
    ``encoder`` are further arguments of ffmpeg.
    """

    def __init__(
        self,
        target: Path,
        environment: spec.Environment,
        fps: int | None,
        *,
        most_seconds: float | None = None,
        encoder: Sequence[str] = (),
    ) -> None:
        self.pictures = 0
        self.fps: float = fps if fps is not None else 0.0
        self._target = target
        self._spec = environment
        self._most_seconds = most_seconds
        self._encoder = list(encoder)
        self._frames: Generator[None, Any, None] | None = None
        self._writing: Any = None

    def __call__(self, environment: "Environment", _steps: int, _reward: float) -> None:
        """Take the picture of one step.

        Raises:
            EnvironmentRefused: the environment gives no picture.
            LongEnough: the video has its full length.
        """
        if self._most_seconds is not None and self.pictures >= self._most_seconds * self.fps > 0:
            raise LongEnough
        picture = even_and_large(self._picture(environment))
        if self._frames is None:
            self.fps = self.fps or native_fps(self._spec, environment)
            self._frames = self._open(picture)
        self._frames.send(np.ascontiguousarray(picture))
        self.pictures += 1

    def _picture(self, environment: "Environment") -> Picture:
        try:
            return environment.render()
        except Exception as exc:  # the environment's edge: its renderer may raise anything
            raise EnvironmentRefused(
                f"{self._spec.id} gives no picture here: {type(exc).__name__}: {exc}; play it "
                "without a recording, or install what its renderer needs"
            ) from exc

    def _open(self, picture: Picture) -> Generator[None, Any, None]:
        height, width = picture.shape[:2]
        self._beside = self._target.with_name(f".{self._target.stem}.recording.mp4")
        frames: Generator[None, Any, None] = imageio_ffmpeg.write_frames(
            str(self._beside),
            (width, height),
            fps=self.fps,
            codec="libx264",
            pix_fmt_out="yuv420p",
            macro_block_size=2,
            quality=7,
            ffmpeg_log_level="error",
            output_params=self._encoder,
        )
        frames.send(None)
        return frames

    def __enter__(self) -> Self:
        try:
            imageio_ffmpeg.get_ffmpeg_exe()
        except RuntimeError as exc:
            raise UserError(
                f"{self._target}: recording needs ffmpeg, which is not found here: install it, or "
                "name it in IMAGEIO_FFMPEG_EXE"
            ) from exc
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._frames is None:
            if kind is None:
                raise UserError(
                    f"{self._target}: nothing was recorded, the episode failed at its start"
                )
            return
        try:
            self._frames.close()
            if kind is None or kind is LongEnough:
                with self._beside.open("rb") as file:
                    os.fsync(file.fileno())
                self._beside.replace(self._target)
        finally:
            with suppress(FileNotFoundError):
                self._beside.unlink()


def native_fps(environment: spec.Environment, made: "Environment") -> float:
    """Return how many steps a second the game has at its own speed; 30 where it does not say."""
    if environment.is_atari:
        atari = environment.atari or spec.Atari.model_validate({})
        return CONSOLE_FPS / atari.frame_skip
    told: Any = getattr(made, "render_fps", None)
    if isinstance(told, (int, float)) and 1 <= told <= FASTEST:
        return float(told)
    return DEFAULT_FPS


def even_and_large(picture: Picture) -> Picture:
    """Return a picture with even sides, enlarged by whole pixels to at least 400 lines.

    The codec halves colour in both directions, so an odd side would be refused.
    """
    height, width = picture.shape[:2]
    factor = -(-LEAST_HEIGHT // height)
    if factor > 1:
        picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)
        height, width = picture.shape[:2]
    if height % 2 or width % 2:
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return picture
