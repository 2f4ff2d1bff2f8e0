"""A whole run as one file, for whoever wants to go on with it elsewhere (`kubevo pull`)."""

import asyncio
from collections.abc import Iterator
from itertools import chain

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from kubevo_api.context import Found
from kubevo_api.runs import NotThere
from kubevo_runtime.archive import pack

__all__ = ["router"]

router = APIRouter(prefix="/namespaces/{ns}/experiments/{name}", tags=["results"])

MEDIA_TYPE = "application/x-tar"
TAR: dict[int | str, dict[str, object]] = {
    200: {
        "description": "Checkpoints, scores, history and videos.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.get("/run.tar", response_class=StreamingResponse, responses=TAR)
async def archive(entry: Found) -> StreamingResponse:
    """Send everything that a search needs to go on, also while it is searched.

    A stream that was cut off has no entry ``END``; ``kubevo pull`` refuses it.
    """

    def begin() -> Iterator[bytes]:
        if not entry.directory.is_dir():
            raise NotThere(f"{entry.key[1]} has no data yet: its search has not begun")
        pieces = pack(entry.directory)
        return chain([next(pieces)], pieces)  # an error now is still an answer

    headers = {
        "cache-control": "no-store, private",
        "content-disposition": f'attachment; filename="{entry.key[1]}.tar"',
    }
    pieces = await asyncio.to_thread(begin)
    return StreamingResponse(pieces, headers=headers, media_type=MEDIA_TYPE)
