"""What a search has found so far: history, tests, generations, individuals, lineages, failures."""

import asyncio
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Query
from fastapi.responses import Response

from kubevo_api.context import Chosen, Found, GenerationNumber, PageToken, SlotNumber
from kubevo_api.history import csv_bytes, listed, parquet_bytes, thinned
from kubevo_api.models import (
    AncestorView,
    Failure,
    Failures,
    FitnessStats,
    Generation,
    Generations,
    Histogram,
    HistoryPage,
    IndividualView,
    Lineage,
    Population,
    Range,
    Scores,
    Tests,
    TestView,
)
from kubevo_api.runs import NotThere, RepeatReader, ranges
from kubevo_core.errors import UserError
from kubevo_core.fitness import mean_return
from kubevo_core.generation_report import Finished
from kubevo_runtime.intervals import mean_interval

__all__ = ["router"]

router = APIRouter(prefix="/namespaces/{ns}/experiments/{name}", tags=["results"])
# A genome of ten thousand generations is long, and so would a page of a thousand of them be.
PAGE_BYTES = 4_000_000
MUTATION_BYTES = 20
MEDIA = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


@router.get(
    "/history",
    responses={
        200: {
            "content": {
                "text/csv": {"schema": {"type": "string"}},
                "application/vnd.apache.parquet": {
                    "schema": {"type": "string", "format": "binary"}
                },
            }
        }
    },
    response_model=HistoryPage,
)
async def history(
    entry: Found,
    reader: Chosen,
    first: Annotated[int | None, Query(alias="from", ge=0)] = None,
    last: Annotated[int | None, Query(alias="to", ge=0)] = None,
    points: Annotated[
        int | None,
        Query(ge=2, le=100_000, description="At most so many rows, each for neighbours together."),
    ] = None,
    form: Annotated[Literal["json", "csv", "parquet"], Query(alias="format")] = "json",
) -> Response:
    """Return the finished generations, as columns or as a table."""

    def answer() -> Response:
        columns = reader.history().columns(first, last)
        if points is not None:
            columns = thinned(columns, points)
        if form != "json":
            write = csv_bytes if form == "csv" else parquet_bytes
            name = f"{entry.key[1]}-repeat-{reader.repeat}.{form}"
            return Response(
                write(columns),
                media_type=MEDIA[form],
                headers={"content-disposition": f'attachment; filename="{name}"'},
            )
        generations = listed("generation", reader.history().columns()["generation"])
        page = HistoryPage(
            repeat=reader.repeat,
            repeats=int(entry.document["spec"].get("repeats", 1)),
            rows=len(columns["generation"]),
            first=int(generations[0]) if generations else None,  # type: ignore[arg-type]
            last=int(generations[-1]) if generations else None,  # type: ignore[arg-type]
            columns={name: listed(name, values) for name, values in columns.items()},
        )
        return Response(page.model_dump_json(by_alias=True), media_type="application/json")

    return await asyncio.to_thread(answer)


@router.get("/tests")
async def tests(reader: Chosen) -> Tests:
    """Return the held-out tests with their intervals."""

    def answer() -> Tests:
        found = []
        for row in reader.tests():
            known = row["mean"] is not None
            interval = mean_interval(row["episodeReturns"]) if known else None
            found.append(
                TestView(
                    generation=row["generation"],
                    purpose=row["purpose"],
                    mean=row["mean"],
                    ci95=interval,
                    episodes=row["episodes"],
                )
            )
        return Tests(repeat=reader.repeat, items=found)

    return await asyncio.to_thread(answer)


@router.get("/generations")
async def generations(reader: Chosen) -> Generations:
    """Tell which generations there are, and of which the genomes are kept."""

    def answer() -> Generations:
        there = reader.history().columns()["generation"]
        return Generations(
            repeat=reader.repeat,
            first=int(there[0]) if len(there) else None,
            last=int(there[-1]) if len(there) else None,
            retained=[Range(start=start, end=end) for start, end in ranges(reader.retained())],
            rule=reader.rule(),
        )

    return await asyncio.to_thread(answer)


@router.get("/generations/{g}")
async def generation(reader: Chosen, g: GenerationNumber) -> Generation:
    """Show one generation."""

    def answer() -> Generation:
        row = reader.history().row(g)
        if row is None:
            raise NotThere(f"generation {g} is not finished; the newest one is {reader.last()}")
        return Generation(
            generation=g,
            repeat=reader.repeat,
            fitness=FitnessStats(**{name: row[name] for name in ("max", "mean", "median", "min")}),
            failed=row["failed"],
            elite=row["elite"],
            elite_slot=row["eliteSlot"],
            best=row["best"],
            best_generation=row["bestGeneration"],
            population_size=len(reader.scores(g)),
            frames=row["frames"],
            steps=row["steps"],
            evaluations=row["evaluations"],
            seconds=row["seconds"],
            genomes_retained=g in reader.retained(),
        )

    return await asyncio.to_thread(answer)


@router.get("/generations/{g}/histogram")
async def histogram(
    reader: Chosen, g: GenerationNumber, bins: Annotated[int, Query(ge=1, le=500)] = 40
) -> Histogram:
    """Count a population by fitness; also of generations whose genomes were pruned."""
    fitness = (await asyncio.to_thread(reader.scores, g))["fitness"]
    known = fitness[~np.isnan(fitness)]
    counts, edges = np.histogram(known, bins) if len(known) else (np.zeros(0), np.zeros(0))
    return Histogram(
        edges=edges.tolist(),
        counts=[int(count) for count in counts],
        failed=len(fitness) - len(known),
    )


@router.get("/generations/{g}/scores")
async def scores(
    reader: Chosen, g: GenerationNumber, points: Annotated[int, Query(ge=1, le=100_000)] = 2000
) -> Scores:
    """Return fitness, frames and parent of every slot; also of pruned generations."""
    found = await asyncio.to_thread(reader.scores, g)
    slots = np.unique(np.linspace(0, len(found) - 1, min(points, len(found))).astype(np.int64))
    shown = found[slots]
    fitness = [None if np.isnan(value) else float(value) for value in shown["fitness"]]
    return Scores(
        population_size=len(found),
        columns={
            "slot": slots.tolist(),
            "fitness": fitness,
            "frames": shown["frames"].tolist(),
            "parent": shown["parent"].tolist(),
        },
    )


@router.get("/generations/{g}/population")
async def population(
    reader: Chosen,
    g: GenerationNumber,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    page: PageToken = None,
    sort: Literal["slot", "-fitness"] = "slot",
) -> Population:
    """List a generation's individuals with their genomes and episodes.

    Long genomes make a page shorter than ``limit``; `continue` asks for the rest.
    """

    def answer() -> Population:
        done = reader.finished(g)
        order = list(range(len(done.population)))
        if sort == "-fitness":
            fitness = done.fitnesses
            order.sort(key=lambda slot: (fitness[slot] is None, -(fitness[slot] or 0.0), slot))
        start = _number(page)
        items, size = [], 0
        for slot in order[start : start + limit]:
            items.append(_individual(done, slot))
            size += MUTATION_BYTES * (1 + len(done.population[slot].genome.mutations))
            if size > PAGE_BYTES:
                break
        end = start + len(items)
        return Population(
            generation=g,
            repeat=reader.repeat,
            items=items,
            next_page=str(end) if end < len(order) else None,
        )

    return await asyncio.to_thread(answer)


@router.get("/generations/{g}/individuals/{slot}")
async def individual(reader: Chosen, g: GenerationNumber, slot: SlotNumber) -> IndividualView:
    """Show one individual."""

    def answer() -> IndividualView:
        reader.individual(g, slot)
        return _individual(reader.finished(g), slot)

    return await asyncio.to_thread(answer)


@router.get("/generations/{g}/individuals/{slot}/lineage")
async def lineage(reader: Chosen, g: GenerationNumber, slot: SlotNumber) -> Lineage:
    """Return an individual's ancestors, newest first; also of pruned generations."""
    return await asyncio.to_thread(_lineage, reader, g, slot)


@router.get("/elite/lineage")
async def elite_lineage(reader: Chosen) -> Lineage:
    """Return the ancestors of the newest elite."""

    def answer() -> Lineage:
        last = reader.last()
        row = reader.history().row(last)
        if row is None or row["eliteSlot"] is None:
            raise NotThere(f"generation {last} has no elite: every evaluation failed")
        return _lineage(reader, last, row["eliteSlot"])

    return await asyncio.to_thread(answer)


@router.get("/logs")
async def logs(
    reader: Chosen,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    page: PageToken = None,
) -> Failures:
    """List failed episodes, newest first: at most ten of each generation are kept."""
    rows = (await asyncio.to_thread(reader.failures))[::-1]
    start = _number(page)
    end = start + limit
    return Failures(
        repeat=reader.repeat,
        items=[Failure(**row) for row in rows[start:end]],
        next_page=str(end) if end < len(rows) else None,
    )


def _number(page: str | None) -> int:
    if page is None:
        return 0
    if not (page.isascii() and page.isdecimal() and len(page) < 10):
        raise UserError("continue: expected what the page before gave")
    return int(page)


def _lineage(reader: RepeatReader, generation: int, slot: int) -> Lineage:
    items = [
        AncestorView(
            generation=each.generation,
            slot=each.slot,
            fitness=each.fitness,
            elite=each.is_elite,
        )
        for each in reader.lineage(generation, slot)
    ]
    return Lineage(
        repeat=reader.repeat, items=items, complete=bool(items) and items[-1].generation == 0
    )


def _individual(done: Finished, slot: int) -> IndividualView:
    individual, episodes = done.population[slot], done.episodes[slot]
    return IndividualView(
        slot=slot,
        digest=individual.genome.digest,
        genome=individual.genome.text,
        mutations=len(individual.genome.mutations),
        fitness=mean_return([episode.episode_return for episode in episodes]),
        episode_returns=[episode.episode_return for episode in episodes],
        steps=[episode.steps for episode in episodes],
        frames=sum(episode.frames for episode in episodes),
        parent=individual.parent_slot,
        failures=[episode.failure for episode in episodes if episode.failure is not None],
    )
