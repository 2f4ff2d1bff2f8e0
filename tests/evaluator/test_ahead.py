"""The task that is taken ahead of its turn: when, what becomes of it, and who gets it back."""

import asyncio
from dataclasses import replace

import pytest

from kubevo_core import messages
from kubevo_core.errors import WorkerUnfit
from kubevo_evaluator import evaluation
from kubevo_evaluator.ahead import Ahead
from kubevo_evaluator.evaluation import Evaluator
from kubevo_evaluator.lease import Recycle
from kubevo_runtime.testing import FakeBus


def held_by_anyone(fake):
    return [episode for episode, task in fake.tasks.items() if task.lease_end is not None]


@pytest.fixture
def decoded(monkeypatch):
    """Return the init seeds of the genomes that have been decoded, in their order."""
    seeds = []
    decode = Evaluator.decode

    def spy(self, base, mutation):
        found = decode(self, base, mutation)
        seeds.append(base.init_seed)
        return found

    monkeypatch.setattr(Evaluator, "decode", spy)
    return seeds


@pytest.fixture
async def playing(rig, faulty, tmp_path):
    """Return a rig whose worker plays the first of some tasks, with the others behind it.

    It has played two before, so it knows that the fleet takes one task in one of its turns.
    """

    async def make(count=4, timeout_seconds=3600, **arguments):
        there = rig(faulty("block", tmp_path), timeout_seconds=timeout_seconds)
        (tmp_path / "go").touch()
        there.worker = there.start(**arguments)
        for slot in (8, 9):
            there.add(slot)
            await there.until(lambda: not there.fake.tasks)
        (tmp_path / "go").unlink()
        there.fake.results.clear()
        there.episodes = [there.add(slot) for slot in range(count)]
        there.go = (tmp_path / "go").touch
        return there

    yield make
    (tmp_path / "go").touch()


@pytest.mark.parametrize("at_once", [0, 1 << 14], ids=["in a thread", "at once"])
async def test_the_next_task_is_held_and_decoded_while_an_episode_plays(
    playing, decoded, monkeypatch, at_once
):
    monkeypatch.setattr(evaluation, "AT_ONCE", at_once)
    there = await playing()
    await there.until(lambda: decoded[2:] == [7, 8])
    assert held_by_anyone(there.fake) == there.episodes[:2]
    assert there.fake.results == {}
    tasks = list(there.fake.tasks.values())
    there.go()
    await there.until(lambda: not there.fake.tasks)
    assert list(there.fake.results) == there.episodes  # one after another, each in its turn
    assert [task.deliveries for task in tasks] == [1, 1, 1, 1]
    assert decoded[2:] == [7, 8, 9, 10]


async def test_what_was_taken_ahead_gives_the_same_results(playing, rig):
    there = await playing(8)
    there.go()
    await there.until(lambda: not there.fake.tasks)
    other = rig(there.context.environment)
    other.start()
    for slot, episode in enumerate(there.episodes):  # one task at a time: nothing to take ahead
        other.add(slot)
        await other.until(lambda: not other.fake.tasks)
        assert other.result(episode).episode == there.result(episode).episode


def ends(tasks):
    return [task.lease_end for task in tasks]


async def test_both_tasks_keep_their_leases_while_the_episode_lasts(playing):
    there = await playing(ack_wait=0.06)  # a sign of life every 20 ms
    await there.until(lambda: len(held_by_anyone(there.fake)) == 2)
    leases = [there.fake.tasks[episode] for episode in there.episodes[:2]]
    for _ in range(4):
        before = ends(leases)
        there.fake.advance(15)  # of the broker's 20
        await there.until(lambda before=before: min(ends(leases)) > max(before))
    assert [task.deliveries for task in leases] == [1, 1]


@pytest.mark.parametrize(
    ("numbers", "behind", "is_taken"),
    [
        ([1], 99, False),  # nothing is known of the fleet yet
        ([1, 2], 2, True),
        ([1, 2], 1, False),
        ([1, 101], 199, False),  # a hundred others took one each meanwhile
        ([1, 101], 200, True),
        ([1, 101, *range(102, 109)], 199, False),  # the longest of the last turns counts
        ([1, 101, *range(102, 110)], 199, True),
        ([1, 101, 1], 999, False),  # the broker lost its store
    ],
)
async def test_a_task_is_taken_ahead_only_while_the_queue_is_deep(numbers, behind, is_taken):
    fake = FakeBus()
    fake.is_made = True
    fake.add_task("next", b"")
    ahead = Ahead(fake.worker(), decode_nothing, 60)
    for number in numbers:
        assert await ahead.turn() is None
        held = fake.take_task()
        await held.nak()
        held.number, held.behind = number, behind
        ahead.look(held)
    ahead.soon()
    turn = await ahead.turn()
    assert (turn is not None) == is_taken
    assert bool(held_by_anyone(fake)) == is_taken


async def decode_nothing(held):
    return None


async def test_a_worker_that_waits_gets_the_task_that_another_one_took_ahead(playing):
    there = await playing(ack_wait=0.06)
    await there.until(lambda: len(held_by_anyone(there.fake)) == 2)
    other, taken = there.fake.worker(), []
    async with asyncio.timeout(20):
        while len(taken) < 3:
            held = await other.pull(5)
            taken += [held.episode] if held else []
    assert taken == [*there.episodes[2:], there.episodes[1]]
    assert held_by_anyone(there.fake) == there.episodes
    there.go()
    await there.until(lambda: there.fake.results)
    assert list(there.fake.results) == there.episodes[:1]


async def test_a_stopping_worker_gives_back_at_once_what_it_took_ahead(playing):
    stopping = asyncio.Event()
    there = await playing(stopping=stopping)
    await there.until(lambda: len(held_by_anyone(there.fake)) == 2)
    stopping.set()
    await there.until(lambda: held_by_anyone(there.fake) == there.episodes[:1])
    there.go()  # the episode that plays may end within its grace
    await asyncio.wait_for(there.worker, 20)
    assert list(there.fake.results) == there.episodes[:1]
    assert held_by_anyone(there.fake) == []
    assert [task.deliveries for task in there.fake.tasks.values()] == [1, 0, 0]


async def test_a_stopping_worker_out_of_grace_gives_both_back(playing):
    stopping = asyncio.Event()
    there = await playing(stopping=stopping, grace=0.05)
    await there.until(lambda: len(held_by_anyone(there.fake)) == 2)
    stopping.set()
    with pytest.raises(Recycle, match="given back"):
        await asyncio.wait_for(there.worker, 20)
    assert held_by_anyone(there.fake) == []


async def test_an_unfit_worker_gives_both_back(playing):
    there = await playing(timeout_seconds=1)
    await there.until(lambda: len(held_by_anyone(there.fake)) == 2)
    with pytest.raises(WorkerUnfit, match="took longer than 1 s"):
        await asyncio.wait_for(there.worker, 20)
    assert held_by_anyone(there.fake) == []


async def test_a_worker_that_is_to_be_replaced_gives_back_what_it_took_ahead(rig, faulty):
    there = rig(faulty("ValueError"))
    for slot in range(6):
        there.add(slot)
    with pytest.raises(Recycle, match="no other worker took"):
        await asyncio.wait_for(there.start(), 20)
    deliveries = sum(task.deliveries for task in there.fake.tasks.values())
    reports = [messages.decode_failure(body) for _, _, body in there.fake.failures]
    plays = len(reports) + 2  # one of them three times, and reported once
    assert deliveries == plays + 1
    assert held_by_anyone(there.fake) == []


async def test_a_task_of_another_context_waits_for_its_turn(playing, decoded):
    there = await playing(1)
    first, changed = there.context, replace(there.context, task_timeout_seconds=7200)
    there.pin(changed)
    episodes = there.episodes + [there.add(slot) for slot in range(1, 4)]
    await there.until(lambda: held_by_anyone(there.fake) == episodes[:2])
    assert decoded[2:] == [7]
    there.go()
    await there.until(lambda: not there.fake.tasks)
    assert [there.result(episode).context for episode in episodes] == [
        first.digest,
        *[changed.digest] * 3,
    ]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda there: b"{not json",
        lambda there: messages.encode_task(there.task(1, base="0" * 64)),
        lambda there: messages.encode_task(there.task(1, context="0" * 16)),
        lambda there: messages.encode_task(there.task(1, network="mlp-9-9-9")),
        lambda there: messages.encode_describe_task("f" * 16),
    ],
    ids=["no json", "no base", "no context", "another network", "no context to describe"],
)
async def test_what_is_wrong_with_a_task_is_found_when_its_turn_comes(playing, spoil):
    there = await playing()
    bad = there.fake.tasks[there.episodes[1]]
    bad.body = spoil(there)
    await there.until(lambda: len(held_by_anyone(there.fake)) == 2)
    assert bad.lease_end is not None
    there.go()
    await there.until(lambda: len(there.fake.tasks) == 1)
    assert (bad.deliveries, bad.lease_end) == (1, None)
    assert 1 <= bad.ready_at <= 5
    assert list(there.fake.results) == [there.episodes[0], *there.episodes[2:]]
    assert not there.worker.done()
