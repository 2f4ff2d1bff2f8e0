"""``kubevo plot``: learning curves as a picture.

One search shows its best, elite and population mean. Several searches of the same settings
(repeats, or directories that differ in the seed alone) become one curve: the median over searches
with its 95 % bootstrap band. Searches of different settings get a colour each. A search that has
stopped keeps its last value, so that the early winners do not drop out of the median.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kubevo_cli import output
from kubevo_cli.export import require_writable, write_atomically
from kubevo_cli.sources import experiment_of, open_only_run
from kubevo_core.errors import RunNotFound, UserError
from kubevo_core.spec import Experiment
from kubevo_runtime.intervals import median_band

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot", "report"]

SUFFIXES = [".pdf", ".png", ".svg"]
# Metric -> legend, colour where there is one group, line, width.
METRICS: dict[str, tuple[str, str, str, float]] = {
    "best": ("best so far (validated)", "#0b5cad", "-", 3.0),
    "elite": ("elite of the generation", "#d9730d", "-", 1.2),
    "fitness": ("population mean", "#6b7280", "--", 1.6),
}
GROUP_COLOURS = ("#0b5cad", "#d9730d", "#16803c", "#a21caf", "#b91c1c", "#0e7490", "#854d0e")
MOST_POINTS = 1000
SIZE_INCHES, DOTS_PER_INCH = (12.0, 7.5), 100
X_LABELS = {"generation": "generation", "frames": "frames played"}
History = list[dict[str, Any]]
Points = npt.NDArray[np.float64]


@dataclass
class Group:
    """Searches with the same settings but for the seed."""

    name: str
    environment: str
    histories: list[History] = field(default_factory=list)

    @property
    def label(self) -> str:
        """What a legend calls it."""
        count = len(self.histories)
        return f"{self.name} ({count} searches)" if count > 1 else self.name


def plot(
    directories: Sequence[Path], target: Path, x: str, repeat: int | None, *, force: bool
) -> int:
    """Draw the runs in ``directories`` to ``target`` and return how many searches it shows.

    ``x`` is ``generation`` or ``frames``.

    Raises:
        UserError: the file's name cannot be used.
        RunNotFound: a directory holds no run, or no generation is finished yet.
    """
    require_writable(target, SUFFIXES, force=force)
    groups = _groups(directories, repeat)
    # The figure is used without pyplot: no global state, no display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for index, group in enumerate(groups):
        colour = GROUP_COLOURS[index % len(GROUP_COLOURS)] if len(groups) > 1 else None
        _draw(axes, group, x, colour)
    _decorate(axes, groups, x)
    write_atomically(target, figure.savefig)
    return sum(len(group.histories) for group in groups)


def _groups(directories: Sequence[Path], repeat: int | None) -> list[Group]:
    groups: dict[str, Group] = {}
    runs = {run.path: run for run in map(open_only_run, directories)}
    for run in runs.values():
        experiment = experiment_of(run)
        repeats = range(experiment.spec.repeats) if repeat is None else [repeat]
        if repeat is not None and not 0 <= repeat < experiment.spec.repeats:
            raise UserError(
                f"--repeat {repeat}: {run.path} has repeats 0 to {experiment.spec.repeats - 1}"
            )
        histories = [history for r in repeats if (history := run.repeat(r).history())]
        if not histories:
            raise RunNotFound(
                f"{run.path}: no generation is finished yet; there is nothing to plot"
            )
        group = groups.setdefault(
            _settings(experiment), Group(run.name, experiment.spec.environment.id)
        )
        group.histories += histories
    return _distinctly_named(list(groups.values()))


def _settings(experiment: Experiment) -> str:
    document = experiment.spec.document()
    return json.dumps([document[name] for name in ("environment", "policy", "algorithm")])


def _distinctly_named(groups: list[Group]) -> list[Group]:
    seen: dict[str, int] = {}
    for group in groups:
        seen[group.name] = seen.get(group.name, 0) + 1
        if seen[group.name] > 1:
            group.name = f"{group.name} ({seen[group.name]})"
    return groups


def _draw(axes: "Axes", group: Group, x: str, colour: str | None) -> None:
    grid = _grid(group.histories, x)
    # Compared groups show the best and the mean; three lines each would be a thicket.
    for metric in METRICS if colour is None else ("best", "fitness"):
        label, own, line, width = METRICS[metric]
        table = np.array([_carried(history, metric, x, grid) for history in group.histories])
        seen = ~np.isnan(table).any(axis=0)  # from where all searches have a value
        if not seen.any():
            continue
        middle, low, high = median_band(table[:, seen])
        shown = own if colour is None else colour
        axes.plot(
            grid[seen],
            middle,
            line,
            color=shown,
            linewidth=width,
            label=label if colour is None else f"{group.label}: {label}",
            marker="o" if seen.sum() == 1 else "",
            # Searches do not finish generations at the same frames: between two, values are held.
            drawstyle="steps-post" if x == "frames" else "default",
        )
        if len(group.histories) > 1:
            axes.fill_between(
                grid[seen],
                low,
                high,
                step="post" if x == "frames" else None,
                color=shown,
                alpha=0.16,
                linewidth=0,
            )


def _x(row: dict[str, Any], x: str) -> float:
    return float(row[x])


def _grid(histories: Sequence[History], x: str) -> Points:
    points = np.unique([_x(row, x) for history in histories for row in history])
    if len(points) > MOST_POINTS:
        points = points[np.linspace(0, len(points) - 1, MOST_POINTS).astype(int)]
    return points.astype(np.float64)


def _carried(history: History, metric: str, x: str, grid: Points) -> Points:
    """Return the metric at each point of ``grid``: the last value so far, NaN before the first."""
    at = np.array([_x(row, x) for row in history])
    values = np.array(
        [np.nan if (value := (row[metric] or {}).get("mean")) is None else value for row in history]
    )
    known = ~np.isnan(values)
    index = np.searchsorted(at[known], grid, side="right") - 1
    if not known.any():
        return np.full(len(grid), np.nan)
    return np.where(index >= 0, values[known][np.maximum(index, 0)], np.nan)


def _decorate(axes: "Axes", groups: Sequence[Group], x: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlabel(X_LABELS[x], fontsize=13)
    axes.set_ylabel("episode return", fontsize=13)
    environments = ", ".join(dict.fromkeys(group.environment for group in groups))
    title = f"{environments}: {groups[0].label}" if len(groups) == 1 else environments
    if any(len(group.histories) > 1 for group in groups):
        title += "\nmedian over searches, band: 95 % bootstrap interval"
    axes.set_title(title, fontsize=14, loc="left")
    axes.tick_params(labelsize=11)
    axes.grid(visible=True, alpha=0.25)
    axes.margins(x=0.02)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if x == "frames":
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=11, frameon=True, framealpha=0.8, edgecolor="none", loc="best")


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def report(target: Path, searches: int, form: str) -> None:
    """Say what was written."""
    if form == "json":
        output.write_json({"file": str(target), "searches": searches})
    else:
        output.write(f"{target}: {searches} search{'es' if searches != 1 else ''}")
