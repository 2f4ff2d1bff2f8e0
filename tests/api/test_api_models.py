"""Downloads: the files of a genome, parts of them, and that they are made once."""

import hashlib
import json
import threading

import pytest
from api_parts import EXPERIMENTS
from safetensors.numpy import load

from kubevo_api.downloads import Exports
from kubevo_api.metrics import Metrics
from kubevo_core import checkpoint, decode
from kubevo_core.errors import UserError

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
    assert found["precision"] == "float32"
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


def test_a_model_of_a_bfloat16_search_is_rounded(make_run, fetch, get, tmp_path):
    from kubevo_cli.__main__ import main

    run = make_run(policy={"network": "mlp", "hiddenLayers": [16], "precision": "bfloat16"})
    assert get("test/best")["precision"] == get("test/elite")["precision"] == "bfloat16"
    for path in ("best", "elite", "generations/1/individuals/2"):
        assert fetch(f"test/{path}/genome.json").json()["precision"] == "bfloat16"
    content = fetch("test/best/model.safetensors").content
    weights = decode.weights(best_of(run).genome, "bfloat16")
    assert content.endswith(weights.tobytes())
    assert main(["export", str(run.path), "-o", str(tmp_path / "x.safetensors")]) == 0
    assert (tmp_path / "x.safetensors").read_bytes() == content


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
    assert beyond.headers["content-type"] == "application/problem+json"
    assert beyond.headers["content-range"] == f"bytes */{len(whole.content)}"


@pytest.mark.parametrize(
    "path", ["test", "test/history", *(f"test/best/{file}" for file in FILES), "test/spec.yaml"]
)
def test_what_can_be_got_can_be_asked_about(make_run, client, path):
    make_run()
    whole, head = (ask(f"{EXPERIMENTS}/{path}") for ask in (client.get, client.head))
    assert (head.status_code, head.content) == (200, b"")
    for name in ("etag", "content-length", "content-type"):
        assert head.headers[name] == whole.headers[name]


def test_the_best_that_is_another_one_by_now_is_refused(make_run, client, fetch):
    run = make_run()
    path = f"{EXPERIMENTS}/test/best/model.safetensors"
    digest = best_of(run).genome.digest
    assert client.get(path, params={"digest": digest}).status_code == 200
    refused = client.get(path, params={"digest": "f" * 64})
    assert refused.status_code == 409
    assert digest[:16] in refused.json()["detail"]


def test_the_weights_say_how_good_they_are(make_run, fetch, get):
    make_run()
    content = fetch("test/best/model.safetensors").content
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    scores = json.loads(header["__metadata__"]["scores"])
    best = get("test/best")
    assert scores["fitness"] == best["fitness"]
    assert scores["finalTest"]["mean"] == best["finalTest"]["mean"]


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


def test_old_exports_make_room(make_run, get, client, settings, monkeypatch):
    make_run(budget={"maxGenerations": 4})
    context = client.app.state.context
    context.exports._most_bytes = 3000
    monkeypatch.setattr("kubevo_api.downloads.GRACE_SECONDS", 0)
    for generation in range(4):
        for slot in range(6):
            path = f"{EXPERIMENTS}/test/generations/{generation}/individuals/{slot}"
            assert client.get(f"{path}/model.safetensors").status_code == 200
    held = [file.stat().st_size for file in settings.api_cache.glob("*/*")]
    assert sum(held) <= 3000 + max(held)
    assert len(context.exports._known) == len(held)
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


def test_the_cache_removes_what_is_its_own_alone(settings):
    theirs = settings.api_cache / "runs"
    theirs.mkdir(parents=True)
    left = settings.api_cache / "kubevo-exports-of-one-that-was-killed"
    left.mkdir()
    first, second = (Exports(settings.api_cache, 10**6, 1, Metrics()) for _ in range(2))
    first.open()
    second.open()  # does not take the first one's folder
    assert len(list(settings.api_cache.iterdir())) == 3
    first.close()
    second.close()
    assert list(settings.api_cache.iterdir()) == [theirs]


def test_a_cache_that_is_a_link_to_a_volume_is_used(settings, tmp_path):
    (tmp_path / "volume").mkdir()
    settings.api_cache.symlink_to(tmp_path / "volume")
    exports = Exports(settings.api_cache, 10**6, 1, Metrics())
    exports.open()
    exports.close()
    assert (tmp_path / "volume").is_dir()


def test_a_cache_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="KUBEVO_API_CACHE"):
        Exports(tmp_path / "file", 10**6, 1, Metrics()).open()
