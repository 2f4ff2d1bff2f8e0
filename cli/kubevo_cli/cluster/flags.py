"""The flags of the commands for a cluster; kubectl's where kubectl has them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "AllNamespaces",
    "Context",
    "Form",
    "Json",
    "JsonOutput",
    "Kubeconfig",
    "Namespace",
    "Output",
    "ServiceAccount",
    "ServiceNamespace",
    "ServiceUrl",
    "Token",
]

CLUSTER_OPTIONS, SERVICE_OPTIONS = "Cluster", "Service"


class Form(StrEnum):
    """How data is printed."""

    TEXT = "text"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


class Json(StrEnum):
    """How data is printed that is no object of Kubernetes."""

    TEXT = "text"
    JSON = "json"


JsonOutput = Annotated[Json, typer.Option("--output", help="How data is printed to stdout.")]

Namespace = Annotated[
    str | None,
    typer.Option(
        "-n",
        "--namespace",
        metavar="NAME",
        help="Where the Experiment is; default: the context's namespace.",
        rich_help_panel=CLUSTER_OPTIONS,
    ),
]
AllNamespaces = Annotated[
    bool,
    typer.Option(
        "-A", "--all-namespaces", help="Of all namespaces.", rich_help_panel=CLUSTER_OPTIONS
    ),
]
Context = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="NAME",
        help="The kubeconfig's context; default: the current one.",
        rich_help_panel=CLUSTER_OPTIONS,
    ),
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        "--kubeconfig",
        metavar="FILE",
        help="Default: KUBECONFIG, else ~/.kube/config.",
        rich_help_panel=CLUSTER_OPTIONS,
    ),
]
Output = Annotated[Form, typer.Option("-o", "--output", help="How data is printed to stdout.")]
ServiceUrl = Annotated[
    str | None,
    typer.Option(
        "--service",
        metavar="URL",
        envvar="KUBEVO_SERVICE",
        help="The REST service; default: a port-forward to its pod.",
        rich_help_panel=SERVICE_OPTIONS,
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TEXT",
        envvar="KUBEVO_TOKEN",
        show_envvar=True,
        help="A token for the service; default: a fresh one of --service-account.",
        rich_help_panel=SERVICE_OPTIONS,
    ),
]
ServiceNamespace = Annotated[
    str,
    typer.Option(
        "--service-namespace",
        metavar="NAME",
        help="Where the service's pod is.",
        rich_help_panel=SERVICE_OPTIONS,
    ),
]
ServiceAccount = Annotated[
    str,
    typer.Option(
        "--service-account",
        metavar="[NAMESPACE/]NAME",
        help="Whose rights the service sees, where no token is given.",
        rich_help_panel=SERVICE_OPTIONS,
    ),
]
