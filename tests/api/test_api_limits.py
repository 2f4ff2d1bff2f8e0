"""Clients that are slow, large or wrong, over a real socket."""

import contextlib
import dataclasses
import http.client
import socket
import stat
import time

import pytest
import structlog
from api_parts import TOKEN

from kubevo_api.settings import ApiSettings
from kubevo_core.errors import UserError


def ask(served, request: bytes, seconds: float = 20) -> bytes:
    """Send bytes and return everything that comes back until the server closes."""
    with socket.create_connection((served.host, served.port), timeout=seconds) as connection:
        connection.sendall(request)
        found = b""
        while part := connection.recv(65536):
            found += part
    return found


@pytest.fixture
def served(settings, serve):
    settings.data.mkdir(exist_ok=True)
    return serve(settings.data)


def test_a_request_that_never_ends_is_closed_in_time(served):
    started = time.monotonic()
    with socket.create_connection((served.host, served.port), timeout=30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        connection.settimeout(1)
        closed = False
        while time.monotonic() - started < 25 and not closed:
            try:  # a byte now and then, as a slow attacker does
                connection.sendall(b"A")
                closed = connection.recv(1000) == b""
            except TimeoutError:
                pass
            except OSError:
                closed = True
    assert closed
    assert time.monotonic() - started < 20


def test_a_connection_that_says_nothing_is_closed_in_time(served):
    started = time.monotonic()
    with socket.create_connection((served.host, served.port), timeout=25) as connection:
        assert connection.recv(1000) == b""
    assert time.monotonic() - started < 20


def test_a_head_that_is_too_large_is_431(served):
    answer = ask(served, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"application/problem+json" in answer


@pytest.mark.parametrize(
    "request_", [b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9\r\n\r\n"]
)
def test_what_is_no_request_is_400(served, request_):
    assert ask(served, request_).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("path", ["/static/../serve.py", "/static/..%2f..%2fserve.py", "/static/%2e%2e/serve.py", "//etc/passwd"])  # fmt: skip
def test_a_path_leads_nowhere_else(served, path):
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    assert ask(served, request).startswith(b"HTTP/1.1 404 ")


def test_a_second_request_on_a_connection_has_its_own_time(served):
    connection = http.client.HTTPConnection(served.host, served.port, timeout=5)
    for _ in range(3):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok"
    connection.close()


def test_a_client_that_takes_nothing_of_its_answer_is_let_go(settings, make_run_in, serve_here):
    run = make_run_in(settings.data, "test")
    videos = run.path / "repeat-0/videos"
    videos.mkdir()
    (videos / "gen-0000001.mp4").write_bytes(bytes(32_000_000))
    settings = dataclasses.replace(settings, api_stall_seconds=0.5)
    with (
        structlog.testing.capture_logs() as logs,
        serve_here(settings) as served,
        socket.create_connection((served.host, served.port), timeout=20) as connection,
    ):
        path = "/api/v1/namespaces/local/experiments/test/generations/1/video.mp4"
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        while not any(entry["event"] == "client_stalled" for entry in logs):
            time.sleep(0.05)
        # Really: what it does not take is not kept for it.
        taken = 0
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(1 << 20):
                taken += len(data)
        assert taken < 32_000_000
    assert not [entry for entry in logs if entry["event"] == "request_crashed"]


def test_the_token_is_its_owners_alone_and_stays(settings, serve, served):
    file = settings.data / "api-token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().strip() == served.token
    assert serve(settings.data).token == served.token
    assert served.host == "127.0.0.1"


def test_settings_are_read_and_wrong_ones_named():
    found = ApiSettings.from_environment({"KUBEVO_DATA": "/x", "KUBEVO_API_PORT": "9"})
    assert (found.api_port, found.api_audience) == (9, "kubevo-api")
    with pytest.raises(UserError) as caught:
        ApiSettings.from_environment({"KUBEVO_API_PORT": "x", "KUBEVO_API_STREAMS": "0"})
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "KUBEVO_DATA" in lines[2]
