"""The commands for a cluster with their arguments and help, and nothing else.

Modules are imported when a command runs, as in `kubevo_cli.app`.
"""

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from kubevo_cli.cluster.flags import (
    AllNamespaces,
    Context,
    Form,
    Json,
    JsonOutput,
    Kubeconfig,
    Namespace,
    Output,
    ServiceAccount,
    ServiceNamespace,
    ServiceUrl,
    Token,
)
from kubevo_cli.cluster.options import ClusterOptions, ServiceOptions

__all__ = ["commands", "require_cluster"]

PANEL = "On a cluster"
SYSTEM, ACCOUNT = "kubevo-system", "kubevo-user"

commands = typer.Typer()

Name = Annotated[str, typer.Argument(metavar="NAME", help="An Experiment's name.")]
MaybeName = Annotated[
    str | None, typer.Argument(metavar="NAME", help="An Experiment's name; default: all.")
]
Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Experiments' names.")]


def require_cluster() -> None:
    """Refuse to go on where the Kubernetes client is not installed.

    Raises:
        UserError: it is not.
    """
    from kubevo_core.errors import UserError

    if importlib.util.find_spec("kubernetes") is None:
        raise UserError(
            "the Kubernetes client is not installed here: pip install 'kubevo[cli]'; local runs are "
            "named by their directory"
        )


def _where(
    namespace: str | None, context: str | None, kubeconfig: object, *, everywhere: bool = False
) -> ClusterOptions:
    require_cluster()
    return ClusterOptions(namespace, everywhere, context, kubeconfig)  # type: ignore[arg-type]


@commands.command(rich_help_panel=PANEL)
def get(
    name: MaybeName = None,
    namespace: Namespace = None,
    all_namespaces: AllNamespaces = False,
    output: Output = Form.TEXT,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show an Experiment, or list all of a namespace."""
    where = _where(namespace, context, kubeconfig, everywhere=all_namespaces)
    from kubevo_cli.cluster import looking

    if name is None:
        looking.list_all(where, output.value)
    else:
        looking.get(name, where, output.value)


@commands.command(rich_help_panel=PANEL)
def ls(
    namespace: Namespace = None,
    all_namespaces: AllNamespaces = False,
    output: Output = Form.TEXT,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List the Experiments of a namespace, or of all with -A."""
    get(None, namespace, all_namespaces, output, context, kubeconfig)


@commands.command(rich_help_panel=PANEL)
def watch(
    name: MaybeName = None,
    namespace: Namespace = None,
    all_namespaces: AllNamespaces = False,
    output: Output = Form.TEXT,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Give up then; default: never."),
    ] = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show progress until the searches have ended; exit code 1 if one failed."""
    where = _where(namespace, context, kubeconfig, everywhere=all_namespaces)
    from kubevo_cli.cluster import looking

    raise typer.Exit(looking.watch(name, where, output.value, timeout))


@commands.command(rich_help_panel=PANEL)
def logs(
    name: Name,
    *,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the search has ended.")
    ] = False,
    evaluators: Annotated[
        bool, typer.Option("--evaluators", help="What the evaluators' pods say.")
    ] = False,
    tail: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Failed episodes, or lines of each evaluator."),
    ] = 100,
    repeat: Annotated[
        int | None,
        typer.Option("--repeat", min=0, help="Whose failures; default: the repeat with the best."),
    ] = None,
    namespace: Namespace = None,
    output: Annotated[
        Form, typer.Option("-o", "--output", help="text, or json: one object a line.")
    ] = Form.TEXT,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    service: ServiceUrl = None,
    token: Token = None,
    service_namespace: ServiceNamespace = SYSTEM,
    service_account: ServiceAccount = ACCOUNT,
) -> None:
    """Tell what happened to a search and which episodes failed."""
    where = _where(namespace, context, kubeconfig)
    from kubevo_cli.cluster.logs import evaluator_logs, search_logs

    if evaluators:
        evaluator_logs(name, where, tail=tail, follow=follow)
        return
    search_logs(
        name,
        where,
        ServiceOptions(service, token, service_namespace, service_account),
        repeat=repeat,
        tail=tail,
        follow=follow,
        form=output.value,
    )


@commands.command(rich_help_panel=PANEL)
def compare(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Experiments' names, or namespace/name."),
    ],
    *,
    namespace: Namespace = None,
    output: Output = Form.TEXT,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    service: ServiceUrl = None,
    token: Token = None,
    service_namespace: ServiceNamespace = SYSTEM,
    service_account: ServiceAccount = ACCOUNT,
) -> None:
    """Compare what searches ended with, over their repeats."""
    where = _where(namespace, context, kubeconfig)
    from kubevo_cli.cluster.results import compare as show

    at = ServiceOptions(service, token, service_namespace, service_account)
    show(names, output.value, where, at)


@commands.command(rich_help_panel=PANEL)
def suspend(
    names: Names,
    namespace: Namespace = None,
    output: Output = Form.TEXT,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Pause searches; nothing is lost, and their evaluators go."""
    where = _where(namespace, context, kubeconfig)
    from kubevo_cli.cluster import changing

    changing.suspend(names, where, output.value)


@commands.command(rich_help_panel=PANEL)
def resume(
    names: Names,
    namespace: Namespace = None,
    output: Output = Form.TEXT,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Let paused searches go on."""
    where = _where(namespace, context, kubeconfig)
    from kubevo_cli.cluster import changing

    changing.resume(names, where, output.value)


@commands.command(rich_help_panel=PANEL)
def stop(
    names: Names,
    namespace: Namespace = None,
    output: Output = Form.TEXT,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """End searches after the generation that runs now, with their final tests."""
    where = _where(namespace, context, kubeconfig)
    from kubevo_cli.cluster import changing

    changing.stop(names, where, output.value)


@commands.command(rich_help_panel=PANEL)
def extend(
    name: Name,
    *,
    generations: Annotated[
        str | None,
        typer.Option(metavar="N|+N", help="Generations in all, or +N for so many more."),
    ] = None,
    frames: Annotated[
        str | None, typer.Option(metavar="N|+N", help="Frames in all, or more.")
    ] = None,
    seconds: Annotated[
        str | None, typer.Option(metavar="N|+N", help="Running time in all, or more.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="FITNESS", help="Stop when an elite reaches it.")
    ] = None,
    namespace: Namespace = None,
    output: Output = Form.TEXT,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Change a search's budget; a finished one goes on if it is larger."""
    where = _where(namespace, context, kubeconfig)
    from kubevo_cli.cluster import changing

    budget = {
        "--generations": generations,
        "--frames": frames,
        "--seconds": seconds,
        "--target": target,
    }
    changing.extend(name, budget, where, output.value)


@commands.command(rich_help_panel=PANEL)
def push(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A run's directory, or one that holds one run.")
    ],
    *,
    name: Annotated[
        str | None, typer.Option("--name", help="The Experiment's name; default: the run's.")
    ] = None,
    suspended: Annotated[
        bool, typer.Option("--suspended", help="Leave it suspended; kubevo resume lets it go on.")
    ] = False,
    namespace: Namespace = None,
    output: JsonOutput = Json.TEXT,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    service_namespace: ServiceNamespace = SYSTEM,
) -> None:
    """Let a search that was begun on this machine go on in the cluster, to the same bytes."""
    where = _where(namespace, context, kubeconfig)
    from kubevo_cli.cluster import moving

    moving.push(directory, name, where, service_namespace, output.value, suspended=suspended)


@commands.command(rich_help_panel=PANEL)
def pull(
    name: Name,
    *,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Where runs are kept.", file_okay=False)
    ] = Path("kubevo-data"),
    namespace: Namespace = None,
    output: JsonOutput = Json.TEXT,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    service: ServiceUrl = None,
    token: Token = None,
    service_namespace: ServiceNamespace = SYSTEM,
    service_account: ServiceAccount = ACCOUNT,
) -> None:
    """Fetch a search from the cluster, to go on with it on this machine; suspend it there first."""
    where = _where(namespace, context, kubeconfig)
    from kubevo_cli.cluster import moving

    at = ServiceOptions(service, token, service_namespace, service_account)
    moving.pull(name, data, where, at, output.value)
