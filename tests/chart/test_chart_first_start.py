"""The first start, with real programs: the operator makes the keys before there is a broker."""

import asyncio
import os
import sys
from pathlib import Path

from control_plane import ControlPlane, free_ports
from helm_of_tests import NAMESPACE, Helm, Rendered

from kubevo_operator.cluster import Cluster, connect
from kubevo_operator.nats_accounts import BrokerKeys, coordinator_credentials
from kubevo_runtime.broker import find_server
from kubevo_runtime.bus import BusSettings, connect_coordinator
from kubevo_runtime.processes import start_child, stop_child, tail

READY_SECONDS = 60.0
MADE = (
    (("v1", "Secret"), "kubevo-nats-keys"),
    (("v1", "ConfigMap"), "kubevo-nats-config"),
    (("coordination.k8s.io/v1", "Lease"), "kubevo-operator"),
)


def operator_environment(rendered: Rendered, **changes: str) -> dict[str, str]:
    pod = rendered.one("Deployment", "kubevo-operator")["spec"]["template"]["spec"]
    rows = pod["containers"][0]["env"]
    given = {row["name"]: row.get("value", NAMESPACE) for row in rows}
    inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return inherited | given | changes


async def answer(port: int, path: str) -> int:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    return int(line.split()[1]) if line else 0


async def until_ready(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    async with asyncio.timeout(READY_SECONDS):
        while await answer(port, "/readyz") != 200:
            assert process.returncode is None, tail(log, 20)
            await asyncio.sleep(0.05)


async def keys_of(cluster: Cluster) -> BrokerKeys:
    found = await cluster.get(MADE[0][0], NAMESPACE, MADE[0][1])
    assert found is not None
    return BrokerKeys.from_secret_data(found["data"], "the test")


async def test_the_operator_is_ready_and_has_made_what_the_broker_waits_for(
    api_server: ControlPlane, release: list[str], helm: Helm, rendered: Rendered, tmp_path: Path
):
    port, http = free_ports(2)
    cluster = await connect(str(api_server.admin))
    log = tmp_path / "operator.log"
    environment = operator_environment(
        rendered,
        # With the rights of the chart, and nothing at the broker's address yet.
        KUBECONFIG=str(api_server.service_account(NAMESPACE, "kubevo-operator")),
        KUBEVO_NATS_URL=f"nats://127.0.0.1:{port}",
        KUBEVO_DATA=str(tmp_path / "data"),
        KUBEVO_HTTP_PORT=str(http),
    )
    command = [sys.executable, "-m", "kubevo_operator"]
    operator = await start_child(command, log=log, env=environment)
    broker = None
    try:
        await until_ready(operator, http, log)
        assert await answer(http, "/healthz") == 200
        made = await cluster.get(MADE[1][0], NAMESPACE, MADE[1][1])
        assert made is not None

        # Now the kubelet has all that it mounts, and starts the server.
        (tmp_path / "auth.conf").write_text(made["data"]["auth.conf"])
        config = rendered.one("ConfigMap", "kubevo-nats")["data"]["nats.conf"]
        for ours, theirs in (("/data", tmp_path / "store"), ("0.0.0.0:8222", "127.0.0.1:-1")):
            config = config.replace(ours, str(theirs))
        (tmp_path / "nats.conf").write_text(config.replace("0.0.0.0:4222", f"127.0.0.1:{port}"))
        server = [await find_server(), "--config", tmp_path / "nats.conf"]
        broker = await start_child(server, log=tmp_path / "nats.log")

        credentials = tmp_path / "coordinator.creds"
        credentials.write_text(coordinator_credentials(await keys_of(cluster)))
        settings = BusSettings(
            url=f"nats://127.0.0.1:{port}", experiment="first-11111111", credentials=credentials
        )
        async with connect_coordinator(settings) as bus:
            await bus.ensure()
            await bus.delete()
    finally:
        await stop_child(operator, 15)
        if broker is not None:
            await stop_child(broker, 5)
        for kind, name in MADE:
            await cluster.delete(kind, NAMESPACE, name)
        await cluster.aclose()
