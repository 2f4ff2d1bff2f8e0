"""A search that is killed, frozen and cut off again and again ends with the fault-free bytes.

The schedule is seeded and follows the run's progress (results stored so far), not the clock. Every
fault has to hit held work: the witness hears each delivery and each answer on the run's broker, so
it knows which worker holds which task, and whether that task was handed out again afterwards.
``KUBEVO_CHAOS_SEED`` chooses another schedule.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

import nats.errors
import nats.js.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from kubevo_core import checkpoint, container, names
from kubevo_core.errors import BusUnavailable
from kubevo_runtime.bus import BusSettings, connect_coordinator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")

SEED = int(os.environ.get("KUBEVO_CHAOS_SEED", "1"))
WANTED = {"kill a worker": 10, "freeze a worker": 3, "kill the broker": 3, "kill the driver": 3}
WORKERS = 3
LEASE_SECONDS = 1.5
REDELIVERY_SECONDS = 4 * LEASE_SECONDS
LAST_TRIGGER = 0.5  # of all episodes, so that a fault that missed can be made up for
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.01
GROUP_KILLS = 10
# Wide, so that an episode of 500 steps lasts long enough to be caught.
WIDE = {"network": "mlp", "hiddenLayers": [640, 640]}
log = logging.getLogger(__name__)
OFFLINE = (nats.errors.Error, nats.js.errors.Error, OSError)


class Held(NamedTuple):
    """A task that a worker holds: its place in the stream, and the subject of its answer."""

    sequence: int
    answer: str


class Witness:
    """Hears what a run's broker hands out and what the workers answer, and asks for its counts."""

    def __init__(self, experiment: str, deliveries: dict[int, set[str]]) -> None:
        self._experiment = experiment
        self._stream = names.task_stream(experiment)
        self._answers = f"$JS.ACK.{self._stream}."
        self._inboxes: set[str] = set()
        self._last: dict[str, Held] = {}  # by client
        self._clients: dict[str, str] = {}  # by worker
        self._answered: set[str] = set()
        self._settled: set[int] = set()
        self._deliveries = deliveries  # answer subjects by place in the stream
        self._is_listening = False
        self.client = Client()

    async def connect(self, url: str, token: str) -> None:
        """Hear everything on the broker at ``url``, also when it comes back after a death."""
        await self.client.connect(
            url,
            token=token,
            connect_timeout=1,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.02,
            error_cb=self._on_error,
        )
        for subject, hear in (
            (f"_INBOX_{self._experiment}.>", self._on_delivery),
            (f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.>", self._on_pull),
            (f"{self._answers}>", self._on_answer),
            (names.result_subject(self._experiment, ">"), self._on_result),
        ):
            await self.client.subscribe(subject, cb=hear)
        self._is_listening = True

    async def _on_error(self, exc: Exception) -> None:
        """Give up a first attempt; take an outage for granted later."""
        if not self._is_listening:
            raise exc

    async def _on_delivery(self, message: Msg) -> None:
        if message.reply.startswith(self._answers):
            sequence = message.metadata.sequence.stream
            self._deliveries.setdefault(sequence, set()).add(message.reply)

    async def _on_pull(self, message: Msg) -> None:
        """Listen at the inbox of a worker that is new: only there it shows who gets a task."""
        inbox = message.reply.rpartition(".")[0]
        if inbox in self._inboxes:
            return
        self._inboxes.add(inbox)

        async def hear(delivery: Msg) -> None:
            await self._on_delivery(delivery)
            if delivery.reply.startswith(self._answers):
                held = Held(delivery.metadata.sequence.stream, delivery.reply)
                self._last[_client_of(inbox)] = held

        await self.client.subscribe(f"{inbox}.*", cb=hear)

    async def _on_answer(self, message: Msg) -> None:
        if message.data != b"+WPI":
            self._answered.add(message.subject)
        if message.data in (b"", b"+ACK"):  # settles the task, whoever else was handed it
            self._settled.add(int(message.subject.removeprefix(self._answers).split(".")[2]))

    async def _on_result(self, message: Msg) -> None:
        if message.reply.startswith("_INBOX_"):  # a worker that publishes, not a reader's copy
            self._clients[json.loads(message.data)["worker"]] = _client_of(message.reply)

    def held_by(self, worker: str) -> Held | None:
        """Return the task that a worker was handed and has not answered for."""
        held = self._last.get(self._clients.get(worker, ""))
        if held is None or held.answer in self._answered or self.is_settled(held):
            return None
        return held

    def is_settled(self, held: Held) -> bool:
        """Tell whether a task has been acknowledged, by whomever."""
        return held.sequence in self._settled

    def deliveries(self, held: Held) -> int:
        """Return how often a task has been handed out."""
        return len(self._deliveries.get(held.sequence, ()))

    async def held_in_all(self) -> int:
        """Return how many tasks the broker counts as handed out and not answered for."""
        info = await self.client.jetstream(timeout=1).consumer_info(self._stream, names.CONSUMER)
        return info.num_ack_pending or 0

    async def results(self) -> int:
        """Return how many results have ever been stored, over all lives of the broker."""
        js = self.client.jetstream(timeout=1)
        info = await js.stream_info(names.result_stream(self._experiment))
        return info.state.last_seq


def _client_of(inbox: str) -> str:
    """Return what is common to all inboxes of one connection: the first half of its NUID."""
    return inbox.split(".")[1][:12]


async def eventually(attempt: Callable[[], Awaitable[Any]], what: str, search: Any) -> Any:
    """Return the first true answer of ``attempt``, through outages; fail when there is none."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        search.require_running()
        try:
            if answer := await attempt():
                return answer
        except OFFLINE:
            pass
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS:g} s in vain for {what}"
        await asyncio.sleep(POLL_SECONDS)


@dataclass
class Chaos:
    """Carries out a schedule of faults on a search, and counts those that hit held work."""

    search: Any
    random: Random
    hits: Counter[str] = field(default_factory=Counter)
    story: list[str] = field(default_factory=list)
    killed: list[tuple[Held, int, float]] = field(default_factory=list)
    deliveries: dict[int, set[str]] = field(default_factory=dict)  # over all lives of the driver
    witness: Witness = field(init=False)

    async def carry_out(self, schedule: list[tuple[int, str]]) -> None:
        """Do every fault at its time, then again those that missed."""
        await self._connect()
        try:
            for trigger, kind in schedule:
                await self._results(trigger)
                await self._do(kind)
            while missing := await self._missing():
                await self._do(missing)
        finally:
            await self.witness.client.close()

    async def _do(self, kind: str) -> None:
        faults = {
            "kill a worker": self._kill_worker,
            "freeze a worker": self._freeze_worker,
            "kill the broker": self._kill_broker,
            "kill the driver": self._kill_driver,
        }
        at = await self._results(0)
        what = await faults[kind]()
        self.story.append(f"at result {at}: {kind}: {what}")
        log.info(self.story[-1])

    async def _connect(self) -> None:
        """Connect to the broker of the driver that runs now."""

        async def connected() -> bool:
            files = list(self.search.folder.glob("data/local/*/broker/nats-server.conf"))
            text = files[0].read_text() if files else ""
            place, token = re.search(r'listen: "(.*?)"', text), re.search(r'token: "(.*?)"', text)
            if place is None or token is None:
                return False
            self.witness = Witness(self.search.broker_id, self.deliveries)
            try:
                await self.witness.connect(f"nats://{place[1]}", token[1])
            except OFFLINE:
                await self.witness.client.close()
                return False
            return True

        await eventually(connected, "the broker", self.search)

    async def _results(self, trigger: int) -> int:
        """Wait until so many results are stored, and return how many are."""
        seen = 0

        async def reached() -> bool:
            nonlocal seen
            seen = await self.witness.results()
            return seen >= trigger

        await eventually(reached, f"{trigger} results", self.search)
        return seen

    def _workers(self) -> list[Any]:
        return [child for child in self.search.children() if child.worker]

    async def _stop_a_holder(self) -> tuple[int, Held]:
        """Stop a worker that holds a task, so that it still does when the fault hits it."""

        async def stopped() -> tuple[int, Held] | None:
            workers = self._workers()
            self.random.shuffle(workers)
            for worker in workers:
                if self.witness.held_by(worker.worker) is None:
                    continue
                _send(worker.pid, signal.SIGSTOP)
                try:
                    await self.witness.client.flush(2)
                    if held := self.witness.held_by(worker.worker):
                        return worker.pid, held
                except BaseException:
                    _send(worker.pid, signal.SIGCONT)
                    raise
                _send(worker.pid, signal.SIGCONT)
            return None

        found: tuple[int, Held] = await eventually(stopped, "a worker with a task", self.search)
        return found

    async def _kill_worker(self) -> str:
        pid, held = await self._stop_a_holder()
        deadline = time.monotonic() + REDELIVERY_SECONDS
        self.killed.append((held, self.witness.deliveries(held), deadline))
        _send(pid, signal.SIGKILL)  # whether it hit held work is known when the task comes again
        return f"pid {pid} with task {held.sequence}"

    async def _freeze_worker(self) -> str:
        pid, held = await self._stop_a_holder()
        try:
            before, deadline = self.witness.deliveries(held), time.monotonic() + REDELIVERY_SECONDS
            again = await self._comes_again(held, before, deadline)
        finally:
            _send(pid, signal.SIGCONT)
        self.hits["freeze a worker"] += again
        return f"pid {pid} with task {held.sequence}, handed out again meanwhile: {again}"

    async def _comes_again(self, held: Held, before: int, deadline: float) -> bool:
        """Wait until a task is handed out again; False when it was not in time."""
        while self.witness.deliveries(held) <= before:
            if time.monotonic() > deadline or self.witness.is_settled(held):
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def _stop_all_holders(self) -> tuple[list[int], int]:
        """Stop all workers that hold tasks; return their pids and how many the broker counts.

        Never one that is still starting: stopped before it has asked the kernel to be killed with
        its parent, it would stay behind, stopped, when the driver is killed.
        """

        async def stopped() -> tuple[list[int], int] | None:
            workers = [w for w in self._workers() if self.witness.held_by(w.worker)]
            for worker in workers:
                _send(worker.pid, signal.SIGSTOP)
            held = 0
            try:
                await self.witness.client.flush(2)
                if any(self.witness.held_by(worker.worker) for worker in workers):
                    held = await self.witness.held_in_all()
            finally:
                if not held:
                    _resume(workers)
            return ([worker.pid for worker in workers], held) if held else None

        found: tuple[list[int], int] = await eventually(stopped, "held tasks", self.search)
        return found

    async def _kill_broker(self) -> str:
        pids, held = await self._stop_all_holders()
        (broker,) = [child.pid for child in self.search.children() if child.is_broker]
        _send(broker, signal.SIGKILL)
        for pid in pids:
            _send(pid, signal.SIGCONT)
        self.hits["kill the broker"] += 1
        return f"pid {broker} while {held} tasks were held"

    async def _kill_driver(self) -> str:
        _, held = await self._stop_all_holders()
        await self.witness.client.close()
        pid = self.search.driver.pid
        await asyncio.to_thread(self.search.kill)
        self.hits["kill the driver"] += 1
        self.search.start(resume=True)
        await self._connect()
        return f"pid {pid} while {held} tasks were held"

    async def _missing(self) -> str | None:
        """Return a fault that has not hit often enough yet.

        A killed worker counts when its task has been handed out again.
        """
        for held, before, deadline in self.killed:
            self.hits["kill a worker"] += await self._comes_again(held, before, deadline)
        self.killed.clear()
        return next((kind for kind, n in WANTED.items() if self.hits[kind] < n), None)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _resume(workers: list[Any]) -> None:
    for worker in workers:
        _send(worker.pid, signal.SIGCONT)


def seeded_schedule(random: Random, episodes: int) -> list[tuple[int, str]]:
    """Return every wanted fault with the number of stored results at which it is due."""
    kinds = [kind for kind, count in WANTED.items() for _ in range(count)]
    random.shuffle(kinds)
    last = int(LAST_TRIGGER * episodes)
    return list(zip(sorted(random.randrange(1, last) for _ in kinds), kinds, strict=True))


def digests(summary: dict[str, Any]) -> tuple[str, str]:
    return summary["populationDigest"], summary["resultDigest"]


def require_whole(search: Any, generations: int) -> None:
    """Check that the history has each generation once, and that every checkpoint loads."""
    rows = [row["generation"] for row in search.history()]
    assert rows == list(range(generations))
    files = sorted(search.directory.glob("repeat-0/generations/gen-*"))
    assert [file.name for file in files] == [names.checkpoint_file(g) for g in rows]
    for generation, file in enumerate(files):
        header, payload = container.open_sealed(file.read_bytes())
        assert header.generation == generation
        assert checkpoint.decode(payload).finished.generation == generation


@pytest.fixture(scope="module")
def fault_free(new_search: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    def play(document: dict[str, Any], workers: int) -> dict[str, Any]:
        search = new_search(document, workers)
        search.start()
        summary: dict[str, Any] = search.finish()
        return summary

    return play


async def test_kills_and_freezes_that_hit_held_work_change_no_byte(
    new_search: Callable[..., Any],
    experiment: Callable[..., dict[str, Any]],
    fault_free: Callable[..., dict[str, Any]],
) -> None:
    generations = 10
    document = experiment(
        {"id": "Acrobot-v1", "maxEpisodeSteps": 500},
        WIDE,
        budget={"maxGenerations": generations},
    )
    expected = await asyncio.to_thread(fault_free, document, WORKERS)
    random = Random(SEED)
    schedule = seeded_schedule(random, expected["episodes"])
    search = new_search(document, WORKERS, KUBEVO_ACK_WAIT_SECONDS=str(LEASE_SECONDS))
    search.start()
    chaos = Chaos(search, random)
    try:
        await chaos.carry_out(schedule)
        summary = await asyncio.to_thread(search.finish)
        assert all(chaos.hits[kind] >= count for kind, count in WANTED.items())
        assert digests(summary) == digests(expected)
        require_whole(search, generations)
    except BaseException as exc:
        exc.add_note(f"seed {SEED}; schedule (results, fault): {schedule}")
        exc.add_note("what was done:\n  " + "\n  ".join(chaos.story))
        exc.add_note(f"hits: {dict(chaos.hits)}")
        raise


def test_a_run_whose_group_is_killed_at_any_instant_can_be_resumed_to_the_same_bytes(
    new_search: Callable[..., Any],
    experiment: Callable[..., dict[str, Any]],
    fault_free: Callable[..., dict[str, Any]],
    until: Callable[..., Any],
) -> None:
    generations = 16
    document = experiment(
        {"id": "Acrobot-v1", "maxEpisodeSteps": 500},
        {"network": "mlp", "hiddenLayers": [64]},
        budget={"maxGenerations": generations},
    )
    expected = fault_free(document, 2)
    random = Random(SEED)
    search = new_search(document, 2, KUBEVO_ACK_WAIT_SECONDS=str(LEASE_SECONDS))
    instants = []
    for number in range(GROUP_KILLS):
        search.start(resume=number > 0)
        started, before = time.monotonic(), _saved(search)
        # Half of the kills hit the start, the other half what follows a checkpoint.
        if number % 2:
            until(lambda before=before: _saved(search) > before, "a checkpoint", WAIT_SECONDS)
            time.sleep(random.uniform(0, 0.3))
        else:
            time.sleep(random.uniform(0, 2))
        search.require_running()
        search.kill()
        instants.append(round(time.monotonic() - started, 2))
    search.start(resume=True)
    summary = search.finish()
    said = f"seed {SEED}, killed these seconds after each start: {instants}"
    assert digests(summary) == digests(expected), said
    require_whole(search, generations)


def _saved(search: Any) -> int:
    return len(list(search.folder.glob("data/local/*/repeat-0/generations/gen-*.ck")))


async def test_connections_to_a_port_where_nobody_listens_all_give_up_in_time() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: every attempt is refused
        url = f"nats://127.0.0.1:{taken.getsockname()[1]}"

        async def give_up(number: int) -> None:
            settings = BusSettings(
                url=url,
                experiment="nobody",
                connect_seconds=0.2 + number / 100,
                reconnect_wait_seconds=0.01,
            )
            with pytest.raises(BusUnavailable):
                async with connect_coordinator(settings):
                    pass

        # Many at once: a refusal and the end of the time then often come in one turn of the loop,
        # where Python 3.11 and its wait_for lose the cancellation.
        await asyncio.wait_for(asyncio.gather(*map(give_up, range(60))), WAIT_SECONDS)
