"""The command line: every command with its arguments and help, and nothing else.

The commands' modules are imported when they run, so that ``kubevo --help`` stays fast and only the
commands that play need the evaluator's libraries.
"""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kubevo_cli.cluster import commands as cluster_commands
from kubevo_cli.cluster import flags
from kubevo_cli.cluster.flags import Json, JsonOutput

__all__ = ["app"]

RUN_PANEL, RESULTS_PANEL, ABOUT_PANEL = "Search", "Results", "This installation"


class HistoryForm(StrEnum):
    """How a history is printed."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"


class Backend(StrEnum):
    """Who computes the network."""

    AUTO = "auto"
    NATIVE = "native"
    NUMPY = "numpy"
    TORCH = "torch"


class Precision(StrEnum):
    """The number format of the weights."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Axis(StrEnum):
    """What a curve is drawn over."""

    GENERATION = "generation"
    FRAMES = "frames"


app = typer.Typer(
    name="kubevo",
    help="Evolve neural-network policies, on this machine or on Kubernetes.",
    epilog="Start with: kubevo run examples/cartpole.yaml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change one field, such as spec.seed=7; null unsets it. May be repeated.",
    ),
]
ExperimentFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="Experiment in YAML; - reads stdin.")
]
Directory = Annotated[
    Path, typer.Argument(metavar="DIR", help="A run's directory, or one that holds one run.")
]
Repeat = Annotated[
    int | None,
    typer.Option("--repeat", min=0, help="Which repeat; default: the one with the highest best."),
]
GenomeSource = Annotated[
    str,
    typer.Argument(
        metavar="GENOME|DIR",
        help="A genome's text, a file that holds one (text or JSON), - for stdin, or a run's "
        "directory, whose best is taken.",
    ),
]
EnvironmentId = Annotated[
    str | None,
    typer.Option("--env", metavar="ID", help="Environment id; default: the run's own."),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=2**64 - 1, help="Seeds the episodes, and nothing else.")
]
ChosenBackend = Annotated[
    Backend | None,
    typer.Option("--backend", help="Who computes the network; default: as in the run, or auto."),
]
ChosenPrecision = Annotated[
    Precision | None,
    typer.Option(
        "--precision",
        help="Number format of the weights; default: as in the run or the JSON, or float32.",
    ),
]
EnvironmentAssignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change the environment, such as spec.environment.maxEpisodeSteps=500.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")]


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity is not None else os.cpu_count() or 1)


def _log_to_stderr() -> None:
    # Without this, log lines go to stdout, between the data. Only what plays has something to log.
    from kubevo_runtime.logs import configure

    configure("console")


@app.command(rich_help_panel=RUN_PANEL)
def run(
    file: ExperimentFile,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Worker processes; default: the cores of this machine."),
    ] = None,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Where runs are kept.", file_okay=False)
    ] = Path("kubevo-data"),
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run of this name, or start it."),
    ] = False,
    assignments: Assignments = None,
    output: JsonOutput = Json.TEXT,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve Prometheus metrics there; 0: any free port."),
    ] = None,
) -> None:
    """Run an Experiment on this machine; Ctrl-C leaves it resumable."""
    from kubevo_cli.options import RunOptions
    from kubevo_cli.run import run as run_locally

    _log_to_stderr()
    options = RunOptions(
        file=file,
        workers=_cores() if workers is None else workers,
        data=data,
        resume=resume,
        assignments=tuple(assignments or ()),
        output="json" if output is Json.JSON else "text",
        metrics_port=metrics_port,
    )
    raise typer.Exit(run_locally(options))


@app.command(rich_help_panel=RUN_PANEL)
def validate(
    file: ExperimentFile,
    assignments: Assignments = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print the complete spec, with all defaults.")
    ] = False,
    output: JsonOutput = Json.TEXT,
) -> None:
    """Check an Experiment file and tell all its problems."""
    from kubevo_cli.validate import validate as check

    raise typer.Exit(check(file, assignments or (), output.value, show=show))


@app.command(rich_help_panel=RESULTS_PANEL)
def history(
    directory: Directory,
    repeat: Repeat = None,
    output: Annotated[
        HistoryForm, typer.Option("--output", help="How data is printed to stdout.")
    ] = HistoryForm.TEXT,
) -> None:
    """Show each generation of a run; frames and seconds count from its start."""
    from kubevo_cli.results import show_history

    show_history(directory, repeat, output.value)


@app.command(rich_help_panel=RESULTS_PANEL)
def best(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR|NAME",
            help="A directory with a run; what is no path here is an Experiment on a cluster.",
        ),
    ],
    *,
    repeat: Repeat = None,
    genome: Annotated[
        bool, typer.Option("--genome", help="Print the genome's text and nothing else.")
    ] = False,
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="FORM|FILE",
            help="text, wide, json or yaml; or a file to write, such as model.safetensors, x.onnx, "
            "x.json or policy.py.",
        ),
    ] = "text",
    force: Force = False,
    namespace: flags.Namespace = None,
    context: flags.Context = None,
    kubeconfig: flags.Kubeconfig = None,
    service: flags.ServiceUrl = None,
    token: flags.Token = None,
    service_namespace: flags.ServiceNamespace = cluster_commands.SYSTEM,
    service_account: flags.ServiceAccount = cluster_commands.ACCOUNT,
) -> None:
    """Show the best genome of a run or an Experiment, or write it to a file."""
    from kubevo_cli.cluster.best import best as show
    from kubevo_cli.cluster.options import ClusterOptions, ServiceOptions

    show(
        source,
        repeat,
        output,
        ClusterOptions(namespace, context=context, kubeconfig=kubeconfig),
        ServiceOptions(service, token, service_namespace, service_account),
        genome_only=genome,
        force=force,
    )


@app.command(rich_help_panel=RESULTS_PANEL)
def evaluate(
    source: GenomeSource,
    *,
    environment: EnvironmentId = None,
    episodes: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="How many episodes to play.")
    ] = 30,
    seed: Seed = 0,
    backend: ChosenBackend = None,
    precision: ChosenPrecision = None,
    assignments: EnvironmentAssignments = None,
    repeat: Repeat = None,
    output: JsonOutput = Json.TEXT,
) -> None:
    """Play fresh episodes and tell their mean with a 95 % interval."""
    from kubevo_cli.playing import PlayOptions
    from kubevo_cli.playing import evaluate as play_all

    _log_to_stderr()
    options = PlayOptions(
        source,
        environment,
        seed,
        backend and backend.value,
        precision and precision.value,
        tuple(assignments or ()),
        repeat,
        output.value,
    )
    raise typer.Exit(play_all(options, episodes))


@app.command(rich_help_panel=RESULTS_PANEL)
def play(
    source: GenomeSource,
    *,
    environment: EnvironmentId = None,
    seed: Seed = 0,
    record: Annotated[
        Path | None,
        typer.Option(metavar="FILE.mp4", help="Write a video, one picture a step."),
    ] = None,
    fps: Annotated[
        int | None,
        typer.Option(
            min=1, max=240, help="Pictures a second; default: the game's own speed (Atari: 15)."
        ),
    ] = None,
    backend: ChosenBackend = None,
    precision: ChosenPrecision = None,
    assignments: EnvironmentAssignments = None,
    repeat: Repeat = None,
    force: Force = False,
    output: JsonOutput = Json.TEXT,
) -> None:
    """Play one episode; with --record as a video."""
    from kubevo_cli.playing import PlayOptions
    from kubevo_cli.playing import play as play_one

    _log_to_stderr()
    options = PlayOptions(
        source,
        environment,
        seed,
        backend and backend.value,
        precision and precision.value,
        tuple(assignments or ()),
        repeat,
        output.value,
    )
    raise typer.Exit(play_one(options, record, fps, force=force))


@app.command(rich_help_panel=RESULTS_PANEL)
def export(
    source: GenomeSource,
    target: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="x.safetensors (weights), x.onnx, x.py (plays the weights), x.md (card), x.json.",
        ),
    ],
    repeat: Repeat = None,
    force: Force = False,
    output: JsonOutput = Json.TEXT,
) -> None:
    """Write a genome as weights, as ONNX, or with a script that plays it."""
    from kubevo_cli.export import export as write

    write(source, target, repeat, output.value, force=force)


@app.command(rich_help_panel=RESULTS_PANEL)
def plot(
    directories: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Runs; those that differ in the seed become one."),
    ],
    target: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="A .png, .svg or .pdf file.")
    ],
    x: Annotated[Axis, typer.Option("--x", help="What to draw over.")] = Axis.GENERATION,
    repeat: Annotated[
        int | None, typer.Option("--repeat", min=0, help="Only this repeat; default: all.")
    ] = None,
    force: Force = False,
    output: JsonOutput = Json.TEXT,
) -> None:
    """Draw learning curves; several searches as median and 95 % band."""
    from kubevo_cli.plot import plot as draw
    from kubevo_cli.plot import report

    count = draw(directories, target, x.value, repeat, force=force)
    report(target, count, output.value)


@app.command(rich_help_panel=RESULTS_PANEL)
def serve(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where runs are kept (kubevo run --data).")
    ] = Path("kubevo-data"),
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0: any free one.")
    ] = 8000,
) -> None:
    """Show a directory's runs in the browser: curves, populations, models, videos."""
    from kubevo_cli.serve import serve as serve_directory

    _log_to_stderr()
    serve_directory(directory, port)


app.add_typer(cluster_commands.commands)


@app.command(rich_help_panel=ABOUT_PANEL)
def networks(
    identifier: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Show this network's tensors.")
    ] = None,
    output: JsonOutput = Json.TEXT,
) -> None:
    """List the networks that a genome can stand for."""
    from kubevo_cli.inventory import show_network, show_networks

    if identifier is None:
        show_networks(output.value)
    else:
        show_network(identifier, output.value)


@app.command(rich_help_panel=ABOUT_PANEL)
def environments(
    containing: Annotated[
        str, typer.Option("--filter", metavar="TEXT", help="Only ids that contain this.")
    ] = "",
    output: JsonOutput = Json.TEXT,
) -> None:
    """List the environments that this installation can play."""
    from kubevo_cli.inventory import show_environments

    show_environments(containing, output.value)


@app.command(rich_help_panel=ABOUT_PANEL)
def version(output: JsonOutput = Json.TEXT) -> None:
    """Show versions, the broker and the backends of this installation."""
    from kubevo_cli.inventory import show_versions

    show_versions(output.value)
