"""Genomes as files: the best, the newest elite, any individual that is kept; and videos.

The bytes of a model follow from its genome and what is said about it, so its ETag is strong, a
second download costs a read of a file, and a part of it can be asked for.
"""

import asyncio
import os
from dataclasses import replace
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response

from kubevo_api.catalogue import ActionRefused
from kubevo_api.context import Chosen, Context, Found, GenerationNumber, Here, SlotNumber
from kubevo_api.exports import FORMATS
from kubevo_api.exports.model import Facts, Model
from kubevo_api.models import Best, FinalTest, Video, Videos
from kubevo_api.runs import NotThere, RepeatReader
from kubevo_api.web import Download, etag_matches
from kubevo_core import networks, spec
from kubevo_core.generation_report import Finished
from kubevo_core.genome import Genome
from kubevo_runtime.intervals import mean_interval

__all__ = ["router"]

router = APIRouter(prefix="/namespaces/{ns}/experiments/{name}", tags=["models"])


class ModelFile(StrEnum):
    """The files that a genome can be had as."""

    GENOME = "genome.json"
    WEIGHTS = "model.safetensors"
    ONNX = "model.onnx"
    SCRIPT = "policy.py"
    CARD = "README.md"


BINARY = {"schema": {"type": "string", "format": "binary"}}
FILES: dict[int | str, dict[str, object]] = {
    200: {"description": "The file.", "content": {kind: BINARY for kind, _ in FORMATS.values()}},
    206: {"description": "A part of it."},
    304: {"description": "You have it."},
    416: {"description": "It is not that long."},
}
VIDEO: dict[int | str, dict[str, object]] = {**FILES, 200: {"content": {"video/mp4": BINARY}}}


# --- which genome ----------------------------------------------------------------------------------


def _best_of(reader: RepeatReader) -> tuple[Genome, float, int, Finished]:
    done = reader.newest()
    if done.best is None:
        raise NotThere("there is no best genome yet: no validated generation so far")
    return done.best.genome, done.best.mean, done.best.generation, done


def _elite_of(reader: RepeatReader) -> tuple[Genome, float | None, int, Finished]:
    done = reader.newest()
    if done.elite is None:
        raise NotThere(f"generation {done.generation} has no elite: every evaluation failed")
    return done.elite.genome, done.elite.mean, done.generation, done


def _final_test(reader: RepeatReader, digest: str) -> FinalTest | None:
    rows = [row for row in reader.tests() if row["purpose"] == "final" and row["genome"] == digest]
    if not rows or rows[-1]["mean"] is None:
        return None
    returns = rows[-1]["episodeReturns"]
    return FinalTest(mean=rows[-1]["mean"], ci95=mean_interval(returns), episodes=len(returns))


def _described(
    reader: RepeatReader, genome: Genome, fitness: float | None, generation: int
) -> Best:
    description = reader.description()
    experiment = _experiment(reader)
    return Best(
        actions=description.actions if description else None,
        fitness=float("nan") if fitness is None else fitness,
        generation=generation,
        repeat=reader.repeat,
        digest=genome.digest,
        genome=genome.text,
        mutations=len(genome.mutations),
        network=genome.network,
        parameters=networks.network(genome.network).size,
        precision=experiment.policy.precision,
        final_test=_final_test(reader, genome.digest),
    )


def _experiment(reader: RepeatReader) -> spec.ExperimentSpec:
    return spec.parse(reader.run.experiment(), f"{reader.run.path}/spec.yaml").spec


@router.get("/best")
async def best(reader: Chosen) -> Best:
    """Show the best genome so far."""

    def answer() -> Best:
        genome, fitness, generation, _ = _best_of(reader)
        return _described(reader, genome, fitness, generation)

    return await asyncio.to_thread(answer)


@router.get("/elite")
async def elite(reader: Chosen) -> Best:
    """Show the elite of the newest generation."""

    def answer() -> Best:
        genome, fitness, generation, _ = _elite_of(reader)
        return _described(reader, genome, fitness, generation)

    return await asyncio.to_thread(answer)


# --- as files --------------------------------------------------------------------------------------


@router.get("/best/video.mp4", response_class=FileResponse, responses=VIDEO)
async def best_video(request: Request, entry: Found, reader: Chosen) -> Response:
    """Play the newest recording of the best genome, or of an elite before it."""

    def newest() -> Path:
        videos = reader.videos()
        wanted = _best_of(reader)[2]
        before = [number for number in videos if number <= wanted] or list(videos)
        if not before:
            raise NotThere(
                f"nothing is recorded of {entry.key[1]}: set spec.recording.everyGenerations, or "
                "use `kubevo play --record`"
            )
        return videos[max(before)]

    return _video(request, await asyncio.to_thread(newest))


@router.get("/best/{file}", response_class=FileResponse, responses=FILES)
async def best_file(
    request: Request,
    here: Here,
    reader: Chosen,
    file: ModelFile,
    digest: Annotated[
        str | None,
        Query(max_length=64, description="Only if the best is still this genome; else 409."),
    ] = None,
) -> Response:
    """Download the best genome so far."""

    def model() -> Model:
        genome, fitness, generation, done = _best_of(reader)
        if digest is not None and digest != genome.digest:
            raise ActionRefused(
                f"the best is no longer {digest[:16]}: the search has found a better one, "
                f"{genome.digest[:16]}; ask for that one",
                409,
            )
        return _model(reader, genome, fitness, generation, done)

    return await _send(request, here, await asyncio.to_thread(model), file)


@router.get("/elite/{file}", response_class=FileResponse, responses=FILES)
async def elite_file(request: Request, here: Here, reader: Chosen, file: ModelFile) -> Response:
    """Download the elite of the newest generation."""

    def model() -> Model:
        genome, fitness, generation, done = _elite_of(reader)
        return _model(reader, genome, fitness, generation, done)

    return await _send(request, here, await asyncio.to_thread(model), file)


@router.get(
    "/generations/{g}/individuals/{slot}/{file}", response_class=FileResponse, responses=FILES
)
async def individual_file(
    request: Request,
    here: Here,
    reader: Chosen,
    g: GenerationNumber,
    slot: SlotNumber,
    file: ModelFile,
) -> Response:
    """Download an individual, as long as its genome is kept."""

    def model() -> Model:
        genome = reader.individual(g, slot).genome
        done = reader.finished(g)
        return _model(reader, genome, None, g, done)

    return await _send(request, here, await asyncio.to_thread(model), file)


def _model(
    reader: RepeatReader, genome: Genome, fitness: float | None, generation: int, done: Finished
) -> Model:
    run = reader.run
    experiment = _experiment(reader)
    description = reader.description()
    test = _final_test(reader, genome.digest)
    facts = Facts(
        experiment=run.name,
        namespace=run.namespace,
        uid=run.uid,
        repeat=reader.repeat,
        generation=generation,
        fitness=fitness,
        validation_episodes=experiment.algorithm.genetic_algorithm.elite_episodes,
        final_test_mean=test.mean if test else None,
        final_test_interval=test.ci95 if test else None,
        final_test_episodes=test.episodes if test else 0,
        frames=done.frames,
        seed=experiment.seed,
        backend=description.backend if description else None,
        version=version("kubevo"),
    )
    return Model(
        genome=genome,
        environment=experiment.environment,
        actions=description.actions if description else None,
        facts=facts,
        precision=experiment.policy.precision,
    )


async def _send(request: Request, here: Context, model: Model, file: ModelFile) -> Response:
    media_type, write = FORMATS[file.value]
    # Only the card tells how far the search is; the others stay as they are while it goes on.
    facts = model.facts
    if facts is not None and file.value != "README.md":
        facts = replace(facts, frames=0)
    others = repr((facts, model.actions, model.precision))
    key = (file.value, model.genome.text, str(model.environment), others)
    exported = await here.exports.get(key, lambda: write(model))
    headers = {"etag": exported.etag, "cache-control": "no-cache, private"}
    if etag_matches(exported.etag, request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    return Download(exported.path, headers=headers, media_type=media_type, filename=file.value)


# --- videos ----------------------------------------------------------------------------------------


@router.get("/videos")
async def videos(request: Request, reader: Chosen) -> Videos:
    """List the recorded episodes."""

    def answer() -> Videos:
        base = request.url.path.removesuffix("/videos")
        return Videos(
            items=[
                Video(
                    generation=number,
                    repeat=reader.repeat,
                    bytes=path.stat().st_size,
                    url=f"{base}/generations/{number}/video.mp4?repeat={reader.repeat}",
                )
                for number, path in sorted(reader.videos().items())
            ]
        )

    return await asyncio.to_thread(answer)


@router.get("/generations/{g}/video.mp4", response_class=FileResponse, responses=VIDEO)
async def video(request: Request, reader: Chosen, g: GenerationNumber) -> Response:
    """Play the recording of a generation's elite."""
    found = await asyncio.to_thread(reader.videos)
    if g not in found:
        raise NotThere(f"nothing is recorded of generation {g}: GET videos lists what is")
    return _video(request, found[g])


def _video(request: Request, path: Path) -> Response:
    try:
        status = os.stat(path)  # noqa: PTH116 - FileResponse wants this very type
    except FileNotFoundError as exc:
        raise NotThere("the recording was removed meanwhile") from exc
    # A recording is written once and replaced whole, if ever.
    etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
    headers = {"etag": etag, "cache-control": "no-cache, private"}
    if etag_matches(etag, request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    return Download(path, headers=headers, media_type="video/mp4", stat_result=status)
