"""Atari 2600 games, played by our own loop around the emulator.

An episode is a function of its seed alone, which neither the emulator's reset nor its random
source would give. The rules, in order:

::

    start       restore a snapshot taken once, right after the ROM was loaded and reset
    no-ops      0..maxNoops frames of NOOP, drawn from the episode seed
    FIRE        fireReset, in games whose minimal actions have FIRE at index 1: pressed for
                frameSkip frames after the no-ops; and the first step after a lost life presses
                FIRE in place of the policy's action
    a step      frameSkip frames of one action; stickyActionProbability: each frame repeats the
                frame before with that probability, drawn from (episode seed, frame number)
    picture     pixelwise maximum of the step's last two frames, grey, 84x84 by area, the last
                four stacked, newest last; at the start all four are the first one
    the end     game over, or with terminalOnLifeLoss a lost life; nothing else ends a game

The start is never sticky and its rewards do not count; if it ends the game, the snapshot is
restored and the rest of it skipped. Rewards are the game's, not clipped. Frames of the start count.
Pixels and rewards equal Gymnasium's AtariPreprocessing and FrameStackObservation (by test).
"""

import difflib
import hashlib
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kubevo_core import networks, spec
from kubevo_core.errors import EnvironmentRefused, WorkerUnfit
from kubevo_core.seeding import derive_hash, mix
from kubevo_evaluator.layouts import Action, ActionLayout, ObservationLayout
from kubevo_evaluator.pixels import BEFORE, NEWEST, Pixels, make_pixels

if TYPE_CHECKING:
    import ale_py

__all__ = ["PIXELS", "AtariEnvironment", "games", "make_atari", "rom_md5"]

PIXELS = ObservationLayout("pixels", networks.PIXELS)
# What a random number of an episode is for; part of every result, so they never change.
NOOPS, STICKY = 1, 2
# In Qbert and Tetris (ale-py 0.12.1) a restored state plays on differently when the emulator has
# played nothing since its ROM was loaded, so a new emulator plays a little before its first episode.
BURN_IN_FRAMES = 60
FIRE_INDEX = 1
FIRE_MEANING = 1  # the emulator's number of the action FIRE


@dataclass(frozen=True)
class _Console:
    """An emulator with a game in it, and the state in which every episode starts.

    The emulator's state does not hold its screen: until the next frame, a restored emulator still
    shows the last picture of the episode before. So the start's pictures are kept beside it.
    What `pixels` learnt of this emulator's colours serves every environment.
    """

    game: str
    ale: "ale_py.ALEInterface"
    start: "ale_py.ALEState"
    pixels: Pixels
    screen: npt.NDArray[np.uint8]
    colours: npt.NDArray[np.uint8]


# Loading a ROM costs as much as 200 steps, so consoles outlive their environments. One that is in
# use is not in here: two environments of one game never share an emulator.
_idle: dict[str, list[_Console]] = {}


@cache
def games() -> dict[str, str]:
    """Return the emulator's name of each game by environment id, such as ALE/Pong-v5: pong.

    Raises:
        WorkerUnfit: ale-py or gymnasium cannot be imported.
    """
    try:
        import ale_py  # noqa: F401 - importing it registers its games
        from gymnasium.envs.registration import registry
    except ImportError as exc:
        raise _no_library(exc) from exc
    return {
        name: found.kwargs["game"]
        for name, found in sorted(registry.items())
        if name.startswith("ALE/")
    }


def rom_md5(environment_id: str) -> str:
    """Return the md5 of a game's ROM, as hex.

    Raises:
        EnvironmentRefused: no such game.
        WorkerUnfit: the ROM cannot be read here.
    """
    path = _rom_path(_game(environment_id))
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def make_atari(environment: spec.Environment) -> "AtariEnvironment":
    """Make the environment of an id ``ALE/<Game>-v5``.

    Raises:
        EnvironmentRefused: no such game.
        WorkerUnfit: ale-py or the ROM cannot be loaded here.
    """
    game = _game(environment.id)
    atari = environment.atari or spec.Atari.model_validate({})
    idle = _idle.get(game)
    return AtariEnvironment(idle.pop() if idle else _new_console(game), atari)


class AtariEnvironment:
    """One Atari game; `make_atari` makes it."""

    observation = PIXELS

    def __init__(self, console: _Console, atari: spec.Atari) -> None:
        self.frames = 0
        self._console: _Console | None = console
        self._ale = ale = console.ale
        minimal = ale.getMinimalActionSet()
        self._codes = ale.getLegalActionSet() if atari.full_action_space else minimal
        self.actions = ActionLayout("discrete", (len(self._codes),))
        self._noop = ale.getLegalActionSet()[0]
        self._fire = minimal[FIRE_INDEX] if atari.fire_reset and _waits_for_fire(minimal) else None
        self._skip = atari.frame_skip
        self._max_noops = atari.max_noops
        self._terminal_on_life_loss = atari.terminal_on_life_loss
        self._sticky_below = int(Decimal(atari.sticky_action_probability) * 2**64)
        self._sticky_key = 0
        self._last = self._noop
        self._lives = 0
        self._press_fire = False
        self._at_start = False
        self._pixels = console.pixels
        self._screen = np.empty_like(console.screen)
        self._stack = np.zeros(networks.PIXELS, dtype=np.uint8)

    def reset(self, episode_seed: int) -> npt.NDArray[np.uint8]:
        """Restore the snapshot and play the start: no-ops, then FIRE."""
        ale, console = self._ale, self._open_console
        ale.restoreState(console.start)
        self._at_start = True
        self.frames = 0
        self._sticky_key = derive_hash(episode_seed, STICKY)
        self._last = self._noop
        self._press_fire = False
        noops = derive_hash(episode_seed, NOOPS) % (self._max_noops + 1)
        opening = [self._noop] * noops
        if self._fire is not None:
            opening += [self._fire] * self._skip
        for code in opening:
            ale.act(code)
            self.frames += 1
            self._last = code
            self._at_start = ale.game_over()
            if self._at_start:
                ale.restoreState(console.start)
                self._last = self._noop
                break
        self._lives = ale.lives()
        if self._at_start:
            self._pixels.see(NEWEST, console.screen)
        else:
            self._see(NEWEST)
        self._pixels.fill(self._stack)
        return self._stack

    def step(self, action: Action) -> tuple[npt.NDArray[np.uint8], float, bool]:
        """Play one step; ``action`` is an index into the game's actions."""
        ale, skip = self._ale, self._skip
        code = self._codes[action]
        if self._press_fire and self._fire is not None:
            code = self._fire
        self._press_fire = self._at_start = False
        reward, ended = 0, False
        for number in range(skip):
            if self._sticky_below and mix(self._sticky_key ^ self.frames) < self._sticky_below:
                code_now = self._last
            else:
                self._last = code_now = code
            reward += ale.act(code_now)
            self.frames += 1
            ended = ale.game_over() or self._life_ends_episode()
            if ended:
                break
            if number == skip - 2:
                self._see(BEFORE)
            elif number == skip - 1:
                self._see(NEWEST)
        lives = ale.lives()
        self._press_fire = lives < self._lives
        self._lives = lives
        self._pixels.push(self._stack)
        return self._stack, float(reward), ended

    def render(self) -> npt.NDArray[np.uint8]:
        """Return the emulator's screen in colour: uint8 of shape (210, 160, 3)."""
        if self._at_start:
            return self._open_console.colours.copy()
        screen: npt.NDArray[np.uint8] = self._ale.getScreenRGB()
        return screen

    def ram(self) -> bytes:
        """Return the console's 128 bytes of memory; equal play gives equal memory."""
        return bytes(self._ale.getRAM())

    def close(self) -> None:
        """Put the console back, with its ROM loaded, for the next environment of this game."""
        if self._console is not None:
            _idle.setdefault(self._console.game, []).append(self._console)
            self._console = None

    @property
    def _open_console(self) -> _Console:
        if self._console is None:
            raise RuntimeError("the environment was closed; make a new one")
        return self._console

    def _life_ends_episode(self) -> bool:
        return self._terminal_on_life_loss and self._ale.lives() < self._lives

    def _see(self, frame: int) -> None:
        ale, screen = self._ale, self._screen
        ale.getScreen(screen)
        if not self._pixels.see(frame, screen):
            self._pixels.learn(screen, ale.getScreenGrayscale())
            self._pixels.see(frame, screen)


def _waits_for_fire(minimal: list["ale_py.Action"]) -> bool:
    return len(minimal) > FIRE_INDEX and minimal[FIRE_INDEX].value == FIRE_MEANING


def _game(environment_id: str) -> str:
    known = games()
    found = known.get(environment_id)
    if found is not None:
        return found
    name = environment_id.removeprefix("ALE/").partition("-")[0].lower()
    by_name = {each.removeprefix("ALE/").removesuffix("-v5").lower(): each for each in known}
    close = difflib.get_close_matches(name, by_name, n=3, cutoff=0.5)
    matches = ", ".join(by_name[each] for each in close)
    raise EnvironmentRefused(
        f"spec.environment.id: no Atari game {environment_id!r}: expected ALE/<Game>-v5"
        + (f"; did you mean {matches}?" if matches else f", one of {len(known)} games")
    )


def _new_console(game: str) -> _Console:
    path = _rom_path(game)
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.setInt("random_seed", 0)
    ale.loadROM(str(path))
    ale.reset_game()
    pixels, screen = make_pixels(*ale.getScreenDims()), ale.getScreen()
    pixels.learn(screen, ale.getScreenGrayscale())
    console = _Console(game, ale, ale.cloneState(), pixels, screen, ale.getScreenRGB())
    for _ in range(BURN_IN_FRAMES):
        ale.act(ale.getLegalActionSet()[0])
    return console


def _rom_path(game: str) -> Path:
    try:
        from ale_py import roms

        path = roms.get_rom_path(game)
    except ImportError as exc:
        raise _no_library(exc) from exc
    except OSError as exc:
        raise WorkerUnfit(
            f"the ROM of {game!r} cannot be read: {exc}; reinstall ale-py or correct ALE_ROMS_DIR"
        ) from exc
    if path is None:
        raise WorkerUnfit(f"ale-py names the game {game!r} but has no ROM of it; reinstall ale-py")
    return path


def _no_library(exc: ImportError) -> WorkerUnfit:
    return WorkerUnfit(f"Atari games cannot be played here: {exc}; install kubevo[evaluator]")
