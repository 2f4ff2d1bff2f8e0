"""``best`` and ``compare`` of Experiments on a cluster, as the service tells them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from kubevo_cli import output
from kubevo_cli.cluster.options import ClusterOptions, ServiceOptions
from kubevo_cli.cluster.service import open_service
from kubevo_client import Best
from kubevo_core.errors import UserError

__all__ = ["FORMS", "compare", "download_best", "file_for", "show_best"]

FORMS = ("text", "wide", "json", "yaml")
LONGEST_GENOME = 160
# What a file's name says that it shall be.
FILES = {
    ".json": "genome.json",
    ".md": "README.md",
    ".mp4": "video.mp4",
    ".onnx": "model.onnx",
    ".py": "policy.py",
    ".safetensors": "model.safetensors",
}


def file_for(text: str) -> Path | None:
    """Return the file that ``-o`` names, or None where it names a form.

    Raises:
        UserError: it is neither.
    """
    if text in FORMS:
        return None
    path = Path(text)
    if path.suffix not in FILES:
        raise UserError(
            f"-o {text}: expected {', '.join(FORMS)}, or a file to write that ends in "
            f"{', '.join(FILES)}"
        )
    return path


def show_best(
    name: str,
    repeat: int | None,
    form: str,
    cluster: ClusterOptions,
    service: ServiceOptions,
    *,
    genome_only: bool,
) -> None:
    """Print the best genome of an Experiment and how good it is.

    Raises:
        KubevoError: as `kubevo_client.errors` and `kubevo_cli.cluster.kubernetes_api` say.
    """
    client, namespace = open_service(cluster, service)
    experiment = client.experiment(name, namespace)
    best = experiment.best(repeat)
    if genome_only:
        output.write(best.genome.text)
        return
    detail = experiment.detail()
    document = _document(best, detail)
    if form == "json":
        output.write_json(document)
    elif form == "yaml":
        output.write(yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip("\n"))
    else:
        _write(best, document, int(detail["repeats"]), wide=form == "wide")


def _document(best: Best, detail: Mapping[str, Any]) -> dict[str, Any]:
    algorithm = detail["spec"].get("algorithm") or {}
    genetic = algorithm.get("geneticAlgorithm") or {}
    return {
        "namespace": detail["namespace"],
        "experiment": detail["name"],
        "environment": detail["environment"],
        "fitness": best.fitness,
        "validationEpisodes": genetic.get("eliteEpisodes"),
        "genome": best.genome.text,
        "digest": best.digest,
        "generation": best.generation,
        "repeat": best.repeat,
        "mutations": len(best.genome.mutations),
        "precision": best.precision,
        "finalTest": best.document.get("finalTest"),
    }


def _write(best: Best, document: Mapping[str, Any], repeats: int, *, wide: bool) -> None:
    text, episodes = best.genome.text, document["validationEpisodes"]
    is_cut = len(text) > LONGEST_GENOME and not wide
    output.write_fields(
        {
            "score": f"{output.number(best.fitness)}"
            + (f" (mean of {episodes} validation episodes)" if episodes else ""),
            "generation": str(best.generation),
            "repeat": f"{best.repeat} of {repeats}",
            "environment": document["environment"],
            "test": _test_text(document["finalTest"]),
            "mutations": str(document["mutations"]),
            "precision": document["precision"],
            "digest": best.digest,
            "genome": f"{text[:LONGEST_GENOME]}… (all of it: --genome)" if is_cut else text,
        }
    )
    name = document["experiment"]
    output.say(
        f"\nnext:\n  kubevo best {name} -o model.safetensors\n"
        f"  kubevo best {name} -o policy.py && python policy.py --episodes 100"
    )


def _test_text(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return "none yet (the best is tested when the search stops)"
    low, high = test["ci95"] or (None, None)
    between = f", 95 % CI {output.number(low)} to {output.number(high)}" if test["ci95"] else ""
    return f"{output.number(test['mean'])}{between} (mean of {test['episodes']} fresh episodes)"


def download_best(
    name: str,
    repeat: int | None,
    target: Path,
    cluster: ClusterOptions,
    service: ServiceOptions,
    *,
    force: bool,
) -> None:
    """Write the best genome as the file that ``target`` is named for.

    Raises:
        UserError: it exists already, or there is nothing to write.
        KubevoError: as `show_best` does.
    """
    client, namespace = open_service(cluster, service)
    best = client.experiment(name, namespace).best(repeat)
    file = FILES[target.suffix]
    best.download(file, target, force=force)
    output.write_fields(
        {
            "file": str(target),
            "score": output.number(best.fitness),
            "genome": best.digest,
            "bytes": output.number(target.stat().st_size),
        }
    )
    if file == "policy.py" and not target.with_name("model.safetensors").exists():
        output.say(
            f"it plays the weights beside it: kubevo best {name} -o "
            f"{target.with_name('model.safetensors')}"
        )


def compare(
    names: Sequence[str], form: str, cluster: ClusterOptions, service: ServiceOptions
) -> None:
    """Print Experiments side by side, the best first: interquartile means over their repeats.

    Raises:
        KubevoError: as `show_best` does.
    """
    client, namespace = open_service(cluster, service)
    full = [name if "/" in name else f"{namespace}/{name}" for name in names]
    items = client.compare(full)
    if form == "json":
        output.write_json(items)
        return
    if form == "yaml":
        output.write(yaml.safe_dump(items, sort_keys=False, allow_unicode=True).rstrip("\n"))
        return
    items.sort(key=lambda item: -_iqm(item))
    prefix = f"{namespace}/"
    headings = ["NAME", "ENVIRONMENT", "REPEATS", "IQM", "95 % LOW", "95 % HIGH", "OF"]
    headings += ["VALUES"] if form == "wide" else []
    rows = []
    for item in items:
        result = item["result"]
        row = [item["id"].removeprefix(prefix), item["environment"], item["repeats"]]
        row += [output.number(result[each]) for each in ("iqm", "low", "high")]
        row += [result["of"] if result["values"] else "nothing yet"]
        if form == "wide":
            row += [" ".join(output.number(value) for value in result["values"]) or "-"]
        rows.append(row)
    output.write_table(headings, rows)
    if any(item["result"]["low"] is None for item in items):
        output.say("an interval needs several repeats: spec.repeats")
    if len({item["result"]["of"] for item in items if item["result"]["values"]}) > 1:
        output.say("some are not tested yet: their validations are higher than tests would be")


def _iqm(item: Mapping[str, Any]) -> float:
    found = item["result"]["iqm"]
    return float("-inf") if found is None else float(found)
