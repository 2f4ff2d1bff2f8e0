"""Downloads: the files of a genome, parts of them, and that they are made once."""

import hashlib
import json
import threading

import pytest
from api_parts import EXPERIMENTS
from safetensors.numpy import load

from kubevo_core import checkpoint, decode

FILES = ["genome.json", "model.safetensors", "model.onnx", "policy.py", "README.md"]


def best_of(run, repeat=0):
    return checkpoint.decode(run.repeat(repeat).latest().payload).finished.best


@pytest.fixture
def fetch(client):
    def get(path, **headers):
        return client.get(f"{EXPERIMENTS}/{path}", headers=headers)

    return get


def test_the_best_is_shown_with_its_genome(make_run, get):
    run = make_run()
    best, found = best_of(run), get("test/best")
    assert (found["digest"], found["genome"]) == (best.genome.digest, best.genome.text)
    assert found["fitness"] == best.mean
    assert found["parameters"] == 4 * 16 + 16 + 16 * 2 + 2
    assert found["finalTest"]["episodes"] == 3


def test_a_model_is_the_decoded_genome_as_the_command_line_writes_it(make_run, fetch, tmp_path):
    from kubevo_cli.__main__ import main

    run = make_run()
    answer = fetch("test/best/model.safetensors")
    assert answer.status_code == 200
    assert "attachment" in answer.headers["content-disposition"]
    tensors = load(answer.content)
    theta = decode.parameters(best_of(run).genome)
    assert sum(tensor.size for tensor in tensors.values()) == theta.size
    assert main(["export", str(run.path), "-o", str(tmp_path / "x.safetensors")]) == 0
    assert (tmp_path / "x.safetensors").read_bytes() == answer.content


@pytest.mark.parametrize("file", FILES)
def test_every_file_is_served_whole_in_parts_and_not_twice(make_run, fetch, file):
    make_run()
    whole = fetch(f"test/best/{file}")
    assert whole.status_code == 200, whole.text
    assert whole.headers["etag"] == f'"{hashlib.sha256(whole.content).hexdigest()}"'
    part = fetch(f"test/best/{file}", Range="bytes=10-29")
    assert (part.status_code, part.content) == (206, whole.content[10:30])
    assert fetch(f"test/best/{file}", **{"If-None-Match": whole.headers["etag"]}).status_code == 304
    beyond = fetch(f"test/best/{file}", Range=f"bytes={len(whole.content)}-")
    assert beyond.status_code == 416


def test_the_elite_and_any_individual_can_be_had(make_run, fetch):
    run = make_run()
    done = checkpoint.decode(run.repeat(0).load(1)).finished
    found = json.loads(fetch("test/generations/1/individuals/2/genome.json").content)
    assert found["digest"] == done.population[2].genome.digest
    elite = json.loads(fetch("test/elite/genome.json").content)
    newest = checkpoint.decode(run.repeat(0).latest().payload).finished
    assert elite["digest"] == newest.elite.genome.digest


@pytest.mark.parametrize("path", ["best/model.pt", "best/..%2fgenome.json", "generations/0/individuals/99/genome.json", "generations/9/individuals/0/genome.json"])  # fmt: skip
def test_what_is_no_file_is_not_served(make_run, fetch, path):
    make_run()
    assert fetch(f"test/{path}").status_code in (404, 422)


def test_many_who_ask_at_once_wait_for_one_export(make_run, client, monkeypatch):
    from kubevo_api import exports
    from kubevo_api.exports import weights

    make_run()
    made = []

    def count(model):
        made.append(model)
        return weights.safetensors_bytes(model)

    format_ = exports.Format("application/vnd.safetensors", count)
    monkeypatch.setitem(exports.FORMATS, "model.safetensors", format_)
    answers = []

    def ask():
        answers.append(client.get(f"{EXPERIMENTS}/test/best/model.safetensors").content)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(set(answers)) == 1


def test_old_exports_make_room(make_run, get, client, settings):
    make_run(budget={"maxGenerations": 4})
    context = client.app.state.context
    context.exports._most_bytes = 3000
    for generation in range(4):
        for slot in range(6):
            path = f"{EXPERIMENTS}/test/generations/{generation}/individuals/{slot}"
            assert client.get(f"{path}/model.safetensors").status_code == 200
    held = [file.stat().st_size for file in settings.api_cache.iterdir()]
    assert sum(held) <= 3000 + max(held)
    # What was dropped is made again.
    assert client.get(f"{EXPERIMENTS}/test/generations/0/individuals/0/genome.json").is_success


def test_a_video_is_served_in_parts_and_one_that_is_not_there_is_not(make_run, fetch, get):
    run = make_run()
    assert fetch("test/best/video.mp4").status_code == 404
    folder = run.path / "repeat-0/videos"
    folder.mkdir()
    (folder / "gen-0000001.mp4").write_bytes(bytes(range(256)))
    (video,) = get("test/videos")["items"]
    assert (video["generation"], video["bytes"]) == (1, 256)
    answer = fetch(video["url"].removeprefix(f"{EXPERIMENTS}/"), Range="bytes=1-2")
    assert (answer.status_code, answer.content) == (206, b"\x01\x02")
    assert answer.headers["content-type"] == "video/mp4"
    assert fetch("test/best/video.mp4").status_code == 200
    assert fetch("test/generations/2/video.mp4").status_code == 404
