"""The images' programs at work: as nobody, on a read-only root, with /tmp alone to write to."""

import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from kubevo_core import messages, names
from kubevo_core.evaluation import Key
from kubevo_core.genome import Genome
from kubevo_core.messages import Context, Task
from kubevo_core.seeding import Purpose
from kubevo_runtime.broker import LocalBroker
from kubevo_runtime.bus import BusSettings, connect_coordinator

ROOT = Path(__file__).parents[2]
EXPERIMENT = "images-1a2b3c4d"
NEEDS = [
    ("operator", ("kubevo_operator",), 2, "KUBEVO_NATS_URL is missing"),
    ("operator", ("kubevo_api",), 2, "KUBEVO_DATA is missing"),
    ("evaluator", (), 1, "a worker needs KUBEVO_NATS_URL and KUBEVO_EXPERIMENT_ID"),
]


@pytest.mark.parametrize(("image", "words", "code", "message"), NEEDS)
def test_a_program_without_settings_says_which_it_needs(docker, image, words, code, message):
    done = docker.run(image, *words)

    assert done.returncode == code
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_an_image_runs_as_any_number_that_a_cluster_gives_it(docker):
    done = docker.run("operator", options=("--user", "1000680000:0"))

    assert "KUBEVO_NATS_URL is missing" in done.stderr


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Make a directory with one finished run, which everybody may read and write."""
    folder = tmp_path_factory.mktemp("images")
    command = [sys.executable, "-m", "kubevo_cli", "run", ROOT / "examples/cartpole.yaml"]
    command += ["--workers", "1", "--data", folder / "data"]
    command += [
        "--set",
        "spec.budget.maxGenerations=2",
        "--set",
        "spec.algorithm.geneticAlgorithm.populationSize=20",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    subprocess.run(["chmod", "-R", "a+rwX", folder / "data"], check=True)
    folder.chmod(0o755)
    return folder / "data"


def test_the_service_gives_the_page_a_parquet_file_and_an_onnx_model(docker, runs):
    program = (
        "from pathlib import Path\n"
        "from kubevo_api.serve import serve_directory\n"
        "serve_directory(Path('/data'), 0, lambda url: print(url, flush=True))"
    )
    options = ("--volume", f"{runs}:/data", "--entrypoint", "python")
    with docker.started("operator", "-c", program, options=options) as container:
        place, token = _told(docker, container, r"(http://\S+)/#token=(\S+)")

        def get(path):
            request = urllib.request.Request(place + path)
            request.add_header("Authorization", f"Bearer {token}")
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read()

        assert b"<html" in get("/")
        assert len(get("/static/plotly.min.js")) > 1_000_000
        name = json.loads(get("/api/v1/experiments"))["items"][0]["name"]
        experiment = f"/api/v1/namespaces/local/experiments/{name}"
        parquet = get(f"{experiment}/history?format=parquet")
        assert parquet[:4] == parquet[-4:] == b"PAR1"
        assert len(get(f"{experiment}/best/model.onnx")) > 500
        assert len(get(f"{experiment}/best/model.safetensors")) > 500


async def test_an_evaluator_does_a_task_and_ends_when_told_to(docker, tmp_path, capsys):
    async with _queue(tmp_path) as (broker, bus):
        began = time.monotonic()
        with docker.started("evaluator", options=_settings(broker)) as container:
            asked = {"id": "CartPole-v1"}, {"network": "mlp", "backend": "numpy"}
            result = await _played(docker, container, bus, *asked)
            seconds = time.monotonic() - began
            stopped = time.monotonic()
            await asyncio.to_thread(docker.call, "stop", "--time", "20", container)
            stopping = time.monotonic() - stopped
            state = json.loads(
                docker.call("inspect", "--format", "{{json .State}}", container).stdout
            )

    assert result.episode.episode_return > 0
    with capsys.disabled():
        print(f"\nan evaluator's first task: {seconds:.2f} s after docker run")  # noqa: T201
    assert state["ExitCode"] == 0
    assert stopping < 10


async def test_an_evaluator_plays_an_atari_game(docker, tmp_path):
    async with _queue(tmp_path) as (broker, bus):
        with docker.started("evaluator", options=_settings(broker)) as container:
            game = {"id": "ALE/Pong-v5", "maxEpisodeSteps": 50}
            asked = game, {"network": "dqn", "backend": "numpy"}
            result = await _played(docker, container, bus, *asked)

    assert result.episode.steps == 50


def test_an_evaluator_records_a_game(docker):
    program = """
from pathlib import Path
from kubevo_core import spec
from kubevo_evaluator.environments import make
from kubevo_evaluator.video import Recorder
for identifier in ("CartPole-v1", "LunarLander-v3", "ALE/Pong-v5"):
    wanted = spec.Environment.model_validate({"id": identifier})
    environment = make(wanted, render=True)
    target = Path("/tmp") / (identifier.replace("/", "-") + ".mp4")
    with Recorder(target, wanted, None) as recorder:
        environment.reset(1)
        for step in range(5):
            environment.step(0)
            recorder(environment, step, 0.0)
    environment.close()
    assert target.read_bytes()[4:8] == b"ftyp", identifier
"""
    docker.python("evaluator", program)


def test_an_evaluator_moves_a_mujoco_body(docker):
    program = """
from kubevo_core import spec
from kubevo_evaluator.environments import make
import numpy as np
environment = make(spec.Environment.model_validate({"id": "HalfCheetah-v5"}))
environment.reset(1)
print(environment.step(np.zeros(6, dtype=np.float32))[1])
"""
    float(docker.python("evaluator", program))


def test_the_broker_serves_from_a_volume_and_a_mounted_configuration(docker, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    store.chmod(0o777)
    tmp_path.chmod(0o755)
    (tmp_path / "nats.conf").write_text(
        'listen: "127.0.0.1:-1"\nhttp: "127.0.0.1:-1"\njetstream { store_dir: "/data" }\n'
    )
    (tmp_path / "nats.conf").chmod(0o644)
    options = ("--volume", f"{store}:/data", "--volume", f"{tmp_path}/nats.conf:/etc/nats.conf:ro")
    with docker.started("nats", "--config", "/etc/nats.conf", options=options) as container:
        (port,) = _told(docker, container, r"Starting http monitor on 127.0.0.1:(\d+)")
        _told(docker, container, "(Server is ready)")
        url = f"http://127.0.0.1:{port}/healthz?js-enabled-only=true"
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert json.loads(answer.read()) == {"status": "ok"}
        docker.call("stop", "--time", "20", container)
        state = json.loads(docker.call("inspect", "--format", "{{json .State}}", container).stdout)

    assert state["ExitCode"] in (0, 1)  # it ends with 1 on SIGTERM, after it has closed its store
    assert (store / "jetstream").is_dir()


def _told(docker, container, pattern):
    """Wait for words in a container's log and return their groups."""
    deadline = time.monotonic() + 30
    while True:
        logs = docker.call("logs", container)
        text = logs.stdout + logs.stderr
        if found := re.search(pattern, text):
            return found.groups()
        running = docker.call("inspect", "--format", "{{.State.Running}}", container).stdout
        assert running.strip() == "true", text
        assert time.monotonic() < deadline, text
        time.sleep(0.05)


def _settings(broker):
    values = {
        "KUBEVO_NATS_URL": broker.url,
        "KUBEVO_NATS_TOKEN": broker.token,
        "KUBEVO_EXPERIMENT_ID": EXPERIMENT,
        "KUBEVO_WORKER": "worker-in-an-image",
    }
    return tuple(part for name, value in values.items() for part in ("--env", f"{name}={value}"))


@asynccontextmanager
async def _queue(folder):
    """Start a broker on loopback; the value is it and a coordinator's end of a queue."""
    async with LocalBroker(folder / "broker", log=folder / "nats-server.log") as broker:
        settings = BusSettings(url=broker.url, experiment=EXPERIMENT, token=broker.token)
        async with connect_coordinator(settings) as bus:
            await bus.ensure()
            yield broker, bus


async def _played(docker, container, bus, environment, policy):
    """Return the result of one task, asked for as a search does: the evaluator describes it first."""
    asking = Context(environment, policy, 3600, None)
    await _pin(bus, asking)
    subject = names.describe_subject(asking.digest)
    assert await bus.publish_task(subject, messages.encode_describe_task(asking.digest))
    answer = messages.decode_describe_answer(await _answer(docker, container, bus, subject))
    described = answer.description
    context = replace(asking, description=described)
    await _pin(bus, context)
    genome = Genome(described.network, 7)
    key = Key(0, 0, Purpose.POPULATION, 0, genome.digest, 0)
    task = Task(key, 11, described.network, genome.init_seed, None, context.digest)
    episode = names.episode_subject(key)
    assert await bus.publish_task(episode, messages.encode_task(task))
    return messages.decode_result(await _answer(docker, container, bus, episode))


async def _pin(bus, context):
    await bus.put_blob(context.digest, context.encode())
    await bus.put_blob("context", context.digest.encode())


async def _answer(docker, container, bus, subject):
    deadline = time.monotonic() + 60
    while (body := await bus.result(subject)) is None:
        if time.monotonic() > deadline:
            logs = docker.call("logs", container)
            raise AssertionError(f"no result: {logs.stdout}{logs.stderr}")
        await asyncio.sleep(0.01)
    return body
