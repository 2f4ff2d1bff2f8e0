"""``kubevo best``: of a run's directory, or of an Experiment on a cluster, by one rule.

What is there on this machine, or is written as a path, is local; every other name is an Experiment.
"""

import os
from pathlib import Path

from kubevo_cli.cluster.commands import require_cluster
from kubevo_cli.cluster.options import ClusterOptions, ServiceOptions
from kubevo_core.errors import UserError

__all__ = ["best", "is_local"]


def is_local(source: str) -> bool:
    """Tell whether an argument names something on this machine."""
    return os.sep in source or source in (".", "..") or Path(source).exists()


def best(
    source: str,
    repeat: int | None,
    form: str,
    cluster: ClusterOptions,
    service: ServiceOptions,
    *,
    genome_only: bool,
    force: bool,
) -> None:
    """Print the best genome, or write it to the file that ``form`` names.

    Raises:
        UserError: ``form`` is none and names no file, or no cluster is known.
        KubevoError: as `kubevo_cli.results` and `kubevo_cli.cluster.results` say.
    """
    if is_local(source):
        _local(Path(source), repeat, form, genome_only=genome_only, force=force)
        return
    require_cluster()
    from kubevo_cli.cluster import results
    from kubevo_cli.cluster.kubernetes_api import NoCluster

    try:
        target = results.file_for(form)
        if target is None:
            results.show_best(source, repeat, form, cluster, service, genome_only=genome_only)
        else:
            results.download_best(source, repeat, target, cluster, service, force=force)
    except NoCluster as exc:
        raise UserError(f"{source} is no directory here, and as an Experiment: {exc}") from exc


def _local(
    directory: Path, repeat: int | None, form: str, *, genome_only: bool, force: bool
) -> None:
    if form in ("text", "json"):
        from kubevo_cli.results import show_best

        show_best(directory, repeat, form, genome_only=genome_only)
    elif form in ("wide", "yaml"):
        raise UserError(f"-o {form}: expected text or json for a directory")
    else:
        from kubevo_cli.export import export

        export(str(directory), Path(form), repeat, "text", force=force)
