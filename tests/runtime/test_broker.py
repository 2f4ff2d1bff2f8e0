"""The supervised local nats-server."""

import asyncio
import os
import re
import socket
import stat
import sys
import urllib.request

import pytest

from kubevo_core.errors import BusError, ServerTooOld
from kubevo_runtime.broker import PORTS, LocalBroker, find_server


def script(path, text: str):
    path.write_text(f"#!{sys.executable}\n{text}\n")
    path.chmod(0o755)
    return path


def answers(url: str) -> bool:
    host, port = url.removeprefix("nats://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


async def greeting(url: str) -> bytes:
    host, port = url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line


async def test_it_answers_while_it_is_entered_and_is_gone_afterwards(tmp_path):
    async with LocalBroker(tmp_path / "new" / "store", log=tmp_path / "log") as broker:
        assert (await greeting(broker.url)).startswith(b"INFO ")
        pid, url = broker.pid, broker.url
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(OSError, match="Connect call failed"):
        await greeting(url)


async def test_it_listens_on_loopback_below_the_ports_of_outgoing_connections(broker):
    port = int(broker.url.rpartition(":")[2])
    assert port in PORTS
    assert broker.url.startswith("nats://127.0.0.1:")


async def test_its_token_lies_in_a_file_for_the_owner_alone(broker, tmp_path):
    config = tmp_path / "broker" / "nats-server.conf"
    assert broker.token in config.read_text()
    assert stat.S_IMODE(config.stat().st_mode) == 0o600


async def test_a_killed_server_is_started_again_on_the_same_port(broker, until):
    url, pid = broker.url, broker.pid
    await broker.kill()
    await until(lambda: broker.restarts == 1)
    await until(lambda: answers(url))
    assert (await greeting(url)).startswith(b"INFO ")
    assert broker.pid != pid
    assert broker.url == url


async def test_two_brokers_have_their_own_ports_and_tokens(broker, tmp_path):
    async with LocalBroker(tmp_path / "second", log=tmp_path / "log") as second:
        assert (broker.url, broker.token) != (second.url, second.token)
        assert broker.token != second.token


async def test_a_server_that_keeps_dying_ends_the_watch_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setattr("kubevo_runtime.broker.FIRST_BACKOFF_SECONDS", 0.001)
    # Greets once, then dies, and from then on dies at once.
    server = script(
        tmp_path / "nats-server",
        "import pathlib, socket, sys\n"
        "if '--version' in sys.argv: print('nats-server: v2.15.1'); sys.exit()\n"
        "config = pathlib.Path(sys.argv[2])\n"
        "print('the disk is on fire', flush=True)\n"
        "mark = config.with_name('greeted')\n"
        "if mark.exists(): sys.exit(3)\n"
        "mark.touch()\n"
        "port = int(config.read_text().split('\"')[1].rpartition(':')[2])\n"
        "listening = socket.create_server(('127.0.0.1', port))\n"
        "connection, _ = listening.accept()\n"
        "connection.sendall(b'INFO {}\\r\\n')\n"
        "connection.recv(1)",
    )
    async with LocalBroker(tmp_path / "store", log=tmp_path / "log", server=server) as broker:
        with pytest.raises(BusError, match=r"died 6 times in a row(.|\n)*the disk is on fire"):
            await broker.watch()


async def test_a_server_that_does_not_start_is_told_with_its_last_words(tmp_path):
    server = script(
        tmp_path / "nats-server",
        "import sys\n"
        "if '--version' in sys.argv: print('nats-server: v2.15.1'); sys.exit()\n"
        "sys.exit('no more inodes')",
    )
    with pytest.raises(BusError, match=r"ended with code 1 before(.|\n)*no more inodes"):
        async with LocalBroker(tmp_path / "store", log=tmp_path / "log", server=server):
            pass


async def test_a_taken_port_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BusError, match=f"port {port} .* is taken"):
            async with LocalBroker(tmp_path / "store", log=tmp_path / "log", port=port):
                pass


async def test_an_old_server_is_refused(tmp_path):
    old = script(tmp_path / "nats-server", "print('nats-server: v2.9.10')")
    with pytest.raises(ServerTooOld, match=r"expected 2\.10\.23 or newer, found v2\.9\.10"):
        await find_server(old)


async def test_an_old_server_on_path_gives_way_to_the_one_beside_the_interpreter(
    tmp_path, monkeypatch
):
    (tmp_path / "path").mkdir()
    (tmp_path / "venv").mkdir()
    script(tmp_path / "path" / "nats-server", "print('nats-server: v2.9.10')")
    new = script(tmp_path / "venv" / "nats-server", "print('nats-server: v2.15.1')")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    assert await find_server() == new


async def test_a_missing_server_is_told_with_its_cure(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(BusError, match=re.escape("pip install 'kubevo[local]'")):
        await find_server()
    with pytest.raises(BusError, match="cannot run"):
        await find_server(tmp_path / "nowhere")


async def test_monitoring_is_there_only_when_it_was_asked_for(tmp_path):
    store, log = tmp_path / "store", tmp_path / "log"
    async with LocalBroker(store, log=log, monitoring=True) as broker:
        url = f"{broker.monitoring_url}/healthz"
        answer = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read())
        assert b"ok" in answer
    async with LocalBroker(store, log=log) as broker:
        with pytest.raises(BusError, match="not been"):
            _ = broker.monitoring_url


def test_nothing_happens_before_it_is_entered(tmp_path):
    broker = LocalBroker(tmp_path / "store", log=tmp_path / "log")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BusError, match="async with"):
        _ = broker.url
    with pytest.raises(BusError, match="async with"):
        _ = broker.pid
