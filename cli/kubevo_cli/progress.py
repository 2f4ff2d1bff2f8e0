"""Live progress of a run on stderr: a bar a repeat on a terminal, one line a generation anywhere."""

from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from kubevo_core import names
from kubevo_core.spec import Experiment
from kubevo_runtime import events
from kubevo_runtime.events import Event

__all__ = ["ProgressView"]


class ProgressView:
    """An event sink that shows what happens; a context manager.

    On a terminal the bars stay below the lines; elsewhere (a file, CI) there are lines only.
    """

    def __init__(self, experiment: Experiment, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._spec = experiment.spec
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.completed}/{task.total} episodes"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._tasks = {
            repeat: self._bars.add_task(self._name(repeat, 0), total=None)
            for repeat in range(experiment.spec.repeats)
        }
        self._show: dict[type, Callable[..., None]] = {
            events.Described: self._described,
            events.WarmStarted: self._warm_started,
            events.Resumed: self._resumed,
            events.Progress: self._progressed,
            events.GenerationFinished: self._finished,
            events.TestFinished: self._tested,
            events.Recorded: self._recorded,
            events.Stopped: self._stopped,
            events.Fault: self._fault,
        }
        self._faults: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        show = self._show.get(type(event))
        if show is not None:
            show(event)

    def note(self, text: str) -> None:
        """Show a line of plain text."""
        self._line(escape(text))

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def _name(self, repeat: int, generation: int) -> str:
        prefix = f"repeat {repeat} " if self._spec.repeats > 1 else ""
        return f"{prefix}generation {generation}"

    def _described(self, event: events.Described) -> None:
        found = event.description
        self._line(
            f"{self._spec.environment.id}: {found.observation} -> {found.actions}; "
            f"network {found.network}, backend {found.backend}"
        )

    def _warm_started(self, event: events.WarmStarted) -> None:
        genomes, source = event.imported.genomes, event.imported.source
        many = "genomes" if len(genomes) > 1 else "genome"
        self._line(f"warm start: {len(genomes)} {many} of {source}")

    def _resumed(self, event: events.Resumed) -> None:
        self._line(f"resumed after {self._name(event.repeat, event.generation)}")
        for reason in event.skipped:
            self._line(f"[yellow]skipped a checkpoint: {escape(reason)}[/]")

    def _progressed(self, event: events.Progress) -> None:
        self._bars.update(
            self._tasks[event.repeat],
            description=self._name(event.repeat, event.generation),
            completed=event.played,
            total=event.wanted,
        )

    def _finished(self, event: events.GenerationFinished) -> None:
        row = event.finished.row()
        fitness, elite, best = row["fitness"], row["elite"], row["best"]
        failed = f"  failed {row['failed']}" if row["failed"] else ""
        self._line(
            f"{self._name(event.finished.repeat, event.finished.generation)}  "
            f"max {_number(fitness['max'])}  mean {_number(fitness['mean'])}  "
            f"[bold]elite {_number(elite['mean'] if elite else None)}[/]  "
            f"best {_number(best['mean'] if best else None)}  "
            f"frames {row['frames']:,}  {event.seconds:.1f} s{failed}"
        )

    def _tested(self, event: events.TestFinished) -> None:
        row = event.row
        # The best may be of an earlier generation than the one in which it is tested.
        final = row["purpose"] == "final"
        what = "the best genome" if final else f"generation {row['generation']}'s elite"
        self._line(
            f"{row['purpose']} test of {what}: mean {_number(row['mean'])} over "
            f"{row['episodes']} held-out episodes"
        )

    def _recorded(self, event: events.Recorded) -> None:
        file = f"{names.repeat_folder(event.repeat)}/videos/{names.video_file(event.generation)}"
        self._line(f"{self._name(event.repeat, event.generation)} recorded: {file}")

    def _stopped(self, event: events.Stopped) -> None:
        self._bars.remove_task(self._tasks[event.repeat])
        self._line(f"{self._name(event.repeat, 0).rsplit('generation', 1)[0]}stopped: {event.stop}")

    def _fault(self, event: events.Fault) -> None:
        # The first of a kind is news, then every power of two: a storm must not scroll all away.
        count = self._faults[event.kind] = self._faults.get(event.kind, 0) + 1
        if count & (count - 1) == 0:
            times = f" (x{count})" if count > 1 else ""
            self._line(f"[yellow]{event.kind}{times}: {escape(event.message)}[/]")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
