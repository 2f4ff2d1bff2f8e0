"""A small real peer in place of an API server and a kubelet: pods, tokens, logs, what is forwarded.

A port-forward speaks the channel protocol over a WebSocket as Kubernetes does: two channels for a
port, data and errors, each beginning with the port's number; then the bytes of a TCP connection.
A command in a pod is a real process here, its streams on channels 0, 1 and 2, its end on 3.
"""

import base64
import contextlib
import hashlib
import json
import socket
import struct
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BINARY, CLOSE = 2, 8


def pod(name: str, *, ready: bool = True, port: int = 8000, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"ports": [{"name": "api", "containerPort": port}]}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [
                {"name": "evaluator", "state": {"running": {}}},
                {"name": "evaluator-1", "state": {"running": {}}},
                {"name": "evaluator-2", "state": {"waiting": {}}},
                {"name": "sidecar", "state": {"running": {}}},
            ],
        },
    }


@dataclass
class Peer:
    """What it answers; ``forwards`` is where a pod's port really leads, None: it is refused."""

    pods: list[dict[str, Any]] = field(default_factory=list)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    forwards: dict[str, int] = field(default_factory=dict)
    # The environment of commands in pods; None: they are refused.
    environment: dict[str, str] | None = None
    # The connection of the next command breaks after so many bytes of its stdin.
    breaks_after: int | None = None
    token: str = ""
    asked: list[str] = field(default_factory=list)

    def start(self) -> "Running":
        return Running(self)


class Running:
    def __init__(self, peer: Peer) -> None:
        self.server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Bound", (Handler,), {"peer": peer})
        )
        self.server.daemon_threads = True
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def kubeconfig(self, namespace: str) -> str:
        context = {"cluster": "c", "user": "u", "namespace": namespace}
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": self.url}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "c", "context": context}],
                "current-context": "c",
            }
        )

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


class Handler(BaseHTTPRequestHandler):
    peer: Peer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        query = parse_qs(place.query)
        self.peer.asked.append(f"GET {place.path}")
        parts = place.path.strip("/").split("/")
        if parts[-1] == "pods":
            self._json({"items": self._selected(query["labelSelector"][0])})
        elif parts[-1] == "log":
            self._answer(
                200, self.peer.logs[f"{parts[-2]}/{query['container'][0]}"].encode(), "text/plain"
            )
        elif parts[-1] == "portforward":
            self._forward(parts[-2], int(query["ports"][0]))
        elif parts[-1] == "exec":
            self._execute(query["command"])
        elif parts[-1] in self.peer.experiments:
            self._json(self.peer.experiments[parts[-1]])
        else:
            self._json({"message": f"{parts[-1]} not found"}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.peer.asked.append(f"POST {self.path}")
        if urlsplit(self.path).path.endswith("/experiments"):
            made = json.loads(body)
            made["metadata"]["uid"] = str(uuid.uuid4())
            self.peer.experiments[made["metadata"]["name"]] = made
            self._json(made, 201)
        elif self.peer.token:
            self._json({"status": {"token": self.peer.token}}, 201)
        else:
            self._json({"message": "serviceaccounts not found"}, 404)

    def do_PATCH(self) -> None:
        change = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = self.peer.experiments[urlsplit(self.path).path.rpartition("/")[2]]
        assert change["metadata"]["uid"] == found["metadata"]["uid"]
        found["spec"].update(change["spec"])
        self._json(found)

    def _selected(self, selector: str) -> list[dict[str, Any]]:
        wanted = [part.split("=") for part in selector.split(",")]
        return [
            each
            for each in self.peer.pods
            if all(each["metadata"]["labels"].get(key) == value for key, value in wanted)
        ]

    def _json(self, document: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(document).encode(), "application/json")

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _forward(self, name: str, port: int) -> None:
        self.close_connection = True
        if name not in self.peer.forwards:
            self._json({"message": "forbidden"}, 403)
            return
        self._upgrade()
        with socket.create_connection(("127.0.0.1", self.peer.forwards[name])) as target:
            number = struct.pack("<H", port)
            for channel in (b"\0", b"\1"):
                self._send(channel + number)
            back = threading.Thread(target=self._from, args=(target,))
            back.start()
            while (data := self._receive()) is not None:
                target.sendall(data[1:])
            with contextlib.suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)
            back.join()

    def _upgrade(self) -> None:
        key = self.headers["Sec-WebSocket-Key"]
        accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept)
        self.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
        self.end_headers()

    def _execute(self, command: list[str]) -> None:
        self.close_connection = True
        if self.peer.environment is None:
            self._json({"message": "forbidden"}, 403)
            return
        self._upgrade()
        with subprocess.Popen(
            [sys.executable, *command[1:]],
            env=self.peer.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            reader = threading.Thread(target=self._feed, args=(process,))
            reader.start()
            out, err = process.stdout.read(), process.stderr.read()
            code = process.wait()
        for channel, data in ((b"\1", out), (b"\2", err)):
            for start in range(0, len(data), 10_000):
                self._send(channel + data[start : start + 10_000])
        cause = {"reason": "ExitCode", "message": str(code)}
        status = {"status": "Failure", "details": {"causes": [cause]}}
        with contextlib.suppress(OSError):
            if self.peer.breaks_after is None:
                self._send(b"\3" + json.dumps(status if code else {"status": "Success"}).encode())
            self._send(struct.pack(">H", 1000), CLOSE)
            self.connection.shutdown(socket.SHUT_RD)
        reader.join()

    def _feed(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        left = self.peer.breaks_after
        with contextlib.suppress(OSError, ValueError):
            while (data := self._receive()) is not None:
                process.stdin.write(data[1:] if left is None else data[1 : 1 + left])
                process.stdin.flush()
                left = None if left is None else left - len(data) + 1
                if left is not None and left <= 0:
                    break
        if left is not None:
            process.kill()

    def _from(self, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := target.recv(10_000):
                self._send(b"\0" + data)
            self._send(struct.pack(">H", 1000), CLOSE)

    def _send(self, data: bytes, opcode: int = BINARY) -> None:
        size = len(data)
        length = bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size)
        self.connection.sendall(bytes([0x80 | opcode]) + length + data)

    def _receive(self) -> bytes | None:
        """Return the next message's bytes; None when the other side closes."""
        head = self.rfile.read(2)
        if len(head) < 2 or head[0] & 15 == CLOSE:
            return None
        size = head[1] & 127
        if size == 126:
            size = struct.unpack(">H", self.rfile.read(2))[0]
        elif size == 127:
            size = struct.unpack(">Q", self.rfile.read(8))[0]
        mask = self.rfile.read(4)
        data = self.rfile.read(size)
        return bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
