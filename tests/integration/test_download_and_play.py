"""From a finished search to its policy, as a stranger does it: fetch, verify, play."""

import hashlib
import json
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kubevo_core import decode, genome

EPISODES = 100
GAMES = {
    "CartPole": (
        {"id": "CartPole-v1", "maxEpisodeSteps": 200},
        {"network": "mlp", "hiddenLayers": [8]},
    ),
    "LunarLander": (
        {"id": "LunarLander-v3", "maxEpisodeSteps": 100},
        {"network": "mlp", "hiddenLayers": [8]},
    ),
    "Pong": (
        {
            "id": "ALE/Pong-v5",
            "maxEpisodeSteps": 30,
            "atari": {"stickyActionProbability": "0.25"},
        },
        {"network": "dqn"},
    ),
}


@contextmanager
def served(data: Path) -> Iterator[Callable[[str], bytes]]:
    """Serve a directory, and give what fetches a path of its one Experiment."""
    command = [sys.executable, "-m", "kubevo_cli", "serve", str(data), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    url, _, token = process.stdout.readline().strip().partition("/#token=")

    def fetch(path: str) -> bytes:
        request = urllib.request.Request(
            f"{url}/api/v1/namespaces/local/experiments/same{path}",
            headers={"Authorization": f"Bearer {token}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bytes(answer.read())

    try:
        yield fetch
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


@pytest.mark.parametrize("game", GAMES)
def test_a_stranger_fetches_verifies_and_plays_the_policy(
    new_search: Callable[..., Any], experiment: Callable[..., dict], tmp_path: Path, game: str
) -> None:
    environment, policy = GAMES[game]
    budget = {"maxGenerations": 2}
    search = new_search(
        experiment(environment, policy, budget=budget, ga={"testEpisodes": EPISODES}), 1
    )
    search.start()
    search.finish()
    with served(search.folder / "data") as fetch:
        shown, best = json.loads(fetch("")), json.loads(fetch("/best"))
        for name in ("model.safetensors", "policy.py"):
            (tmp_path / name).write_bytes(fetch(f"/best/{name}"))
    content = (tmp_path / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    theta = decode.parameters(genome.parse(best["genome"]))
    assert hashlib.sha256(content[8 + length :]).hexdigest() == decode.sha256(theta)

    command = [sys.executable, "-I", "policy.py", "--json"]
    done = subprocess.run(
        [*command, "--final"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    played = json.loads(done.stdout)
    rows = [json.loads(line) for line in _tests(search).read_text().splitlines()]
    final = next(row for row in rows if row["purpose"] == "final")
    assert played["episodeReturns"] == final["episodeReturns"]
    assert len(played["episodeReturns"]) == EPISODES
    assert played["mean"] == pytest.approx(shown["finalTest"]["mean"])
    assert played["ci95"] == pytest.approx(shown["finalTest"]["ci95"])


def _tests(search: Any) -> Path:
    found: Path = search.directory / "repeat-0/tests.jsonl"
    return found
