"""``history``, ``best``, ``export`` and ``plot`` on real run directories."""

import csv
import hashlib
import io
import json
import struct

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from kubevo_cli.plot import _carried, _settings
from kubevo_core import decode, genome
from kubevo_core.networks import network
from kubevo_runtime.intervals import mean_interval, median_band

# ---- history


def test_history_shows_one_line_a_generation(kubevo, make_run):
    run = make_run()
    done = kubevo("history", run.path)
    lines = done.out.splitlines()
    assert lines[0].split() == [
        "generation",
        "max",
        "mean",
        "median",
        "elite",
        "best",
        "frames",
        "seconds",
    ]
    assert [line.split()[0] for line in lines[1:]] == ["0", "1", "2"]


def test_history_in_json_is_the_stored_rows(kubevo, make_run):
    run = make_run()
    done = kubevo("history", "data", "--output", "json")
    assert json.loads(done.out) == run.repeat(0).history()


def test_history_in_csv_has_the_same_numbers(kubevo, make_run):
    rows = make_run(fail_every=5).repeat(0).history()
    found = list(csv.DictReader(io.StringIO(kubevo("history", "data", "--output", "csv").out)))
    assert [float(row["fitnessMean"]) for row in found] == [row["fitness"]["mean"] for row in rows]
    assert [row["generationDigest"] for row in found] == [row["generationDigest"] for row in rows]


def test_failures_get_a_column_where_there_are_some(kubevo, make_run):
    make_run(fail_every=5)
    assert kubevo("history", "data").out.splitlines()[0].split()[-1] == "failed"


def best_mean(run, repeat):
    return run.repeat(repeat).history()[-1]["best"]["mean"]


def test_the_repeat_with_the_highest_best_is_shown_unless_one_is_named(kubevo, make_run):
    run = make_run(law="noise", repeats=4)
    chosen = max(range(4), key=lambda repeat: (best_mean(run, repeat), -repeat))
    found = json.loads(kubevo("history", "data", "--output", "json").out)
    assert {row["repeat"] for row in found} == {chosen}
    assert json.loads(kubevo("best", "data", "--output", "json").out)["repeat"] == chosen
    other = (chosen + 1) % 4
    found = json.loads(kubevo("best", "data", "--repeat", other, "--output", "json").out)
    assert (found["repeat"], found["fitness"]) == (other, best_mean(run, other))


# ---- best


def test_best_tells_score_genome_and_final_test(kubevo, make_run):
    run = make_run()
    found = json.loads(kubevo("best", run.path, "--output", "json").out)
    row, test = run.repeat(0).history()[-1], run.repeat(0).tests()[-1]
    assert found["fitness"] == row["best"]["mean"]
    assert found["digest"] == row["best"]["genome"] == genome.parse(found["genome"]).digest
    assert found["finalTest"]["mean"] == test["mean"]
    low, high = found["finalTest"]["ci95"]
    assert low <= test["mean"] <= high
    text = kubevo("best", run.path)
    assert found["genome"] in text.out
    assert "95 % CI" in text.out
    assert "kubevo evaluate" in text.err


def test_best_genome_prints_nothing_else(kubevo, make_run):
    make_run()
    done = kubevo("best", "data", "--genome")
    assert genome.parse(done.out).text + "\n" == done.out
    assert done.err == ""


def test_a_failed_final_test_is_told_as_such(kubevo, make_run):
    make_run(law="noise", fail_every=3)
    found = json.loads(kubevo("best", "data", "--output", "json").out)
    assert found["finalTest"]["mean"] is None
    assert "not all of 3" in kubevo("best", "data").out


def test_an_older_checkpoint_is_used_when_the_newest_is_corrupt(kubevo, make_run):
    run = make_run()
    newest = run.path / "repeat-0/generations/gen-0000002.ck"
    content = bytearray(newest.read_bytes())
    content[-40] ^= 1
    newest.write_bytes(content)
    done = kubevo("best", "data", "--output", "json")
    assert json.loads(done.out)["fitness"] == run.repeat(0).history()[1]["best"]["mean"]
    assert "skipped a checkpoint" in done.err


# ---- export


def flat(path):
    content = path.read_bytes()
    (header,) = struct.unpack("<Q", content[:8])
    return content[8 + header :]


@pytest.mark.parametrize("identifier", ["mlp-4-16-2", "mlp-3-2", "dqn-4"])
def test_exported_weights_are_the_parameter_vector_in_layout_order(kubevo, tmp_path, identifier):
    text = f"kubevo-1:{identifier}:7:11*0.5,12*0.5"
    done = kubevo("export", text, "-o", "w.safetensors", "--output", "json")
    told, theta = json.loads(done.out), decode.parameters(genome.parse(text))
    assert told["sha256"] == decode.sha256(theta)
    data = flat(tmp_path / "w.safetensors")
    assert hashlib.sha256(data).hexdigest() == told["sha256"]
    tensors = load_file(tmp_path / "w.safetensors")
    parts = [tensors[each.name] for each in network(identifier).layout]
    assert [part.shape for part in parts] == [each.shape for each in network(identifier).layout]
    assert np.array_equal(np.concatenate([part.ravel() for part in parts]), theta)


def test_exported_weights_carry_genome_and_environment(kubevo, make_run, tmp_path):
    make_run()
    kubevo("export", "data", "-o", "w.safetensors")
    with safe_open(tmp_path / "w.safetensors", "numpy") as file:
        metadata = file.metadata()
    text = kubevo("best", "data", "--genome").out.strip()
    assert genome.from_json(metadata["genome"]).text == text
    assert json.loads(metadata["environment"])["id"] == "CartPole-v1"
    assert metadata["dialect"] == "kubevo-1"


def test_an_exported_json_is_a_genome_again(kubevo, make_run):
    make_run()
    kubevo("export", "data", "-o", "g.json")
    kubevo("export", "g.json", "-o", "w.safetensors")
    first = kubevo("export", "data", "-o", "again.safetensors", "--output", "json")
    second = kubevo("export", "g.json", "-o", "w.safetensors", "--force", "--output", "json")
    assert json.loads(first.out)["sha256"] == json.loads(second.out)["sha256"]


def test_what_a_bfloat16_search_found_is_exported_rounded(kubevo, make_run):
    make_run(policy={"network": "mlp", "hiddenLayers": [16], "precision": "bfloat16"})
    found = json.loads(kubevo("best", "data", "--output", "json").out)
    assert found["precision"] == "bfloat16"
    expected = decode.sha256(decode.weights(genome.parse(found["genome"]), "bfloat16"))
    for source, target in (("data", "g.json"), ("g.json", "w.safetensors"), ("data", "w.onnx")):
        told = json.loads(kubevo("export", source, "-o", target, "--output", "json").out)
        assert (told["sha256"], told["precision"]) == (expected, "bfloat16")


def test_a_file_that_exists_is_kept_without_force(kubevo, tmp_path):
    target = tmp_path / "g.json"
    target.write_text("mine")
    done = kubevo("export", "kubevo-1:mlp-4-2:1", "-o", target)
    assert (done.code, target.read_text()) == (2, "mine")
    assert "--force overwrites it" in done.err
    assert kubevo("export", "kubevo-1:mlp-4-2:1", "-o", target, "--force").code == 0
    assert genome.from_json(target.read_text()).text == "kubevo-1:mlp-4-2:1"
    assert list(tmp_path.iterdir()) == [target]


# ---- intervals


def test_an_interval_is_the_same_every_time_and_holds_the_mean():
    values = [float(v) for v in np.random.default_rng(5).normal(10, 2, 40)]
    low, high = mean_interval(values)
    assert (low, high) == mean_interval(list(values))
    assert low < np.mean(values) < high
    # The normal approximation is close for 40 values.
    half = 1.96 * np.std(values) / np.sqrt(len(values))
    assert high - low == pytest.approx(2 * half, rel=0.1)


def test_equal_returns_have_an_interval_of_one_point_and_a_single_one_has_none():
    assert mean_interval([3.0, 3.0, 3.0]) == (3.0, 3.0)
    assert mean_interval([3.0]) is None


def test_a_band_lies_around_the_median_at_each_point():
    table = np.array([[0.0, 1.0], [1.0, 2.0], [5.0, 3.0]])
    middle, low, high = median_band(table)
    assert middle.tolist() == [1.0, 2.0]
    assert (low <= middle).all()
    assert (middle <= high).all()
    assert (low >= table.min(axis=0)).all()


# ---- plot


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
@pytest.mark.parametrize("x", ["generation", "frames"])
def test_a_curve_is_drawn_in_each_format(kubevo, make_run, tmp_path, suffix, x):
    make_run(repeats=2)
    target = tmp_path / f"curve.{suffix}"
    done = kubevo("plot", "data", "-o", target, "--x", x, "--output", "json")
    assert json.loads(done.out) == {"file": str(target), "searches": 2}
    magic = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix]
    assert target.read_bytes().startswith(magic)
    if suffix == "png":
        assert struct.unpack(">II", target.read_bytes()[16:24]) == (1200, 750)


def test_runs_that_differ_in_the_seed_alone_are_one_curve(kubevo, make_run, tmp_path):
    first, second = make_run("a"), make_run("b", seed=2)
    other = make_run("c", policy={"network": "mlp", "hiddenLayers": [8]})
    from kubevo_cli.sources import experiment_of

    keys = [_settings(experiment_of(run)) for run in (first, second, other)]
    assert keys[0] == keys[1] != keys[2]
    done = kubevo("plot", "a", "b", "c", "-o", "curve.svg")
    assert done.out == "curve.svg: 3 searches\n"


def test_a_run_that_is_named_twice_counts_once(kubevo, make_run):
    run = make_run()
    assert kubevo("plot", "data", run.path, "-o", "curve.svg").out == "curve.svg: 1 search\n"


def test_a_stopped_search_keeps_its_last_value():
    history = [{"generation": 0, "best": {"mean": 1.0}}, {"generation": 2, "best": {"mean": 4.0}}]
    found = _carried(history, "best", "generation", np.array([0.0, 1.0, 2.0, 9.0]))
    assert found.tolist() == [1.0, 1.0, 4.0, 4.0]


def test_a_metric_is_missing_before_its_first_value():
    history = [{"generation": 0, "best": None}, {"generation": 1, "best": {"mean": 4.0}}]
    found = _carried(history, "best", "generation", np.array([0.0, 1.0]))
    assert np.isnan(found[0])
    assert found[1] == 4.0
