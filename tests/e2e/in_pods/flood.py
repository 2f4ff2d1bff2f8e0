"""In an evaluator's pod, as a broken image would: fill the Experiment's own stream of results.

Arguments: the broker's URL, the credentials file, where answers may come, and the beginning of the
subjects.
"""

import asyncio
import sys
from pathlib import Path

import nats
from nats.js.errors import APIError

from kubevo_runtime.bus_security import CredentialsFile


async def main(url: str, credentials: str, inbox: str, subject: str) -> None:
    file = CredentialsFile(Path(credentials))
    file.load()
    client = await nats.connect(
        url, user_jwt_cb=file.jwt, signature_cb=file.sign, inbox_prefix=inbox
    )
    stream, number = client.jetstream(), 0
    for size in (500_000, 5_000, 50):  # until not even the smallest fits
        while True:
            number += 1
            try:
                await stream.publish(f"{subject}.{number}", b"x" * size)
            except APIError as exc:
                print(exc.description)
                break
    await client.close()


asyncio.run(main(*sys.argv[1:]))
