"""The game of a policy script for Atari: what stands between its markers replaces the player's."""

import sys
from typing import Any

import numpy as np

from kubevo_api.exports.scripts.player import SETTINGS, Network, derive_hash, largest, mix

__all__ = ["World"]


# --- the game ----------------------------------------------------------------------------------------

NOOPS, STICKY = 1, 2  # what a random number of an episode is for


class World:
    """An Atari game, played by a loop of our own around the emulator (ale_py, cv2).

    Every episode starts from one snapshot, so that a seed decides all that follows; a reset of the
    emulator would not.
    """

    def __init__(self, *, render: bool) -> None:
        import ale_py
        import cv2
        from ale_py import roms

        cv2.setNumThreads(1)
        self._resize, self._by_area = cv2.resize, cv2.INTER_AREA
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._ale: Any = ale_py.ALEInterface()
        ale = self._ale
        ale.setFloat("repeat_action_probability", 0.0)
        ale.setInt("random_seed", 0)
        ale.setBool("display_screen", render)
        known = {name.replace("_", ""): name for name in roms.get_all_rom_ids()}
        if SETTINGS["game"] not in known:
            sys.exit(f"this ale_py has no ROM of {SETTINGS['game']}: install a newer one")
        ale.loadROM(str(roms.get_rom_path(known[SETTINGS["game"]])))
        ale.reset_game()
        self._start, self._picture = ale.cloneState(), ale.getScreenGrayscale().copy()
        self._noop = ale.getLegalActionSet()[0]
        for _ in range(60):  # some games play differently after the first restore of a new emulator
            ale.act(self._noop)
        self._rules = rules = SETTINGS["environment"]["atari"]
        minimal = ale.getMinimalActionSet()
        self._codes = ale.getLegalActionSet() if rules["fullActionSpace"] else minimal
        waits = rules["fireReset"] and len(minimal) > 1 and minimal[1].value == 1
        self._fire = minimal[1] if waits else None
        self._sticky_below = SETTINGS["stickyBelow"]

    def episode(self, network: Network, seed: int) -> float:
        """Play one episode and return the sum of its rewards, which are the game's, not clipped."""
        newest = self._begin(seed)
        stack = np.repeat(self._small(newest), 4, axis=2)
        total, steps, over = 0.0, 0, False
        while not over and steps < SETTINGS["environment"]["maxEpisodeSteps"]:
            code = self._codes[largest(network(stack))]
            reward, picture, over = self._step(code)
            stack = np.concatenate([stack[..., 1:], self._small(picture)], axis=2)
            total += float(reward)
            steps += 1
        return total

    def close(self) -> None:
        """There is nothing to close."""

    def _begin(self, seed: int) -> np.ndarray:
        """Restore the snapshot, then do nothing for a while, then press FIRE where a game waits."""
        ale, rules = self._ale, self._rules
        ale.restoreState(self._start)
        self._frames, self._press_fire, self._last = 0, False, self._noop
        self._sticky_key = derive_hash(seed, STICKY)
        idle = derive_hash(seed, NOOPS) % (rules["maxNoops"] + 1)
        opening = [self._noop] * idle
        opening += [self._fire] * rules["frameSkip"] if self._fire is not None else []
        at_start = True
        for code in opening:
            ale.act(code)
            self._frames += 1
            self._last, at_start = code, ale.game_over()
            if at_start:  # the start has ended the game: play from the snapshot itself
                ale.restoreState(self._start)
                self._last = self._noop
                break
        self._lives = ale.lives()
        # The emulator's state does not hold its screen.
        self._newest = (self._picture if at_start else ale.getScreenGrayscale()).copy()
        self._before = np.zeros_like(self._newest)
        return self._newest

    def _step(self, code: Any) -> tuple[int, np.ndarray, bool]:
        """Play frameSkip frames; return the reward, the picture and whether the episode is over."""
        ale, skip = self._ale, self._rules["frameSkip"]
        if self._press_fire and self._fire is not None:
            code = self._fire
        reward, over = 0, False
        for number in range(skip):
            # A sticky frame repeats the action of the one before.
            if mix(self._sticky_key ^ self._frames) >= self._sticky_below:
                self._last = code
            reward += ale.act(self._last)
            self._frames += 1
            lost = self._rules["terminalOnLifeLoss"] and ale.lives() < self._lives
            over = ale.game_over() or lost
            if over:
                break
            if number == skip - 2:
                self._before = ale.getScreenGrayscale().copy()
            elif number == skip - 1:
                self._newest = ale.getScreenGrayscale().copy()
        lives = ale.lives()
        self._press_fire, self._lives = lives < self._lives, lives
        if skip > 1:  # sprites that flicker are drawn in every other frame only
            self._newest = np.maximum(self._newest, self._before)
        return reward, self._newest, over

    def _small(self, picture: np.ndarray) -> np.ndarray:
        found = self._resize(picture, (84, 84), interpolation=self._by_area)
        return np.asarray(found)[..., None]


# --- the script --------------------------------------------------------------------------------------
