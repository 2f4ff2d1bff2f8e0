"""The player that becomes ``policy.py``: it plays a model with numpy and Gymnasium.

`kubevo_api.exports.policy_script` writes a docstring of its own and what follows this one, fills in
``SETTINGS`` and, for Atari, exchanges the part called "the game".
"""

# ruff: noqa: T201 - a script prints

import argparse
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

# Before numpy is imported: with more threads the last bits of sums would differ from the search's.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np

__all__ = ["SETTINGS", "Network", "World", "derive_hash", "largest", "main", "mix"]

# What was searched and found; written by kubevo.
SETTINGS: dict[str, Any] = {}

MASK = 0xFFFF_FFFF_FFFF_FFFF
TEST, FINAL = 6, 7  # what a seed is for, as kubevo numbers it


# --- randomness: a stateless hash of who asks --------------------------------------------------------


def mix(z: int) -> int:
    """Return 64 well-mixed bits of ``z`` (splitmix64's finaliser)."""
    z = (z + 0x9E37_79B9_7F4A_7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58_476D_1CE4_E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D0_49BB_1331_11EB) & MASK
    return z ^ (z >> 31)


def derive_hash(root: int, purpose: int, *path: int) -> int:
    """Return the hash of a place in the tree of seeds."""
    h = mix(mix(root) ^ purpose)
    for value in path:
        h = mix(h ^ value)
    return h


def episode_seeds(purpose: int, root: int, *path: int) -> Iterator[int]:
    """Yield the 32-bit seed of each episode, for ever; more episodes begin with the same ones."""
    number = 0
    while True:
        yield derive_hash(root, purpose, *path, number) >> 32
        number += 1


# --- the network: every layer as the search computed it ----------------------------------------------


def load_weights(file: Path) -> np.ndarray:
    """Return the weights of a safetensors file as one float32 vector, in the network's order.

    The file is 8 bytes with the length of a JSON header, the header, and the tensors' bytes.
    """
    if not file.is_file():
        sys.exit(f"{file}: no such file: download model.safetensors too, or name it with --model")
    content = file.read_bytes()
    try:
        begin = 8 + int.from_bytes(content[:8], "little")
        header, tensors = json.loads(content[8:begin]), content[begin:]
        places = [
            header[name]["data_offsets"] for each in SETTINGS["layers"] for name in each["tensors"]
        ]
        weights = np.frombuffer(b"".join(tensors[start:end] for start, end in places), "<f4")
    except (ValueError, KeyError, TypeError) as exc:
        sys.exit(
            f"{file}: expected a safetensors file with the tensors of {SETTINGS['network']}, got "
            f"something else ({type(exc).__name__}: {exc}): download model.safetensors again"
        )
    found = hashlib.sha256(weights.tobytes()).hexdigest()
    if found != SETTINGS["sha256"]:
        sys.exit(
            f"{file}: these are other weights: expected sha256 {SETTINGS['sha256']}, found {found}: "
            "download the model.safetensors that belongs to this script"
        )
    return weights.astype(np.float32)


class Network:
    """The layers of SETTINGS with their weights: an observation in, the last layer's values out."""

    def __init__(self, weights: np.ndarray) -> None:
        self._layers = []
        start, side = 0, 84
        for layer in SETTINGS["layers"]:
            kernel = layer.get("kernel", 0)
            rows = layer["inputs"] * (kernel**2 or 1)
            end = start + rows * layer["outputs"]
            matrix = weights[start:end].reshape(rows, layer["outputs"])
            bias = weights[end : end + layer["outputs"]]
            start = end + layer["outputs"]
            patches = None
            if kernel:
                patches = Patches(side, kernel, layer["stride"], layer["inputs"])
                side = patches.side
            self._layers.append((patches, matrix, bias, layer["activation"]))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the values of the last layer."""
        with np.errstate(all="ignore"):
            for patches, matrix, bias, activation in self._layers:
                x = np.matmul(x.reshape(-1) if patches is None else patches(x), matrix)
                np.add(x, bias, out=x)
                if activation == "relu":
                    np.maximum(x, np.float32(0), out=x)
                elif activation == "tanh":
                    np.tanh(x, out=x)
                if patches is not None:
                    x = x.reshape(patches.side, patches.side, -1)
        return x


class Patches:
    """What a convolution with SAME padding sees at each place, as the rows of a matrix."""

    def __init__(self, side: int, kernel: int, stride: int, channels: int) -> None:
        self.side = -(-side // stride)
        total = max((self.side - 1) * stride + kernel - side, 0)
        before = total // 2  # the larger half of an odd padding lies after the image
        padded = np.zeros((side + total, side + total, channels), np.float32)
        self._inside = padded[before : before + side, before : before + side]
        row, column, channel = padded.strides
        self._windows = np.lib.stride_tricks.as_strided(
            padded,
            (self.side, self.side, kernel, kernel, channels),
            (row * stride, column * stride, row, column, channel),
        )

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return one row for each place of the output."""
        if x.dtype == np.uint8:
            np.divide(x, np.float32(255), out=self._inside)
        else:
            self._inside[:] = x
        return np.ascontiguousarray(self._windows).reshape(self.side**2, -1)


def largest(values: np.ndarray) -> int:
    """Return the index of the largest value; the lowest wins a tie, and NaN never wins."""
    return int(np.where(np.isnan(values), -np.inf, values).argmax())


# --- the game ----------------------------------------------------------------------------------------


def flat(space: Any, value: Any) -> np.ndarray:
    """Return an observation as one float32 vector: one-hot numbers, members in order, keys sorted."""
    from gymnasium import spaces

    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        return np.asarray(value).ravel().astype(np.float32)
    if isinstance(space, spaces.Discrete):
        return one_hot([int(value) - int(space.start)], [int(space.n)])
    if isinstance(space, spaces.MultiDiscrete):
        numbers = np.ravel(value) - space.start.ravel()
        return one_hot(numbers.tolist(), space.nvec.ravel().tolist())
    members = sorted(space.spaces.items()) if isinstance(space, spaces.Dict) else enumerate(space)
    return np.concatenate([flat(member, value[key]) for key, member in members])


def one_hot(numbers: list[int], sizes: list[int]) -> np.ndarray:
    """Return a block of zeros with a single one for each number."""
    found = np.zeros(sum(sizes), np.float32)
    begin = 0
    for number, size in zip(numbers, sizes, strict=True):
        if not 0 <= number < size:
            raise ValueError(f"expected a number from 0 to {size - 1}, got {number}")
        found[begin + int(number)] = 1
        begin += size
    return found


class World:
    """The environment, through Gymnasium."""

    def __init__(self, *, render: bool) -> None:
        import gymnasium

        wanted = SETTINGS["environment"]
        arguments = {name: json.loads(text) for name, text in wanted["kwargs"].items()}
        mode: dict[str, Any] = {"render_mode": "human"} if render else {}
        self._make: Any = lambda: gymnasium.make(
            wanted["id"], disable_env_checker=True, **mode, **arguments
        )
        self._env: Any = self._make()
        entry = self._env.spec.entry_point if self._env.spec else ""
        # Box2D remembers earlier episodes, so that only a new world keeps a seed's promise.
        self._remake = isinstance(entry, str) and entry.startswith("gymnasium.envs.box2d")
        self._fresh = True

    def episode(self, network: Network, seed: int) -> float:
        """Play one episode and return the sum of its rewards."""
        if self._remake and not self._fresh:
            self._env.close()
            self._env = self._make()
        self._fresh = False
        seen, _ = self._env.reset(seed=seed)
        space = self._env.observation_space
        total, steps, over = 0.0, 0, False
        while not over and steps < SETTINGS["environment"]["maxEpisodeSteps"]:
            values = network(flat(space, seen))
            seen, reward, terminated, truncated, _ = self._env.step(self._action(values))
            over = terminated or truncated
            total += float(reward)
            steps += 1
        return total

    def close(self) -> None:
        """Close the environment and its window."""
        self._env.close()

    def _action(self, values: np.ndarray) -> Any:
        from gymnasium import spaces

        space: Any = self._env.action_space
        if isinstance(space, spaces.Discrete):
            return space.start + largest(values)
        if isinstance(space, spaces.MultiDiscrete):
            blocks = np.split(values, np.cumsum(space.nvec.ravel()[:-1]))
            numbers = np.array([largest(block) for block in blocks])
            return (numbers.reshape(space.shape) + space.start).astype(space.dtype)
        low, high = (bound.ravel().astype(np.float32) for bound in (space.low, space.high))
        clipped = np.clip(np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf), low, high)
        whole = not np.issubdtype(space.dtype, np.floating)
        return (np.rint(clipped) if whole else clipped).reshape(space.shape).astype(space.dtype)


# --- the script --------------------------------------------------------------------------------------


def interval(returns: list[float]) -> list[float] | None:
    """Return the 95 % bootstrap interval of the mean; the same numbers every time."""
    if len(returns) < 2:
        return None
    count, generator, means = len(returns), np.random.default_rng(0), []
    block = max(1, min(4000, 1_000_000 // count))
    for start in range(0, 4000, block):
        chosen = generator.integers(0, count, (min(block, 4000 - start), count))
        means.append(np.mean(np.asarray(returns)[chosen], axis=1))
    return [float(bound) for bound in np.quantile(np.concatenate(means), (0.025, 0.975))]


def play(network: Network, seeds: Iterator[int], *, render: bool, say: bool) -> list[float | str]:
    """Play an episode for each seed; return what each gave, or in words why it has no return."""
    found: list[float | str] = []
    world: World | None = None
    for number, seed in enumerate(seeds):
        world = world or World(render=render)
        try:
            total = world.episode(network, seed)
        except Exception as exc:  # noqa: BLE001 - a game may raise anything; the next one is new
            world.close()
            world = None
            found.append(f"{type(exc).__name__}: {exc}")
        else:
            found.append(total if math.isfinite(total) else f"the rewards add up to {total}")
        if say:
            print(f"episode {number}: {_text(found[-1])}", flush=True)
    if world is not None:
        world.close()
    return found


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.10g}"


def report(found: list[float | str], *, as_json: bool) -> None:
    """Tell the mean of the episodes that have a return, and its 95 % interval."""
    returns = [each for each in found if not isinstance(each, str)]
    mean = math.fsum(returns) / len(returns) if returns else None
    bounds = interval(returns)
    if as_json:
        failures = [
            {"episode": number, "failure": each}
            for number, each in enumerate(found)
            if isinstance(each, str)
        ]
        values = [None if isinstance(each, str) else each for each in found]
        document = {"mean": mean, "ci95": bounds, "episodeReturns": values, "failures": failures}
        print(json.dumps(document))
    elif mean is not None:
        between = f", 95 % CI {_text(bounds[0])} to {_text(bounds[1])}" if bounds else ""
        print(f"mean {_text(mean)}{between} over {len(returns)} episodes")


def _whole(least: int, most: int) -> Any:
    def number(text: str) -> int:
        if not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected {least} to {most}, got {text}")
        return int(text)

    return number


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description="Play the model that lies beside this script.")
    # Not resolved: a cache may keep its files as links to somewhere else.
    beside = Path(__file__).absolute().parent / "model.safetensors"
    parser.add_argument("--model", type=Path, default=beside, help="the weights")
    parser.add_argument("--episodes", type=_whole(1, 1_000_000), help="default: 10, or the test's")
    parser.add_argument(
        "--seed", type=_whole(0, MASK), default=0, help="the episodes, as of kubevo evaluate --seed"
    )
    parser.add_argument("--final", action="store_true", help="the episodes of the final test")
    parser.add_argument("--render", action="store_true", help="show the game in a window")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser.parse_args()


def main() -> None:
    """Play as many episodes as asked for and tell their mean."""
    asked = arguments()
    seeds, count = episode_seeds(TEST, asked.seed), asked.episodes or 10
    if asked.final:
        if SETTINGS["seed"] is None:
            sys.exit("--final: this file does not know the search's seed; use --seed")
        seeds = episode_seeds(FINAL, SETTINGS["seed"], SETTINGS["repeat"])
        count = asked.episodes or SETTINGS["finalEpisodes"] or 10
    network = Network(load_weights(asked.model))
    found = play(network, islice(seeds, count), render=asked.render, say=not asked.json)
    report(found, as_json=asked.json)
    if any(isinstance(each, str) for each in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
