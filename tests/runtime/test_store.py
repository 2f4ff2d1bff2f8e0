"""The run's directory: what was saved is read back, damage is named, the rest stays usable."""

import json

import pytest

from kubevo_core import spec
from kubevo_core.container import Header, seal
from kubevo_core.errors import (
    CheckpointCorrupt,
    CheckpointVersionError,
    Fenced,
    RunMismatch,
    RunNotFound,
    StoreError,
    StoreFull,
)
from kubevo_runtime.store import create_run, find_run, find_runs, open_run

UID = "0a1b2c3d-0000-4000-8000-000000000001"
OTHER = "ffffffff-0000-4000-8000-000000000002"
EXPERIMENT = {"kind": "Experiment", "spec": {"seed": 7, "algorithm": {"mutationPower": "0.002"}}}
SCORES = 48


@pytest.fixture
def run(tmp_path):
    run = create_run(tmp_path, "local", "cart", UID, EXPERIMENT)
    run.claim()
    return run


@pytest.fixture
def repeat(run):
    return run.repeat(0)


def payload(generation):
    return f"generation {generation} ".encode() * 20


def sealed(generation, *, uid=UID, repeat=0):
    return seal(Header(uid, repeat, generation), payload(generation))


def row(generation):
    return {"generation": generation, "frames": 10 * generation, "fitness": {"max": 0.1 + 0.2}}


def scores(generation):
    return bytes([generation % 251]) * SCORES


def row_of(content):
    generation = int(content.split()[1])
    return row(generation), scores(generation)


def save(store, *generations):
    for generation in generations:
        store.save(generation, sealed(generation), row(generation), scores(generation))


def checkpoint(store, generation):
    return store.path / "generations" / f"gen-{generation:07d}.ck"


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0x40
    path.write_bytes(content)


def reopened(run):
    return open_run(run.path).repeat(0)


# ---- the run ----


def test_a_run_keeps_its_experiment_and_identity(run, tmp_path):
    found = open_run(find_run(tmp_path))
    assert found.path == tmp_path / "local" / "cart-0a1b2c3d"
    assert (found.uid, found.name, found.namespace) == (UID, "cart", "local")
    assert found.experiment() == EXPERIMENT
    assert found.description() is None


def test_a_description_is_stored_whole(run):
    description = {
        "network": "mlp-4-16-2",
        "backend": "numpy",
        "observation": "vector 4 float32",
        "actions": "discrete 2",
        "fingerprint": {"forward": "ab"},
    }
    run.save_description(description)
    assert open_run(run.path).description() == description


@pytest.mark.parametrize("damaged", ["{}", "[1]", '{"network": "mlp-4-2"}', "{"])
def test_a_damaged_description_is_named(run, damaged):
    (run.path / "describe.json").write_text(damaged)
    with pytest.raises(StoreError, match=r"describe\.json is damaged; restore it from a copy"):
        run.description()


def test_live_fields_of_the_experiment_can_be_replaced(run):
    run.replace_experiment({**EXPERIMENT, "extra": "ü: 1"})
    assert open_run(run.path).experiment()["extra"] == "ü: 1"


def test_a_real_experiment_survives_its_yaml_and_brings_its_quota(tmp_path):
    document = {
        "apiVersion": "kubevo.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": "cart"},
        "spec": {
            "seed": 7,
            "environment": {"id": "CartPole-v1"},
            "policy": {"network": "mlp", "hiddenLayers": [16]},
            "algorithm": {
                "type": "GeneticAlgorithm",
                "geneticAlgorithm": {"populationSize": 60, "mutationPower": "0.5"},
            },
            "budget": {"maxGenerations": 3},
            "checkpoint": {"quotaMebibytes": 1},
        },
    }
    experiment = spec.parse(document, "test")
    run = create_run(tmp_path, "local", "cart", UID, experiment.document())
    assert spec.parse(open_run(run.path).experiment(), "spec.yaml") == experiment
    with pytest.raises(StoreFull, match="the quota is 1,048,576"):
        open_run(run.path).repeat(0).save(0, seal(Header(UID, 0, 0), bytes(2**20)), row(0), b"")


def test_creating_the_same_run_again_opens_it(run, repeat, tmp_path):
    save(repeat, 0)
    again = create_run(tmp_path, "local", "cart", UID, EXPERIMENT)
    assert again.repeat(0).generations() == [0]
    assert again.takeover == 1


def test_a_directory_of_another_uid_is_not_taken(run, tmp_path):
    with pytest.raises(RunMismatch, match="already belongs"):
        create_run(tmp_path, "local", "cart", UID[:-1] + "9", EXPERIMENT)
    with pytest.raises(RunMismatch, match="another Experiment"):
        create_run(tmp_path, "local", "cart", UID, {"spec": {"seed": 8}})


def test_a_damaged_owner_or_spec_is_named(run):
    (run.path / "spec.yaml").write_text("- a list")
    with pytest.raises(StoreError, match=r"expected a mapping in .*spec\.yaml"):
        open_run(run.path)
    (run.path / "spec.yaml").write_bytes(b"a: [\xff")
    with pytest.raises(StoreError, match="not YAML"):
        open_run(run.path)
    (run.path / "OWNER").write_text('{"uid": 1}')
    with pytest.raises(StoreError, match="OWNER is damaged"):
        open_run(run.path)
    (run.path / "describe.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        run.description()


def test_yaml_tags_are_refused_not_executed(run, tmp_path):
    marker = tmp_path / "executed"
    (run.path / "spec.yaml").write_text(f"a: !!python/object/apply:os.mkdir ['{marker}']\n")
    with pytest.raises(StoreError, match="not YAML"):
        run.experiment()
    assert not marker.exists()


# ---- finding it ----


def test_a_run_is_found_from_the_root_the_namespace_and_itself(run, tmp_path):
    for root in (tmp_path, tmp_path / "local", run.path):
        assert find_run(root) == run.path
        assert find_run(root, name="cart") == run.path


def test_where_nothing_is_the_message_says_so(tmp_path):
    with pytest.raises(RunNotFound, match=r"expected one run in .*, found none") as caught:
        find_run(tmp_path / "nowhere")
    assert not caught.value.ambiguous
    with pytest.raises(RunNotFound, match="no OWNER in it"):
        open_run(tmp_path)


def test_another_name_is_answered_with_what_is_there(run, tmp_path):
    with pytest.raises(RunNotFound, match=r"named 'pong' in .*found none, but these:\n.*cart-0a1b"):
        find_run(tmp_path, name="pong")


def test_several_runs_must_be_told_apart(run, tmp_path):
    second = create_run(tmp_path, "local", "cart", OTHER, EXPERIMENT)
    create_run(tmp_path, "team", "pong", UID, EXPERIMENT)
    assert len(find_runs(tmp_path)) == 3
    with pytest.raises(RunNotFound, match="found 3; name one by its directory") as caught:
        find_run(tmp_path)
    assert caught.value.ambiguous
    with pytest.raises(RunNotFound, match=r"found 2(.|\n)*cart-0a1b2c3d\n.*cart-ffffffff$"):
        find_run(tmp_path, name="cart")
    assert find_run(tmp_path, name="pong").name == "pong-0a1b2c3d"
    assert find_run(second.path) == second.path


def test_a_damaged_neighbour_does_not_hide_a_run(run, tmp_path):
    broken = create_run(tmp_path, "local", "pong", OTHER, EXPERIMENT)
    (broken.path / "OWNER").write_text("")
    assert find_run(tmp_path, name="cart") == run.path


# ---- one repeat ----


def test_a_new_repeat_is_empty(repeat):
    assert repeat.latest() is None
    assert repeat.generations() == repeat.history() == repeat.tests() == []
    assert repeat.scores(0) is None


def test_what_was_saved_is_read_back(run, repeat):
    save(repeat, 0, 1, 2)
    found = reopened(run)
    loaded = found.latest()
    assert (loaded.generation, loaded.payload, loaded.skipped) == (2, payload(2), [])
    assert loaded.header == Header(UID, 0, 2)
    assert found.generations() == [0, 1, 2]
    assert found.load(1) == payload(1)
    assert found.history() == [row(0), row(1), row(2)]
    assert [found.scores(g) for g in (0, 1, 2, 3)] == [scores(0), scores(1), scores(2), None]


def test_repeats_are_kept_apart(run):
    save(run.repeat(0), 0)
    other = run.repeat(3)
    other.save(0, sealed(0, repeat=3), {**row(0), "repeat": 3}, scores(9))
    assert run.repeat(3) is other
    assert run.repeat(0).history() == [row(0)]
    assert other.scores(0) == scores(9)


def test_saving_the_same_again_changes_nothing(run, repeat):
    save(repeat, 0, 1)
    before = {f: f.read_bytes() for f in repeat.path.rglob("*") if f.is_file()}
    save(repeat, 1, 0)
    save(reopened(run), 1)
    assert {f: f.read_bytes() for f in repeat.path.rglob("*") if f.is_file()} == before


def test_a_checkpoint_never_changes(repeat):
    save(repeat, 0)
    with pytest.raises(StoreError, match="checkpoints never change"):
        repeat.save(0, seal(Header(UID, 0, 0), b"another"), row(0), scores(0))
    assert repeat.load(0) == payload(0)


@pytest.mark.parametrize(
    "content", [sealed(5, uid=OTHER), sealed(5, repeat=1), sealed(6), b"not sealed"]
)
def test_what_is_not_this_generations_checkpoint_is_not_saved(repeat, content):
    with pytest.raises(CheckpointCorrupt):
        repeat.save(5, content, row(5), scores(5))
    assert repeat.generations() == []


def test_a_row_that_is_not_json_is_refused_before_anything_is_written(repeat):
    with pytest.raises(ValueError, match="JSON"):
        repeat.save(0, sealed(0), {"fitness": float("nan")}, scores(0))
    assert repeat.generations() == []


def test_scores_of_another_size_are_refused(repeat):
    save(repeat, 0)
    with pytest.raises(StoreError, match="expected 48 bytes of scores"):
        repeat.save(1, sealed(1), row(1), bytes(12))


def test_scores_cross_from_one_file_into_the_next(repeat):
    save(repeat, 998, 999, 1000, 1001)
    assert [repeat.scores(g) for g in (998, 999, 1000, 1001)] == [
        scores(g) for g in (998, 999, 1000, 1001)
    ]
    assert repeat.scores(0) is None
    repeat.prune(10, 0, 0)
    assert len(list((repeat.path / "scores").iterdir())) == 2


def test_a_flipped_bit_in_the_scores_hides_that_record_only(run, repeat):
    save(repeat, 0, 1, 2)
    (file,) = (repeat.path / "scores").iterdir()
    flip(file, 18 + 56 + 20)
    assert [reopened(run).scores(g) for g in (0, 1, 2)] == [scores(0), None, scores(2)]
    flip(file, 9)  # the version, with no checksum to back it
    assert reopened(run).scores(0) is None
    found = reopened(run)
    found.repair(2, row_of)
    assert [found.scores(g) for g in (0, 1, 2)] == [scores(0), scores(1), scores(2)]


def test_a_test_is_kept_once_for_each_generation_and_purpose(run, repeat):
    repeat.append_test({"generation": 3, "purpose": "test", "mean": 1.5})
    repeat.append_test({"generation": 3, "purpose": "test", "mean": 1.5})
    repeat.append_test({"generation": 3, "purpose": "final", "mean": 2.5})
    reopened(run).append_test({"generation": 3, "purpose": "final", "mean": 2.5})
    assert [each["mean"] for each in repeat.tests()] == [1.5, 2.5]


# ---- damage ----


def test_the_newest_that_verifies_is_loaded_and_the_others_are_reported(repeat):
    save(repeat, 0, 1, 2, 3)
    flip(checkpoint(repeat, 3), -40)
    checkpoint(repeat, 2).write_bytes(sealed(2)[:100])
    loaded = repeat.latest()
    assert loaded.generation == 1
    assert [reason.count("gen-") for reason in loaded.skipped] == [1, 1]
    assert "gen-0000003.ck" in loaded.skipped[0]
    assert "truncated" in loaded.skipped[1]


def test_a_flip_in_any_byte_of_the_newest_falls_back(repeat):
    save(repeat, 0, 1)
    content = sealed(1)
    for position in range(len(content)):
        checkpoint(repeat, 1).write_bytes(content)
        flip(checkpoint(repeat, 1), position)
        assert repeat.latest().generation == 0


@pytest.mark.parametrize("stray", [sealed(2, uid=OTHER), sealed(2, repeat=1), sealed(7)])
def test_another_runs_checkpoint_under_our_name_is_skipped(repeat, stray):
    save(repeat, 0, 1)
    checkpoint(repeat, 2).write_bytes(stray)
    loaded = repeat.latest()
    assert loaded.generation == 1
    assert "expected the checkpoint of" in loaded.skipped[0]


def test_a_newer_version_is_refused_not_skipped(repeat, monkeypatch):
    save(repeat, 0, 1)
    with monkeypatch.context() as patch:
        patch.setattr("kubevo_core.container.VERSION", 2)
        newer = sealed(2)
    checkpoint(repeat, 2).write_bytes(newer)
    with pytest.raises(CheckpointVersionError, match=r"gen-0000002\.ck: .*version 2"):
        repeat.latest()
    with pytest.raises(CheckpointVersionError):
        repeat.repair(1, row_of)
    assert checkpoint(repeat, 2).exists()


def test_when_none_verifies_the_search_does_not_start_anew(repeat):
    save(repeat, 0, 1)
    for generation in (0, 1):
        checkpoint(repeat, generation).write_bytes(b"")
    with pytest.raises(CheckpointCorrupt, match=r"no checkpoint in (.|\n)*gen-0000000"):
        repeat.latest()


def test_a_pruned_generation_is_answered_with_what_is_there(repeat):
    save(repeat, 0, 1, 2)
    repeat.prune(1, 0, 0)
    with pytest.raises(StoreError, match=r"generation 1 .*found those of 0, 2: it was pruned"):
        repeat.load(1)


def test_a_torn_last_line_of_history_is_left_out_and_then_replaced(run, repeat):
    save(repeat, 0, 1)
    with (repeat.path / "history.jsonl").open("ab") as stream:
        stream.write(json.dumps(row(2)).encode())  # whole, but its newline never came
    assert reopened(run).history() == [row(0), row(1)]
    save(reopened(run), 2)
    assert reopened(run).history() == [row(0), row(1), row(2)]


@pytest.mark.parametrize(
    "tail", [b"\0" * 300, b'{"generation": 2, "fr', b"\xff\xfe\n\0\n", b"[]\n"]
)
def test_garbage_at_the_end_of_history_is_cut_by_a_repair(run, repeat, tail):
    save(repeat, 0, 1)
    history = repeat.path / "history.jsonl"
    good = history.read_bytes()
    history.write_bytes(good + tail)
    found = reopened(run)
    assert found.history() == [row(0), row(1)]
    found.repair(1, row_of)
    assert history.read_bytes() == good


def test_damage_in_the_middle_of_history_is_named_then_rebuilt_and_kept_aside(run, repeat):
    save(repeat, 0, 1, 2)
    history = repeat.path / "history.jsonl"
    lines = history.read_bytes().split(b"\n")
    history.write_bytes(b"\n".join([lines[0], b"garbage", *lines[2:]]))
    found = reopened(run)
    with pytest.raises(StoreError, match=r"line 2 of .*history\.jsonl"):
        found.history()
    found.repair(2, row_of)
    assert found.history() == [row(0), row(1), row(2)]
    assert b"garbage" in (repeat.path / "history.jsonl.1.corrupt").read_bytes()


def test_a_repair_cuts_what_is_later_and_rebuilds_what_is_missing(run, repeat):
    save(repeat, 0, 1, 2, 3, 4)
    (repeat.path / "history.jsonl").write_text(
        "".join(json.dumps(row(g)) + "\n" for g in (0, 3, 4))
    )
    (repeat.path / "scores" / "scores-00000.bin").unlink()
    for generation in (3, 4):
        checkpoint(repeat, generation).write_bytes(b"torn")
    found = reopened(run)
    assert found.latest().generation == 2
    found.repair(2, row_of)
    found.repair(2, row_of)
    assert found.history() == [row(0), row(1), row(2)]
    assert [found.scores(g) for g in range(5)] == [scores(0), scores(1), scores(2), None, None]
    assert found.generations() == [0, 1, 2]
    aside = sorted(each.name for each in (repeat.path / "generations").glob("*.corrupt"))
    assert aside == ["gen-0000003.ck.1.corrupt", "gen-0000004.ck.1.corrupt"]
    save(found, 3, 4)
    assert found.history() == [row(g) for g in range(5)]


def test_a_repair_cuts_later_scores_also_from_the_next_file(repeat):
    save(repeat, 998, 999, 1000)
    checkpoint(repeat, 999).unlink()
    checkpoint(repeat, 1000).unlink()
    repeat.repair(998, row_of)
    assert [repeat.scores(g) is None for g in (998, 999, 1000)] == [False, True, True]
    save(repeat, 999, 1000)
    assert repeat.scores(1000) == scores(1000)


def test_a_repair_does_not_go_back_behind_a_good_checkpoint(repeat):
    save(repeat, 0, 1, 2)
    with pytest.raises(StoreError, match="verifies: load the latest one"):
        repeat.repair(1, row_of)
    assert repeat.generations() == [0, 1, 2]


def test_a_row_without_its_checkpoint_stays_missing(repeat):
    save(repeat, 0, 1, 2)
    repeat.prune(1, 0, 2)
    (repeat.path / "history.jsonl").unlink()
    repeat.repair(2, row_of)
    assert repeat.history() == [row(2)]
    assert repeat.scores(0) == scores(0)


# ---- retention ----


@pytest.mark.parametrize(
    ("last", "every", "best", "kept"),
    [
        (3, 0, 4, [4, 7, 8, 9]),
        (1, 0, 9, [9]),
        (2, 4, 1, [0, 1, 4, 8, 9]),
        (20, 0, 0, list(range(10))),
    ],
)
def test_the_last_every_so_many_and_the_best_are_kept(repeat, last, every, best, kept):
    save(repeat, *range(10))
    pruned = repeat.prune(last, every, best)
    assert repeat.generations() == kept
    assert sorted([*pruned, *kept]) == list(range(10))
    assert len(repeat.history()) == 10
    assert all(repeat.scores(g) == scores(g) for g in range(10))


def test_nothing_is_pruned_before_the_newest_verifies(repeat):
    save(repeat, 0, 1, 2)
    flip(checkpoint(repeat, 2), 50)
    with pytest.raises(StoreError, match="pruned nothing"):
        repeat.prune(1, 0, 2)
    assert repeat.generations() == [0, 1, 2]


# ---- the fence and the quota ----


def test_a_frozen_old_owner_is_fenced(run, repeat):
    save(repeat, 0)
    successor = open_run(run.path)
    assert successor.claim() == 2
    with pytest.raises(Fenced, match=r"takeover 1, found .*takeover 2 \(pid \d+ on "):
        save(repeat, 1)
    for write in (
        lambda: run.save_description({}),
        lambda: run.replace_experiment({}),
        lambda: repeat.append_test({"generation": 0, "purpose": "test"}),
        lambda: repeat.prune(1, 0, 0),
        lambda: repeat.repair(0, row_of),
    ):
        with pytest.raises(Fenced):
            write()
    save(successor.repeat(0), 1)
    assert repeat.generations() == [0, 1]  # reading stays allowed


def test_a_given_takeover_must_be_higher(run):
    assert run.claim(7) == 7
    assert run.claim(7) == 7  # its own
    with pytest.raises(Fenced, match="above 7"):
        open_run(run.path).claim(6)
    assert open_run(run.path).claim(9) == 9
    with pytest.raises(Fenced):
        run.claim(8)


def test_a_directory_that_became_another_runs_is_fenced(run, repeat):
    owner = json.loads((run.path / "OWNER").read_text())
    (run.path / "OWNER").write_text(json.dumps({**owner, "uid": OTHER}))
    with pytest.raises(Fenced, match=OTHER):
        save(repeat, 0)
    with pytest.raises(Fenced, match=OTHER):
        run.claim()


def test_a_claim_sweeps_what_dead_writers_left(run, repeat):
    save(repeat, 0)
    stale = [
        repeat.path / "generations" / ".gen-0000001.ck.00aa11bb.tmp",
        repeat.path / ".history.jsonl.00aa11bb.tmp",
        run.path / ".OWNER.00aa11bb.tmp",
    ]
    for each in stale:
        each.write_bytes(b"half")
    open_run(run.path).claim()
    assert not any(each.exists() for each in stale)


def test_over_the_quota_nothing_is_written_and_pruning_makes_room(run, repeat):
    run.replace_experiment({"spec": {"checkpoint": {"quotaMebibytes": 1}}})

    def big(generation):
        return seal(Header(UID, 0, generation), bytes(300_000))

    for generation in range(3):
        repeat.save(generation, big(generation), row(generation), scores(generation))
    with pytest.raises(StoreFull, match=r"the quota is 1,048,576.*quotaMebibytes"):
        repeat.save(3, big(3), row(3), scores(3))
    assert repeat.latest().generation == 2
    assert len(repeat.history()) == 3
    repeat.prune(1, 0, 2)
    repeat.save(3, big(3), row(3), scores(3))
    run.replace_experiment({"spec": {"checkpoint": {"quotaMebibytes": 2}}})
    repeat.save(4, big(4), row(4), scores(4))
    own = [f for f in run.path.rglob("*") if f.is_file()]
    assert abs(run.used_bytes() - sum(f.stat().st_size for f in own)) < 1000
