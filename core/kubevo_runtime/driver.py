"""The loop that carries one repeat of an Experiment from its last checkpoint to its end.

Hosted by the operator and by ``kubevo run`` alike. The engine decides, the broker carries, the
store keeps; a process may die on any line, because the next one starts with ``start_or_resume``:
what the checkpoint lacks is asked for again, and what the broker still holds is read back first.
"""

from collections.abc import Callable, Sequence

from kubevo_core import checkpoint, container, names
from kubevo_core.errors import BrokerFull, MessageError, RunMismatch
from kubevo_core.evaluation import Episode, Key
from kubevo_core.generation import (
    Limits,
    Outcome,
    Phase,
    Settings,
    State,
    ask,
    close_tests,
    completed_tests,
    finish,
    is_complete,
    reopen,
    resume,
    start,
    tell,
)
from kubevo_core.generation_report import Finished
from kubevo_core.genome import Genome
from kubevo_core.messages import decode_result
from kubevo_core.seeding import Purpose
from kubevo_core.spec import ExperimentSpec
from kubevo_runtime.bus import CoordinatorBus, Reader
from kubevo_runtime.events import (
    Fault,
    GenerationFinished,
    Progress,
    ResultTaken,
    Resumed,
    Sink,
    Stopped,
    TestFinished,
)
from kubevo_runtime.publisher import Publisher
from kubevo_runtime.recordings import Recordings
from kubevo_runtime.store import Loaded, RepeatStore
from kubevo_runtime.threads import to_the_end

__all__ = ["Lane", "drive"]

FETCH = 256
READ_BACK_SECONDS = 0.5
# A worker's lease ends 15-30 s after its last sign of life; looking earlier costs little.
STALL_SECONDS = 5.0
LONGEST_STALL_SECONDS = 60.0


async def drive(lane: "Lane") -> State:
    """Carry one repeat to its end, and return its last state."""
    state = await lane.start_or_resume()
    while state.phase is not Phase.STOPPED:
        await lane.publish(state)
        await lane.collect(state)
        state = await lane.keep_tests(state)
        if is_complete(state):
            state = finish(state, lane.limits(), lane.running_seconds())
            await lane.save(state)  # durable before anything else learns of the generation
            await lane.tidy(state)
    await lane.finish_recordings(state)
    lane.stopped(state)
    return state


class Lane:
    """One repeat's connections: the store, the broker, the clock and the sink around the loop.

    ``live`` gives the spec as it is now: the budget, what is kept and the failure policy are read
    from it each time. ``imported`` is what generation 0 starts from, where it is still to come.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        store: RepeatStore,
        bus: CoordinatorBus,
        publisher: Publisher,
        recordings: Recordings,
        live: Callable[[], ExperimentSpec],
        imported: Sequence[Genome] = (),
        uid: str,
        sink: Sink,
        clock: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.publisher = publisher
        self._recordings = recordings
        self._store = store
        self._bus = bus
        self._live = live
        self._imported = imported
        self._uid = uid
        self._sink = sink
        self._clock = clock
        self._started = clock()
        self._ran_before = 0.0
        self._generation_started = self._started
        self._reader: Reader | None = None
        # Results that came before their evaluation was demanded: after a restart, children that
        # the process before this one had already found certain. They count once they are demanded.
        self._early: dict[Key, Episode] = {}
        self._stale: set[tuple[int, Purpose]] = set()
        self._quiet_since = self._started
        self._patience = STALL_SECONDS
        self._shown: Progress | None = None

    def limits(self) -> Limits:
        """Return when to stop, as the spec says now."""
        return Limits.of(self._live())

    def running_seconds(self) -> float:
        """Return the time spent on this repeat, over all its processes."""
        return self._ran_before + self._clock() - self._started

    async def start_or_resume(self) -> State:
        """Return the state after the newest checkpoint that verifies, or a new search."""
        loaded = await to_the_end(self._store.latest)
        if loaded is None:
            state = start(self.settings, self._imported)
        else:
            state = await self._resume(loaded)
        await self._read_back(state)
        return state

    async def _resume(self, loaded: Loaded) -> State:
        snapshot = await to_the_end(checkpoint.decode, loaded.payload)
        await to_the_end(self._store.repair, loaded.generation, _row_of)
        done = snapshot.finished
        self._ran_before = done.running_seconds
        self._require_network(done)
        state = resume(self.settings, done, snapshot.tests, snapshot.stop)
        # Limits that were raised reopen it, limits that were lowered may stop it here.
        state = reopen(state, self.limits())
        answered = [
            (int(row["generation"]), Purpose[str(row["purpose"]).upper()])
            for row in await to_the_end(self._store.tests)
        ]
        state = close_tests(state, answered)
        rows = await to_the_end(self._store.history)
        self._sink(
            Resumed(
                self.settings.repeat,
                loaded.generation,
                tuple(loaded.skipped),
                done,
                evaluations=sum(row["evaluations"] for row in rows),
                failed=sum(row["failed"] for row in rows),
                checkpoint_bytes=loaded.size,
                saved_at=loaded.saved_at,
                stop=state.stop,
            )
        )
        await self._recordings.resumed(done)
        return state

    def _require_network(self, finished: Finished) -> None:
        played = finished.population[0].genome.network
        if played != self.settings.network:
            raise RunMismatch(
                f"repeat {self.settings.repeat} was played with {played}, but its environment and "
                f"policy now mean {self.settings.network}: go on with what it was started with"
            )

    async def _read_back(self, state: State) -> None:
        """Take everything that the broker still holds before publishing anything."""
        self._reader = self._bus.results(names.repeat_filter(self.settings.repeat))
        ask(state, self.limits())
        while bodies := await self._reader.fetch(FETCH, READ_BACK_SECONDS):
            for body in bodies:
                self._take(state, body, read_back=True)
        await self._purge_stale()

    async def publish(self, state: State) -> None:
        """Publish what is demanded now, but for what has come before it was demanded; tell both."""
        demands = ask(state, self.limits())
        while self._take_early(state):
            demands = ask(state, self.limits())
        self._progress(state)
        await self.publisher.publish(demands)

    async def collect(self, state: State) -> None:
        """Take the results that have arrived; return after some, or after a while without any."""
        if is_complete(state) or not state.open:
            return
        assert self._reader is not None
        bodies = await self._reader.fetch(FETCH, self._patience)
        for body in bodies:
            self._take(state, body)
        if bodies:
            self._quiet_since, self._patience = self._clock(), STALL_SECONDS
        elif state.open and self._clock() - self._quiet_since >= self._patience:
            self._patience = min(2 * self._patience, LONGEST_STALL_SECONDS)
            if not await self._bus.has_room():
                raise BrokerFull(
                    "this Experiment's stream of results on the broker is full, so no evaluator can "
                    "report; only evaluators write there, and what they should report would fit: use "
                    "an evaluator.image of this version; nothing that was saved is lost"
                )
            on_poison = self._live().failure_policy.on_poison
            await self.publisher.recover(state.open.values(), on_poison)

    def _take(self, state: State, body: bytes, *, read_back: bool = False) -> None:
        try:
            report = decode_result(body)
        except MessageError as exc:
            self._sink(Fault("unreadable_result", str(exc)))
            return
        outcome = tell(state, report.episode)
        if outcome is Outcome.UNKNOWN and report.episode.key.generation <= state.generation + 1:
            self._early[report.episode.key] = report.episode
        elif outcome is Outcome.STALE:
            self._stale.add((report.episode.key.generation, report.episode.key.purpose))
        self._sink(ResultTaken(outcome, report, read_back))

    async def _purge_stale(self) -> None:
        """Drop work that came too late, or that a process before this one did not drop."""
        while self._stale:
            await self._purge(*self._stale.pop())

    def _take_early(self, state: State) -> bool:
        known = [key for key in self._early if key in state.open]
        for key in known:
            tell(state, self._early.pop(key))
        return bool(known)

    def _progress(self, state: State) -> None:
        repeat, generation = self.settings.repeat, state.generation
        played = sum(1 for key in state.results if key.generation == generation)
        waiting = sum(1 for key in state.open if key.generation == generation)
        could_work = len(state.open) + self._recordings.open
        progress = Progress(repeat, generation, played, played + waiting, could_work)
        if progress != self._shown:
            self._shown = progress
            self._sink(progress)

    async def keep_tests(self, state: State) -> State:
        """Append the tests that were answered to the store, then stop waiting for them."""
        for report in completed_tests(state):
            row = report.row()
            await to_the_end(self._store.append_test, row)
            state = close_tests(state, [(report.generation, report.purpose)])
            # The row is durable, so a new process will not ask for the test again.
            await self._purge(report.generation, report.purpose)
            self._sink(TestFinished(self.settings.repeat, row))
        return state

    async def save(self, state: State) -> None:
        """Make the finished generation durable, then say so."""
        done, keep = state.finished, self._live().checkpoint
        assert done is not None

        def work() -> int:
            header = container.Header(self._uid, self.settings.repeat, done.generation)
            sealed = container.seal(header, checkpoint.encode(state))
            self._store.save(done.generation, sealed, done.row(), checkpoint.scores(done))
            best = done.best.generation if done.best else done.generation
            self._store.prune(keep.keep_last, keep.keep_every, best)
            return len(sealed)

        size = await to_the_end(work)
        now = self._clock()
        self._sink(GenerationFinished(done, now - self._generation_started, size))
        self._generation_started = now
        self._recordings.saved(done)

    async def tidy(self, state: State) -> None:
        """Drop from the broker what the checkpoint has made useless."""
        done = state.finished
        assert done is not None
        for purpose in (Purpose.POPULATION, Purpose.VALIDATION):
            await self._purge(done.generation, purpose)
        if state.stop is not None:  # its children were under way; the tests need not wait for them
            await self._purge(done.generation + 1, Purpose.POPULATION)
        await self._purge_stale()
        self._early = {k: e for k, e in self._early.items() if k.generation > done.generation}
        await self.publisher.forget_all_but(ask(state, self.limits()))

    async def _purge(self, generation: int, purpose: Purpose) -> None:
        repeat = self.settings.repeat
        await self._bus.purge(names.generation_filter(repeat, generation, purpose.name.lower()))

    async def finish_recordings(self, state: State) -> None:
        """Wait for the recordings that are still wanted, for a bounded time."""
        await self._recordings.finish(state.finished, lambda: self._progress(state))

    def stopped(self, state: State) -> None:
        """Say that the repeat is over."""
        assert state.stop is not None
        self._sink(Stopped(self.settings.repeat, state.stop))

    async def aclose(self) -> None:
        """Close the reader of results, and ask for no more recordings."""
        await self._recordings.aclose()
        if self._reader is not None:
            await self._reader.aclose()


def _row_of(payload: bytes) -> tuple[dict[str, object], bytes]:
    done = checkpoint.decode(payload).finished
    return done.row(), checkpoint.scores(done)
