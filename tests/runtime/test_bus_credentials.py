"""Who a client is to the broker, and which broker it trusts: files, refusals, denials, TLS."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import structlog

from kubevo_core.errors import BusError, BusUnavailable, UserError
from kubevo_runtime.broker import _answers, _free_port, find_server
from kubevo_runtime.bus import BusSettings, connect_coordinator, connect_worker, worker_rights
from kubevo_runtime.nkey import Key, Kind
from kubevo_runtime.processes import start_child, stop_child

TASK = "r0.g0.population.s0.0123456789abcdef.e0"
EXPERIMENT = "test-1a2b3c4d"
SEED = Key(Kind.USER, bytes(range(32))).seed
JWT = "-----BEGIN NATS USER JWT-----\na.b.c\n------END NATS USER JWT------\n"
WHOLE = f"{JWT}\n-----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n"
OPENSSL = shutil.which("openssl")


class Server:
    """A nats-server with a configuration of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, _free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.process: asyncio.subprocess.Process | None = None

    def write(self, config: str) -> None:
        (self.folder / "nats.conf").write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f"jetstream {{ store_dir: {json.dumps(str(self.folder / 'store'))} }}\n{config}\n"
        )

    async def start(self, config: str | None = None) -> None:
        if config is not None:
            self.write(config)
        log = self.folder / "nats.log"
        self.process = await start_child(
            [await find_server(), "-c", self.folder / "nats.conf"], log=log
        )
        while not await _answers(self.port):
            assert self.process.returncode is None, log.read_text()
            await asyncio.sleep(0.01)

    def reload(self, config: str) -> None:
        self.write(config)
        os.kill(self.process.pid, signal.SIGHUP)

    async def stop(self) -> None:
        if self.process is not None:
            await stop_child(self.process, 5)

    def settings(self, **changes: object) -> BusSettings:
        values: dict[str, object] = {
            "url": self.url,
            "experiment": EXPERIMENT,
            "request_seconds": 1.0,
            "give_up_seconds": 20.0,
            "connect_seconds": 30.0,
            "task_bytes": 8 << 20,
            "result_bytes": 8 << 20,
            "failure_bytes": 8 << 20,
            "blob_bytes": 8 << 20,
        }
        return BusSettings(**{**values, **changes})


@pytest.fixture
async def server(tmp_path):
    made = Server(tmp_path)
    yield made
    await made.stop()


async def greet(connections, info):
    """Serve what a NATS server says first, and keep what clients say to it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeting = {"version": "2.15.1", "server_id": "X", "max_payload": 1048576, **info}
        writer.write(f"INFO {json.dumps(greeting)}\r\n".encode())
        connections.append(await reader.readline())
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


# --- settings and files ---------------------------------------------------------------------------


def test_a_token_and_credentials_exclude_each_other(tmp_path):
    with pytest.raises(UserError, match="expected a token or a file, got both") as refused:
        BusSettings(url="nats://h", experiment="x", token="hidden", credentials=tmp_path / "c")
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("alone", ["tls_cert", "tls_key"])
def test_a_certificate_and_its_key_come_together(alone, tmp_path):
    with pytest.raises(UserError, match=r"pem alone; name both files, or neither"):
        BusSettings(url="nats://h", experiment="x", **{alone: tmp_path / "a.pem"})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, r"user\.creds: No such file or directory; check the path"),
        ("", "got 0 lines that have not both"),
        ("nonsense\n" * 3, "got 3 lines that have not both"),
        (JWT, "got 3 lines that have not both"),
        (JWT + "-----BEGIN USER NKEY SEED-----", "got 4 lines that have not both"),
        (WHOLE.replace("a.b.c", "nothing"), "lines that have not both"),
        (WHOLE.replace(SEED, SEED[:-1] + "A"), r"user's NATS seed \(SU.*that are no seed"),
        (WHOLE.replace(SEED, Key(Kind.ACCOUNT, bytes(32)).seed), r"another kind \(SA"),
        ("\0\xff\xfe", "it is not text"),
    ],
)
async def test_what_is_no_credentials_file_is_refused_at_once(text, problem, tmp_path):
    path = tmp_path / "user.creds"
    if text is not None:
        path.write_text(text, encoding="latin-1")
    settings = BusSettings(url="nats://127.0.0.1:1", experiment="x", credentials=path)
    started = time.monotonic()
    with (
        structlog.testing.capture_logs() as logs,
        pytest.raises(BusError, match=problem) as refused,
    ):
        async with connect_worker(settings):
            pass
    assert time.monotonic() - started < 20
    assert SEED[:-1] not in f"{refused.value} {logs}"
    assert str(path) in str(refused.value)


async def test_a_folder_is_no_credentials_file(tmp_path):
    settings = BusSettings(url="nats://127.0.0.1:1", experiment="x", credentials=tmp_path)
    with pytest.raises(BusError, match="Is a directory; check the path"):
        async with connect_worker(settings):
            pass


# --- refusals and denials -------------------------------------------------------------------------


async def test_a_server_that_hangs_up_on_us_is_no_connection():
    connections: list[bytes] = []
    async with await greet(connections, {"auth_required": True}) as server:
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = BusSettings(url=url, experiment="x", token="t", connect_seconds=1.0)
        with pytest.raises(BusUnavailable, match=r"no answer for 1 s \(.*EOF"):
            async with connect_worker(settings):
                pass
    assert len(connections) > 1, "it tries again"


async def test_a_token_that_the_server_takes_away_and_gives_back(server):
    """It closes our connection with an error, at which nats-py alone would give up for good."""
    await server.start('authorization { token: "one" }')
    settings = server.settings(token="one")
    with structlog.testing.capture_logs() as logs:
        async with connect_coordinator(settings) as coordinator, connect_worker(settings) as worker:
            await coordinator.ensure()
            server.reload('authorization { token: "other" }')
            async with asyncio.timeout(20):
                while [line["event"] for line in logs].count("broker_refuses") < 2:
                    assert await worker.pull(0.1) is None
            publishing = asyncio.create_task(coordinator.publish_task(TASK, b"task"))
            server.reload('authorization { token: "one" }')
            assert await publishing
            assert (await worker.pull(10)).body == b"task"
    assert "one" not in {value for line in logs for value in line.values()}


async def test_a_missing_right_is_told_while_the_others_work(server):
    publish, subscribe = worker_rights(EXPERIMENT)
    lacking = [subject for subject in publish if not subject.startswith("kubevo.f.")]
    rights = json.dumps({"publish": lacking, "subscribe": list(subscribe)})
    user = f"{{user: worker, password: secret, permissions: {rights}}}"
    await server.start(f"authorization {{ users: [{user}, {{user: all, password: secret}}] }}")
    address = server.url.removeprefix("nats://")
    everything = server.settings(url=f"nats://all:secret@{address}")
    limited = server.settings(url=f"nats://worker:secret@{address}", give_up_seconds=300.0)
    async with connect_coordinator(everything) as coordinator, connect_worker(limited) as worker:
        await coordinator.ensure()
        await coordinator.publish_task(TASK, b"task")
        held = await worker.pull(5)
        assert await worker.put_result(TASK, b"result")
        started = time.monotonic()
        with pytest.raises(BusError, match=r"denies 'kubevo' a right.*kubevo\.f\.") as denied:
            await worker.put_failure(TASK, b"failure")
        assert time.monotonic() - started < 20
        assert "secret" not in str(denied.value)
        await held.nak()
    async with connect_worker(limited) as again:  # a new process is told again
        assert (await again.pull(5)).deliveries == 2


# --- TLS ------------------------------------------------------------------------------------------


def openssl(folder: Path, *arguments: str) -> None:
    command = [OPENSSL, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def certificate(folder: Path, name: str, authority: str | None, *extensions: str) -> None:
    """Make <name>.crt and <name>.key, signed by an authority or by itself."""
    signer = ["-CA", f"{authority}.crt", "-CAkey", f"{authority}.key"] if authority else []
    openssl(
        folder,
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-keyout", f"{name}.key", "-out", f"{name}.crt", "-days", "2", "-subj", f"/CN={name}"),
        *(part for extension in extensions for part in ("-addext", extension)),
        *signer,
    )


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    if OPENSSL is None:
        pytest.skip("openssl, which makes the certificates of this test, is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("authority", "stranger"):
        usage = "keyUsage=critical,keyCertSign,cRLSign"
        certificate(folder, name, None, usage)
    leaf = ("basicConstraints=critical,CA:FALSE",)
    certificate(folder, "server", "authority", *leaf, "subjectAltName=IP:127.0.0.1")
    certificate(folder, "elsewhere", "authority", *leaf, "subjectAltName=DNS:elsewhere.example")
    certificate(folder, "client", "authority", *leaf)
    certificate(folder, "fake", "stranger", *leaf)
    return folder


def tls(folder: Path, name: str, verify: str = "") -> str:
    return (
        f"tls {{ cert_file: {json.dumps(str(folder / f'{name}.crt'))}, "
        f"key_file: {json.dumps(str(folder / f'{name}.key'))}, timeout: 5 {verify} }}\n"
        'authorization { token: "one" }'
    )


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_work_goes_over_tls_and_goes_on_after_a_restart(server, certificates, scheme):
    await server.start(tls(certificates, "server"))
    url = server.url.replace("nats://", f"{scheme}://")
    settings = server.settings(url=url, token="one", tls_ca=certificates / "authority.crt")
    async with connect_coordinator(settings) as coordinator, connect_worker(settings) as worker:
        assert coordinator._connection.client._transport._io_writer.get_extra_info("ssl_object")
        await coordinator.ensure()
        await coordinator.publish_task(TASK, b"task")
        server.process.kill()
        await server.process.wait()
        await server.start()
        assert (await worker.pull(20)).body == b"task"
        assert await worker.put_result(TASK, b"result")


@pytest.mark.parametrize(
    ("name", "authority", "problem"),
    [
        ("server", "stranger.crt", r"not trusted: .*checked with .*stranger\.crt: check the auth"),
        ("server", None, "not trusted: .*checked with the system's certificate authorities"),
        ("elsewhere", "authority.crt", r"not trusted: .*127\.0\.0\.1.*the name in the address"),
    ],
)
async def test_a_broker_that_is_not_trusted_is_refused_at_once(
    server, certificates, name, authority, problem
):
    await server.start(tls(certificates, name))
    settings = server.settings(
        url=server.url.replace("nats", "tls"),
        token="one",
        tls_ca=certificates / authority if authority else None,
    )
    started = time.monotonic()
    with pytest.raises(BusError, match=problem):
        async with connect_worker(settings):
            pass
    assert time.monotonic() - started < 20


async def test_a_client_certificate_is_shown_where_it_is_asked_for(server, certificates):
    authority = certificates / "authority.crt"
    await server.start(
        tls(certificates, "server", f", verify: true, ca_file: {json.dumps(str(authority))}")
    )

    def own(name):
        return {"tls_cert": certificates / f"{name}.crt", "tls_key": certificates / f"{name}.key"}

    settings = server.settings(token="one", tls_ca=authority, **own("client"))
    async with connect_worker(settings) as worker:
        assert await worker.get_blob("key") is None
    for refused in ({}, own("fake")):
        started = time.monotonic()
        with pytest.raises(BusError, match="it refused our certificate"):
            async with connect_worker(server.settings(token="one", tls_ca=authority, **refused)):
                pass
        assert time.monotonic() - started < 20


@pytest.mark.parametrize("way", ["address", "authority"])
async def test_nothing_is_said_to_a_broker_that_does_not_encrypt(way, certificates):
    connections: list[bytes] = []
    async with await greet(connections, {"auth_required": True, "tls_available": True}) as server:
        place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = BusSettings(
            url=f"{'tls' if way == 'address' else 'nats'}://{place}",
            experiment="x",
            token="secret",
            tls_ca=certificates / "authority.crt" if way == "authority" else None,
        )
        with pytest.raises(BusError, match="does not ask for TLS; switch TLS on there"):
            async with connect_worker(settings):
                pass
    assert set(connections) <= {b""}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tls_ca": "absent"}, "authority .*absent: .*got No such file"),
        ({"tls_ca": "server.key"}, "expected a readable file of PEM certificates, got "),
        ({"tls_cert": "client.crt", "tls_key": "server.key"}, "expected a matching pair"),
        ({"tls_cert": "absent", "tls_key": "client.key"}, "matching pair .*got No such file"),
    ],
)
async def test_a_certificates_file_that_cannot_be_used_is_refused(certificates, changes, problem):
    paths = {name: certificates / value for name, value in changes.items()}
    settings = BusSettings(url="tls://127.0.0.1:1", experiment="x", **paths)
    with pytest.raises(BusError, match=problem):
        async with connect_worker(settings):
            pass
