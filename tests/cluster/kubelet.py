"""A kubelet of processes: every container of a pod becomes a real process on this machine.

Pods are bound to one node that exists in name only. An image is a row of a table: what to run. Secret
volumes become folders, and what names a mount path is rewritten to them. Pods are marked ready,
restarted with a growing pause, stopped with SIGTERM and their grace, and removed, as a kubelet would.
"""

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import aiohttp

from kubevo_runtime.processes import start_child, stop_child, tail

NODE = "here"
LOOK_SECONDS = 0.25
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 5.0
Document = dict[str, Any]


def expand(text: str, known: Mapping[str, str]) -> str:
    """Replace $(NAME) as Kubernetes does; unknown names stay."""
    return re.sub(r"\$\((\w+)\)", lambda match: known.get(match[1], match[0]), text)


def moved(text: str, mounts: Mapping[str, Path]) -> str:
    """Return a path below a mount as the path that stands for it here."""
    for mount, folder in mounts.items():
        if text == mount or text.startswith(f"{mount}/"):
            return str(folder) + text[len(mount) :]
    return text


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class ProcessKubelet:
    """Gives pods their processes; ``images`` says what an image runs, ``environment`` is inherited."""

    def __init__(
        self,
        kubeconfig: Path,
        folder: Path,
        images: Mapping[str, Sequence[str]],
        environment: Mapping[str, str],
        most_pods: int = 1000,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        document = json.loads(kubeconfig.read_text())
        self._url = document["clusters"][0]["cluster"]["server"]
        self._token = document["users"][0]["user"]["token"]
        self._folder = folder
        self._images = images
        self._environment = environment
        self._pods: dict[str, _Pod] = {}
        self.most_pods = most_pods
        self._look_seconds = look_seconds

    async def __aenter__(self) -> Self:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._session = aiohttp.ClientSession(
            self._url,
            headers={"Authorization": f"Bearer {self._token}"},
            connector=aiohttp.TCPConnector(ssl=context),
        )
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        stopping = [pod.stopping for pod in self._pods.values() if pod.stopping is not None]
        for task in stopping:
            task.cancel()
        await asyncio.gather(*stopping, return_exceptions=True)
        await asyncio.gather(*(pod.kill() for pod in self._pods.values()))
        await self._session.close()

    def pids(self, namespace: str, experiment: str) -> list[int]:
        """Return the processes of an Experiment's evaluators."""
        return [
            pid
            for pod in self._pods.values()
            if pod.key == (namespace, experiment)
            for pid in pod.pids()
        ]

    async def request(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> Document:
        """Send a request; an answer of 400 and above raises."""
        async with self._session.request(
            method, path, data=None if body is None else json.dumps(body),
            headers={"Content-Type": kind}, timeout=aiohttp.ClientTimeout(10),
        ) as answer:  # fmt: skip
            answer.raise_for_status()
            return dict(await answer.json())

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                await self._look()
            await asyncio.sleep(self._look_seconds)

    async def _look(self) -> None:
        found = (await self.request("GET", "/api/v1/pods"))["items"]
        seen = {item["metadata"]["uid"]: item for item in found}
        for uid in self._pods.keys() - seen.keys():
            pod = self._pods.pop(uid)
            await pod.kill()
        for uid, item in seen.items():
            pod = self._pods.get(uid)
            if pod is None and not item["metadata"].get("deletionTimestamp"):
                if sum(p.is_running for p in self._pods.values()) >= self.most_pods:
                    await self._unschedulable(item)
                    continue
                self._pods[uid] = pod = _Pod(self, item, self._folder / uid)
                await pod.bind()
                pod.task = asyncio.create_task(pod.run(self._images, self._environment))
            elif item["metadata"].get("deletionTimestamp") and (pod is None or not pod.stopping):
                if pod is None:
                    await _Pod(self, item, self._folder / uid).remove()
                else:
                    pod.stopping = asyncio.create_task(pod.stop())

    async def _unschedulable(self, item: Document) -> None:
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 Insufficient cpu.",
            "lastTransitionTime": now(),
        }
        if not any(c["type"] == "PodScheduled" for c in item["status"].get("conditions") or ()):
            metadata = item["metadata"]
            await self.request(
                "PATCH",
                f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status",
                {"status": {"conditions": [condition]}},
                "application/merge-patch+json",
            )


class _Pod:
    """One pod: its processes and what is said of them."""

    def __init__(self, kubelet: ProcessKubelet, item: Document, folder: Path) -> None:
        self._kubelet = kubelet
        self._item = item
        self._folder = folder
        metadata = item["metadata"]
        self._path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        labels = metadata.get("labels") or {}
        self.key = (metadata["namespace"], labels.get("kubevo.dev/experiment", ""))
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._statuses: dict[str, Document] = {}
        self._started = now()
        self._ending = False
        self.task: asyncio.Task[None] | None = None
        self.stopping: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        return not self._ending

    def pids(self) -> list[int]:
        return [p.pid for p in self._processes.values() if p.returncode is None]

    async def bind(self) -> None:
        """Say that the pod is on the node."""
        if not self._item["spec"].get("nodeName"):
            metadata = self._item["metadata"]
            body = {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
                "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
            }
            await self._kubelet.request("POST", f"{self._path}/binding", body)

    async def run(self, images: Mapping[str, Sequence[str]], inherited: Mapping[str, str]) -> None:
        """Keep every container running until the pod is stopped."""
        spec = self._item["spec"]
        mounts = {name: await self._volume(name, spec) for name in _volumes(spec)}
        await asyncio.gather(
            *(self._keep(container, images, inherited, mounts) for container in spec["containers"])
        )

    async def _volume(self, name: str, spec: Document) -> Path:
        volume = next(v for v in spec["volumes"] if v["name"] == name)
        folder = self._folder / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True)
        if "secret" in volume:
            data = (await self._secret(volume["secret"]["secretName"])).get("data") or {}
            wanted = volume["secret"].get("items") or [{"key": k, "path": k} for k in data]
            for item in wanted:
                (folder / item["path"]).write_bytes(base64.b64decode(data[item["key"]]))
        return folder

    async def _secret(self, name: str) -> Document:
        namespace = self._item["metadata"]["namespace"]
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                return await self._kubelet.request(
                    "GET", f"/api/v1/namespaces/{namespace}/secrets/{name}"
                )
            await asyncio.sleep(LOOK_SECONDS)

    async def _environment(self, container: Document, mounts: Mapping[str, Path]) -> dict[str, str]:
        metadata, known = self._item["metadata"], {}
        for entry in container.get("env") or ():
            source = entry.get("valueFrom") or {}
            if "fieldRef" in source:
                value = str(metadata[source["fieldRef"]["fieldPath"].removeprefix("metadata.")])
            elif "secretKeyRef" in source:
                secret = await self._secret(source["secretKeyRef"]["name"])
                value = base64.b64decode(secret["data"][source["secretKeyRef"]["key"]]).decode()
            else:
                value = expand(entry.get("value", ""), known)
            known[entry["name"]] = moved(value, mounts)
        return known

    async def _keep(
        self,
        container: Document,
        images: Mapping[str, Sequence[str]],
        inherited: Mapping[str, str],
        volumes: Mapping[str, Path],
    ) -> None:
        name, restarts, pause = container["name"], 0, FIRST_PAUSE_SECONDS
        if container["image"] not in images:
            waiting = {"reason": "ImagePullBackOff", "message": f'image "{container["image"]}"'}
            self._statuses[name] = _status(container, False, 0, {"waiting": waiting})
            await self._say()
            return
        mounts = {m["mountPath"]: volumes[m["name"]] for m in container.get("volumeMounts") or ()}
        environment = {**inherited, **await self._environment(container, mounts)}
        log, last = self._folder / f"{name}.log", None
        while not self._ending:
            process = await start_child(images[container["image"]], env=environment, log=log)
            self._processes[name] = process
            running = {"running": {"startedAt": now()}}
            self._statuses[name] = _status(container, True, restarts, running, last)
            await self._say()
            code = await process.wait()
            if self._ending:
                return
            message = tail(log, 20)[-2000:]
            last = {"terminated": {"exitCode": code, "reason": "Error", "message": message}}
            restarts += 1
            waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "restarting"}}
            self._statuses[name] = _status(container, False, restarts, waiting, last)
            await self._say()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _say(self) -> None:
        ready = all(s["ready"] for s in self._statuses.values())
        ready = ready and len(self._statuses) == len(self._item["spec"]["containers"])
        word = "True" if ready else "False"
        kinds = {
            "PodScheduled": "True",
            "Initialized": "True",
            "ContainersReady": word,
            "Ready": word,
        }
        status = {
            "phase": "Running",
            "podIP": "127.0.0.1",
            "startTime": self._started,
            "conditions": [
                {"type": kind, "status": value, "lastTransitionTime": now()}
                for kind, value in kinds.items()
            ],
            "containerStatuses": list(self._statuses.values()),
        }
        while not self._ending:
            try:
                await self._kubelet.request(
                    "PATCH", f"{self._path}/status", {"status": status},
                    "application/merge-patch+json",
                )  # fmt: skip
            except aiohttp.ClientResponseError:
                return  # gone
            except (aiohttp.ClientError, TimeoutError, OSError):
                await asyncio.sleep(LOOK_SECONDS)
            else:
                return

    async def stop(self) -> None:
        """End the processes within the grace and remove the pod."""
        self._ending = True
        grace = self._item["metadata"].get("deletionGracePeriodSeconds")
        grace = (
            self._item["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
        )
        await asyncio.gather(*(stop_child(p, float(grace)) for p in self._processes.values()))
        await self.kill()
        await self.remove()

    async def remove(self) -> None:
        """Remove the pod's object."""
        while True:
            try:
                await self._kubelet.request("DELETE", self._path, {"gracePeriodSeconds": 0})
            except aiohttp.ClientResponseError:
                return
            except (aiohttp.ClientError, TimeoutError, OSError):
                await asyncio.sleep(LOOK_SECONDS)
            else:
                return

    async def kill(self) -> None:
        """End everything at once."""
        self._ending = True
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        for process in self._processes.values():
            if process.returncode is None:
                process.kill()
                await process.wait()
        shutil.rmtree(self._folder / "volumes", ignore_errors=True)


def _volumes(spec: Document) -> list[str]:
    return [v["name"] for v in spec.get("volumes") or () if "secret" in v or "emptyDir" in v]


def _status(
    container: Document, ready: bool, restarts: int, state: Document, last: Document | None = None
) -> Document:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": ready,
        "restartCount": restarts,
        "state": state,
        "lastState": last or {},
    }


INHERITED = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
