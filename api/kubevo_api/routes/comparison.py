"""Experiments side by side."""

import asyncio
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query

from kubevo_api.catalogue import Entry
from kubevo_api.context import Asking, Here
from kubevo_api.models import Compared, Comparison, Curve, Result
from kubevo_api.runs import Library, NotThere
from kubevo_core.errors import UserError
from kubevo_runtime.intervals import CONFIDENCE, iqm, iqm_interval

__all__ = ["router"]

router = APIRouter(tags=["results"])
MOST = 20


@router.get("/compare")
async def compare(
    here: Here,
    caller: Asking,
    ids: Annotated[
        str, Query(max_length=4000, description="namespace/name, separated by commas; at most 20.")
    ],
    points: Annotated[int, Query(ge=2, le=2000)] = 300,
) -> Comparison:
    """Compare searches: interquartile mean over their repeats, with 95 % bootstrap intervals."""
    entries = []
    wanted = list(dict.fromkeys(part.strip() for part in ids.split(",") if part.strip()))
    if not 1 <= len(wanted) <= MOST:
        raise UserError(f"ids: expected 1 to {MOST} of namespace/name, got {len(wanted)}")
    for each in wanted:
        namespace, slash, name = each.partition("/")
        if not (slash and namespace and name):
            raise UserError(f"ids: expected namespace/name, got {each!r}")
        await here.require(caller, "get", namespace, name)
        entry = here.catalogue.index.get((namespace, name))
        if entry is None:
            raise NotThere(f"there is no Experiment {each!r}")
        entries.append(entry)
    items = await asyncio.to_thread(
        lambda: [_compared(here.library, entry, points) for entry in entries]
    )
    return Comparison(items=items, confidence=CONFIDENCE)


def _compared(library: Library, entry: Entry, points: int) -> Compared:
    repeats = int(entry.document["spec"].get("repeats", 1))
    readers = (
        [library.repeat(entry.directory, number) for number in range(repeats)]
        if entry.directory.is_dir()
        else []
    )
    columns = [reader.history().columns() for reader in readers]
    bests = [each["best"] for each in columns if len(each["best"])]
    finals = []
    for reader in readers:
        rows = [row for row in reader.tests() if row["purpose"] == "final"]
        if rows and rows[-1]["mean"] is not None:
            finals.append(float(rows[-1]["mean"]))
    is_tested = bool(readers) and len(finals) == len(readers)
    last = [float(values[-1]) for values in bests if not np.isnan(values[-1])]
    return Compared(
        id="/".join(entry.key),
        environment=entry.document["spec"]["environment"]["id"],
        repeats=repeats,
        curve=_curve(bests, repeats, points),
        result=_result(finals if is_tested else last, tested=is_tested),
    )


def _curve(bests: list[np.ndarray], repeats: int, points: int) -> Curve:
    """Return the curve as far as every repeat has come; a repeat that stopped keeps its best."""
    if len(bests) < repeats:
        return Curve(x=[], iqm=[], low=[], high=[])
    longest = max(map(len, bests))
    x = np.unique(np.linspace(0, longest - 1, min(points, longest)).astype(np.int64))
    table = np.stack([values[np.minimum(x, len(values) - 1)] for values in bests])
    table = np.where(np.isnan(table), np.nanmin(table) if not np.isnan(table).all() else 0, table)
    interval = iqm_interval(table)
    none: list[float | None] = [None] * len(x)
    return Curve(
        x=x.tolist(),
        iqm=iqm(table).tolist(),
        low=interval[0].tolist() if interval else none,
        high=interval[1].tolist() if interval else none,
    )


def _result(values: list[float], *, tested: bool) -> Result:
    of = "final test" if tested else "best"
    if not values:
        return Result(iqm=None, low=None, high=None, values=[], of=of)  # type: ignore[arg-type]
    table = np.asarray(values)[:, None]
    interval = iqm_interval(table)
    return Result(
        iqm=float(iqm(table)[0]),
        low=float(interval[0][0]) if interval else None,
        high=float(interval[1][0]) if interval else None,
        values=values,
        of=of,  # type: ignore[arg-type]
    )
