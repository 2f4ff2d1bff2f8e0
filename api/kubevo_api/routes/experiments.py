"""Experiments: the list, one of them, and what can be done with it."""

import asyncio
import base64
from contextlib import suppress
from typing import Annotated, Any

import yaml
from fastapi import APIRouter, Query
from fastapi.responses import Response

from kubevo_api.access import Caller, Verb
from kubevo_api.catalogue import ActionRefused, Entry
from kubevo_api.context import Asking, Context, Found, Here, PageToken
from kubevo_api.labels import fields_of, matches, parse_field_selector, parse_selector
from kubevo_api.models import Detail, Extension, State, Summaries, Summary
from kubevo_api.runs import Library
from kubevo_api.summaries import detail
from kubevo_api.summaries import state as state_of
from kubevo_core import spec
from kubevo_core.errors import KubevoError, UserError
from kubevo_runtime.intervals import mean_interval

__all__ = ["router"]

router = APIRouter()
ONE = "/namespaces/{ns}/experiments/{name}"
REVIEWS = 16  # asked of the API server at once, for one request


@router.get("/experiments", tags=["experiments"])
async def list_experiments(
    here: Here,
    caller: Asking,
    *,
    namespace: Annotated[str, Query(max_length=63, description="Only this namespace.")] = "",
    label_selector: Annotated[
        str,
        Query(
            alias="labelSelector", max_length=1000, description="Such as team=vision,tier!=test."
        ),
    ] = "",
    field_selector: Annotated[
        str,
        Query(
            alias="fieldSelector",
            max_length=1000,
            description="Such as spec.environment.id=CartPole-v1.",
        ),
    ] = "",
    q: Annotated[str, Query(max_length=100, description="Part of a name or environment.")] = "",
    state: Annotated[State | None, Query(description="Only those in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 500,
    page: PageToken = None,
) -> Summaries:
    """List Experiments by namespace and name; only those that the caller may see."""
    selector, fields = parse_selector(label_selector), parse_field_selector(field_selector)
    visible = await visible_namespaces(here, caller, namespace)
    after = _place(page)
    found = []
    for entry in sorted(here.catalogue.index.entries(), key=lambda each: each.key):
        if entry.key[0] not in visible or not matches(
            selector, entry.document["metadata"].get("labels") or {}
        ):
            continue
        if not matches(fields, fields_of(entry.document)):
            continue
        environment = entry.document["spec"]["environment"]["id"]
        if q and q.lower() not in entry.key[1].lower() and q.lower() not in environment.lower():
            continue
        found.append(entry)
    summaries = await asyncio.to_thread(lambda: [here.summarise(entry) for entry in found])
    if state is not None:
        summaries = [each for each in summaries if each.state == state]
    rest = [each for each in summaries if after is None or (each.namespace, each.name) > after]
    shown = rest[:limit]
    more = _page_token(shown[-1]) if len(rest) > limit else None
    return Summaries(items=shown, next_page=more, total=len(summaries))


async def visible_namespaces(
    here: Context, caller: Caller, namespace: str, verb: Verb = "list"
) -> set[str]:
    """Return the namespaces whose Experiments a caller may see; ``namespace`` narrows it to one.

    Without rights in any of them there is nothing to see, which is no error: a namespace without
    Experiments cannot be told from one that does not exist.

    Raises:
        Forbidden: not in ``namespace``.
    """
    if namespace:
        await here.require(caller, verb, namespace)
        return {namespace}
    there = {entry.key[0] for entry in here.catalogue.index.entries()}
    if await here.access.allows(caller, verb, "", ""):
        return there
    at_once = asyncio.Semaphore(REVIEWS)

    async def allows(each: str) -> bool:
        async with at_once:
            return await here.access.allows(caller, verb, each, "")

    namespaces = sorted(there)
    verdicts = await asyncio.gather(*map(allows, namespaces))
    return {each for each, allowed in zip(namespaces, verdicts, strict=True) if allowed}


def _page_token(last: Summary) -> str:
    return base64.urlsafe_b64encode(f"{last.namespace}/{last.name}".encode()).decode()


def _place(page: str | None) -> tuple[str, str] | None:
    if page is None:
        return None
    try:
        text = base64.b64decode(page, altchars=b"-_", validate=True).decode()
        namespace, name = text.split("/")
    except ValueError as exc:
        raise UserError("continue: expected what the page before gave") from exc
    return namespace, name


@router.get(ONE, tags=["experiments"])
async def get_experiment(here: Here, caller: Asking, entry: Found) -> Detail:
    """Show one Experiment: what was wanted, how it is, and what can be done with it."""
    namespace, name = entry.key
    can_change = here.catalogue.mode == "cluster" and await here.access.allows(
        caller, "patch", namespace, name
    )
    interval = await asyncio.to_thread(_final_interval, here.library, entry)
    return detail(
        entry, has_data=entry.directory.is_dir(), interval=interval, can_change=can_change
    )


def _final_interval(library: Library, entry: Entry) -> tuple[float, float] | None:
    status = entry.document.get("status") or {}
    if not status.get("finalTest") or not status.get("best"):
        return None
    try:
        rows = library.repeat(entry.directory, status["best"].get("repeat", 0)).tests()
    except KubevoError:  # the status outlives the directory
        return None
    returns = [row["episodeReturns"] for row in rows if row["purpose"] == "final"]
    return mean_interval(returns[-1]) if returns and None not in returns[-1] else None


@router.get(
    ONE + "/spec.yaml",
    tags=["experiments"],
    response_class=Response,
    responses={200: {"content": {"application/yaml": {"schema": {"type": "string"}}}}},
)
async def get_spec(entry: Found) -> Response:
    """Return the Experiment as a file that `kubevo run` and `kubectl apply` take."""
    metadata = entry.document["metadata"]
    kept: dict[str, Any] = {"name": metadata["name"]}
    if metadata.get("labels"):
        kept["labels"] = metadata["labels"]
    document = {
        "apiVersion": spec.API_VERSION,
        "kind": "Experiment",
        "metadata": kept,
        "spec": entry.document["spec"],
    }
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    return Response(text, media_type="application/yaml")


@router.post(ONE + "/suspend", tags=["actions"])
async def suspend(here: Here, caller: Asking, entry: Found) -> Summary:
    """Pause the search; nothing is lost."""
    return await _patched(here, caller, entry, {"suspend": True}, of_a_running_one=True)


@router.post(ONE + "/resume", tags=["actions"])
async def resume(here: Here, caller: Asking, entry: Found) -> Summary:
    """Let a paused search go on."""
    return await _patched(here, caller, entry, {"suspend": False})


@router.post(ONE + "/stop", tags=["actions"])
async def stop(here: Here, caller: Asking, entry: Found) -> Summary:
    """End the search after the generation that runs now, with its final test.

    The budget becomes what has been searched then, and is never raised; extending it lets the
    search go on.
    """
    last = 1 + await asyncio.to_thread(_finished, here.library, entry)
    limit = entry.document["spec"]["budget"].get("maxGenerations")
    if limit is not None and limit <= last:  # asked before, or it is in its final test
        last = limit
    change = {"budget": {"maxGenerations": last}}
    return await _patched(here, caller, entry, change, of_a_running_one=True)


def _finished(library: Library, entry: Entry) -> int:
    """Return how many generations the repeat that is furthest has finished; a status may be old."""
    status = entry.document.get("status") or {}
    last = (status.get("progress") or {}).get("generation", -1)
    for repeat in range(int(entry.document["spec"].get("repeats", 1))):
        with suppress(KubevoError):  # no directory yet
            generations = library.repeat(entry.directory, repeat).history().columns()["generation"]
            last = max(last, int(generations[-1]) if len(generations) else -1)
    return int(last) + 1


@router.post(ONE + "/extend", tags=["actions"])
async def extend(here: Here, caller: Asking, entry: Found, budget: Extension) -> Summary:
    """Change the budget; a finished search goes on if it is larger and resumePolicy allows it."""
    changes = budget.model_dump(by_alias=True, exclude_none=True)
    if not changes:
        raise UserError(
            "expected at least one of maxGenerations, maxFrames, maxWallClockSeconds, targetFitness"
        )
    return await _patched(here, caller, entry, {"budget": changes})


async def _patched(
    here: Context,
    caller: Caller,
    entry: Entry,
    change: dict[str, Any],
    *,
    of_a_running_one: bool = False,
) -> Summary:
    namespace, name = entry.key
    await here.require(caller, "patch", namespace, name)
    if here.catalogue.mode == "cluster":
        found, _, _ = state_of(entry.document)
        if entry.document["metadata"].get("deletionTimestamp"):
            raise ActionRefused(f"{name} is being deleted", 409)
        if of_a_running_one and found in ("Succeeded", "Failed"):
            raise ActionRefused(f"{name} has ended ({found}): extend it to let it go on", 409)
    return here.summarise(await here.catalogue.patch(entry, change))
