"""In a pod: connect to the broker as somebody, or as nobody, and try what that one must not do.

Arguments: the broker's URL, a credentials file or nothing, and JSON with the subjects to publish and
subscribe to. Prints one line of JSON with everything that the broker said against it.
"""

import asyncio
import json
import sys
from pathlib import Path

import nats

from kubevo_runtime.bus_security import CredentialsFile


async def main(url: str, credentials: str, wanted: str) -> None:
    said: list[str] = []

    async def heard(error: Exception) -> None:
        said.append(str(error))

    options = {}
    if credentials:
        file = CredentialsFile(Path(credentials))
        file.load()
        options = {"user_jwt_cb": file.jwt, "signature_cb": file.sign}
    try:
        client = await nats.connect(
            url, allow_reconnect=False, connect_timeout=10, error_cb=heard, **options
        )
    except Exception as exc:  # noqa: BLE001 - whatever it is, it is printed
        print(json.dumps({"refused": f"{exc!r} {said}"}))
        return
    subjects = json.loads(wanted)
    for subject in subjects["publish"]:
        await client.publish(subject, b"{}")
    for subject in subjects["subscribe"]:
        await client.subscribe(subject)
    await client.flush()
    await asyncio.sleep(1)  # denials come beside the answers
    print(json.dumps({"said": said}))
    await client.close()


asyncio.run(main(*sys.argv[1:]))
