"""``evaluate`` and ``play`` in real environments."""

import json
import os
import subprocess
import sys

import imageio_ffmpeg
import numpy as np
import pytest

from kubevo_cli.playing import episode_seeds
from kubevo_core import genome
from kubevo_core.seeding import Purpose, derive
from kubevo_evaluator.policies import resolve
from kubevo_evaluator.video import even_and_large

GENOME = "kubevo-1:mlp-4-16-2:7"


def returns(done):
    assert done.code == 0, done.err
    return json.loads(done.out)["episodeReturns"]


def test_the_same_evaluation_gives_the_same_returns_and_a_shorter_one_their_beginning(kubevo):
    arguments = ("evaluate", GENOME, "--env", "CartPole-v1", "--seed", 5, "--output", "json")
    first = returns(kubevo(*arguments, "--episodes", 8))
    assert len(set(first)) > 1
    assert returns(kubevo(*arguments, "--episodes", 8)) == first
    assert returns(kubevo(*arguments, "--episodes", 3)) == first[:3]


def test_an_episodes_seed_depends_on_the_seed_and_its_number_alone():
    assert episode_seeds(5, 3) == [derive(5, Purpose.TEST, number) for number in range(3)]
    assert episode_seeds(5, 2) == episode_seeds(5, 3)[:2]


def test_another_seed_gives_other_episodes(kubevo):
    found = [
        returns(kubevo("evaluate", GENOME, "--env", "CartPole-v1", "--seed", s, "--output", "json"))
        for s in (1, 2)
    ]
    assert found[0] != found[1]


def test_an_evaluation_tells_its_statistics(kubevo):
    done = kubevo("evaluate", GENOME, "--env", "CartPole-v1", "--episodes", 6, "--output", "json")
    found = json.loads(done.out)
    values = found["episodeReturns"]
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["median"] == np.median(values)
    assert found["std"] == pytest.approx(np.std(values, ddof=1))
    assert (found["min"], found["max"]) == (min(values), max(values))
    assert found["ci95"][0] <= found["mean"] <= found["ci95"][1]
    assert (found["environment"]["id"], found["seed"], found["backend"]) == (
        "CartPole-v1",
        0,
        resolve("auto"),
    )
    text = kubevo("evaluate", GENOME, "--env", "CartPole-v1", "--episodes", 6).out
    assert "95 % CI" in text


@pytest.mark.parametrize("form", ["text", "json", "stdin", "argument"])
def test_a_genome_may_be_given_in_any_form(kubevo, tmp_path, form):
    path = tmp_path / "genome.txt"
    path.write_text(GENOME + "\n")
    if form == "json":
        kubevo("export", GENOME, "-o", "genome.json")
        path = tmp_path / "genome.json"
    source = {"argument": GENOME, "stdin": "-"}.get(form, path)
    expected = returns(kubevo("evaluate", GENOME, "--env", "CartPole-v1", "--output", "json"))
    done = kubevo("evaluate", source, "--env", "CartPole-v1", "--output", "json", stdin=GENOME)
    assert returns(done) == expected


# Its episodes are others once its weights are rounded.
ROUNDED = "kubevo-1:mlp-4-16-2:25"
CART = ("--env", "CartPole-v1", "--output", "json")


def test_a_genome_is_played_in_the_precision_that_is_asked_for(kubevo):
    plain, wanted, rounded = (
        kubevo("evaluate", ROUNDED, *CART, *more)
        for more in ((), ("--precision", "float32"), ("--precision", "bfloat16"))
    )
    assert json.loads(plain.out) == json.loads(wanted.out)
    assert json.loads(plain.out)["precision"] == "float32"
    assert json.loads(rounded.out)["precision"] == "bfloat16"
    assert returns(rounded) != returns(plain)
    first = json.loads(kubevo("play", ROUNDED, *CART, "--precision", "bfloat16").out)
    assert first["episodeReturn"] == returns(rounded)[0]


def test_a_recording_is_played_in_the_same_precision(kubevo):
    steps = {}
    for precision in ("float32", "bfloat16"):
        words = ("play", ROUNDED, *CART, "--seed", 7, "--precision", precision)
        played = json.loads(kubevo(*words).out)
        filmed = json.loads(kubevo(*words, "--record", f"{precision}.mp4").out)
        assert filmed["steps"] == played["steps"]
        steps[precision] = filmed["steps"]
    assert steps["float32"] != steps["bfloat16"]


def test_a_json_that_says_its_precision_is_played_in_it(kubevo, tmp_path):
    document = {**genome.parse(ROUNDED).to_json(), "precision": "bfloat16"}
    (tmp_path / "genome.json").write_text(json.dumps(document))
    rounded = returns(kubevo("evaluate", ROUNDED, *CART, "--precision", "bfloat16"))
    assert returns(kubevo("evaluate", "genome.json", *CART)) == rounded
    assert returns(kubevo("evaluate", json.dumps(document), *CART)) == rounded
    (tmp_path / "genome.json").write_text(json.dumps({**document, "precision": "float8"}))
    refused = kubevo("evaluate", "genome.json", *CART)
    assert refused.code == 2
    assert "genome.json: precision: expected float32 or bfloat16, got 'float8'" in refused.err


def test_a_runs_own_environment_is_the_default(kubevo, make_run):
    make_run(environment={"id": "CartPole-v1", "maxEpisodeSteps": 4})
    found = json.loads(kubevo("evaluate", "data", "--episodes", 2, "--output", "json").out)
    assert found["episodeReturns"] == [4.0, 4.0]
    changed = kubevo(
        "evaluate", "data", "--episodes", 2, "--output", "json",
        "--set", "spec.environment.maxEpisodeSteps=3",
    )  # fmt: skip
    assert returns(changed) == [3.0, 3.0]


def test_a_run_can_be_played_in_another_environment(kubevo, make_run):
    make_run()
    done = kubevo("play", "data", "--env", "Acrobot-v1")
    assert done.code == 2
    assert "play it in the environment that it was evolved in" in done.err


def test_play_gives_the_first_episode_of_an_evaluation(kubevo):
    first = returns(
        kubevo("evaluate", GENOME, "--env", "CartPole-v1", "--episodes", 1, "--output", "json")
    )
    found = json.loads(kubevo("play", GENOME, "--env", "CartPole-v1", "--output", "json").out)
    assert [found["episodeReturn"]] == first


def decoded(path, width, height):
    """Return (what ffmpeg tells of the file, its pictures)."""
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    form = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run([ffmpeg, "-i", str(path), *form], check=True, capture_output=True)
    pictures = np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)
    return done.stderr.decode().partition("Output")[0], pictures


@pytest.mark.parametrize(
    ("genome", "environment", "fps", "size"),
    [
        (GENOME, "CartPole-v1", None, (600, 400)),
        ("kubevo-1:dqn-18:7", "ALE/Frostbite-v5", 15, (320, 420)),
    ],
)
def test_a_recording_holds_one_picture_a_step_at_the_games_speed(
    kubevo, tmp_path, genome, environment, fps, size
):
    atari = ("--set", "spec.environment.atari.fullActionSpace=true") if fps else ()
    done = kubevo(
        "play", genome, "--env", environment, "--record", "best.mp4", "--output", "json",
        "--set", "spec.environment.maxEpisodeSteps=20", *atari,
    )  # fmt: skip
    found = json.loads(done.out)
    told, pictures = decoded(tmp_path / "best.mp4", *size)
    assert found["pictures"] == found["steps"] + 1 == len(pictures)
    assert f"{size[0]}x{size[1]}" in told
    assert f"{found['fps']:g} fps" in told
    assert "h264" in told
    assert "yuv420p" in told
    assert fps in {None, found["fps"]}
    assert len({picture.tobytes() for picture in pictures}) > 5
    assert [path.name for path in tmp_path.iterdir()] == ["best.mp4"]


def test_fps_is_for_a_recording(kubevo):
    done = kubevo("play", GENOME, "--env", "CartPole-v1", "--fps", 10)
    assert (done.code, "--record" in done.err) == (2, True)


@pytest.mark.parametrize("shape", [(210, 160), (399, 401), (1, 1), (400, 600)])
def test_a_picture_is_enlarged_by_whole_pixels_to_even_sides(shape):
    picture = np.arange(shape[0] * shape[1] * 3, dtype=np.uint64).astype(np.uint8)
    found = even_and_large(picture.reshape(*shape, 3))
    assert found.shape[0] % 2 == found.shape[1] % 2 == 0
    assert found.shape[0] >= 400


# An environment of this test: it fails in its third step.
FAILING = """
import gymnasium, numpy as np
class Failing(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.zeros(4, np.float32), {}
    def step(self, action):
        self.steps += 1
        if self.steps == 3:
            raise RuntimeError("the pole broke")
        return np.zeros(4, np.float32), 1.0, False, False, {}
gymnasium.register("CliFailing-v0", entry_point=Failing)
"""


def test_a_failed_episode_is_told_and_gives_exit_code_1(kubevo, tmp_path, monkeypatch):
    (tmp_path / "cli_failing.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    done = kubevo(
        "evaluate",
        GENOME,
        "--env",
        "cli_failing:CliFailing-v0",
        "--episodes",
        2,
        "--output",
        "json",
    )
    found = json.loads(done.out)
    assert done.code == 1
    assert (found["mean"], found["episodeReturns"]) == (None, [None, None])
    assert "the pole broke" in found["failures"][0]["failure"]
    assert "episode 1 failed" in done.err
    assert kubevo("evaluate", GENOME, "--env", "cli_failing:CliFailing-v0").code == 1


def test_an_environment_without_pictures_is_refused_for_a_recording(kubevo, tmp_path, monkeypatch):
    (tmp_path / "cli_blind.py").write_text(FAILING.replace("CliFailing", "CliBlind"))
    monkeypatch.syspath_prepend(tmp_path)
    done = kubevo("play", GENOME, "--env", "cli_blind:CliBlind-v0", "--record", "best.mp4")
    assert (done.code, done.out) == (2, "")
    assert "cli_blind:CliBlind-v0" in done.err
    assert not list(tmp_path.glob("*.mp4"))


def test_log_lines_do_not_mix_with_the_data(tmp_path):
    closing = "    def close(self):\n        raise RuntimeError('stuck')\n"
    source = FAILING.replace("gymnasium.register", closing + "gymnasium.register")
    (tmp_path / "cli_stuck.py").write_text(source.replace("CliFailing", "CliStuck"))
    command = ["evaluate", GENOME, "--env", "cli_stuck:CliStuck-v0", "--output", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "kubevo_cli", *command],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert json.loads(done.stdout)["episodes"] == 30
    assert "environment_close_failed" in done.stderr
