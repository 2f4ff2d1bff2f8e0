"""The REST service on the tests' cluster, under the rights of api/rbac.yaml, and its callers."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Self

import yaml
from control_plane import free_ports
from http_of_tests import Answer, ask
from kubelet import INHERITED
from site_of_tests import Site

from kubevo_runtime.processes import start_child, tail

ROOT = Path(__file__).parents[2]
AUDIENCE = "kubevo-api"


class Service:
    """One service process for a site, and tokens to call it with."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._port = free_ports(1)[0]
        self.account = f"kubevo-api-{site.namespace}"

    async def __aenter__(self) -> Self:
        site, plane = self._site, self._site.control_plane
        rights, reviews = yaml.safe_load_all((ROOT / "api/rbac.yaml").read_text())
        rights["kind"] = "Role"
        reviews["metadata"]["name"] = self.account
        system = site.system
        plane.kubectl("create", "serviceaccount", self.account, "-n", system)
        plane.kubectl("apply", "-n", site.namespace, "-f", "-", stdin=json.dumps(rights))
        plane.kubectl("apply", "-f", "-", stdin=json.dumps(reviews))
        subject = f"--serviceaccount={system}:{self.account}"
        plane.kubectl(
            "create",
            "rolebinding",
            "kubevo-api",
            "-n",
            site.namespace,
            "--role=kubevo-api",
            subject,
        )
        plane.kubectl(
            "create", "clusterrolebinding", self.account, f"--clusterrole={self.account}", subject
        )
        kubeconfig = plane.service_account(system, self.account)
        self._log = site.folder / "api.log"
        settings = {
            **INHERITED,
            "KUBECONFIG": str(kubeconfig),
            "KUBEVO_DATA": str(site.data),
            "KUBEVO_NAMESPACES": site.namespace,
            "KUBEVO_API_ADDRESS": "127.0.0.1",
            "KUBEVO_API_PORT": str(self._port),
            "KUBEVO_API_CACHE": str(site.folder / "api-cache"),
            "KUBEVO_LOG_FORMAT": "console",
        }
        self.process = await start_child(
            [sys.executable, "-m", "kubevo_api"], env=settings, log=self._log
        )

        async def is_ready() -> bool:
            assert self.process.returncode is None, tail(self._log, 30)
            try:
                return (await self.ask("/readyz", "")).status == 200
            except OSError:
                return False

        await site.until(is_ready, "the service is ready")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.process.terminate()
        await self.process.wait()
        plane = self._site.control_plane
        plane.kubectl("delete", "clusterrolebinding", self.account)
        plane.kubectl("delete", "clusterrole", self.account)

    async def token(self, name: str, verbs: str = "", audience: str = AUDIENCE) -> str:
        """Make an account that may do ``verbs`` in the site's namespace; return a token of it."""
        plane, space = self._site.control_plane, self._site.namespace
        plane.kubectl("create", "serviceaccount", name, "-n", space)
        if verbs:
            plane.kubectl(
                "create", "role", name, "-n", space, f"--verb={verbs}",
                "--resource=experiments.kubevo.dev",
            )  # fmt: skip
            plane.kubectl(
                "create", "rolebinding", name, "-n", space, f"--role={name}",
                f"--serviceaccount={space}:{name}",
            )  # fmt: skip
        made = plane.kubectl("create", "token", name, "-n", space, f"--audience={audience}")
        return made.strip()

    async def ask(
        self, path: str, token: str, body: Any = None, method: str | None = None
    ) -> Answer:
        """Send one request; ``path`` is below the site's Experiments unless it begins with /."""
        if not path.startswith("/"):
            path = f"/api/v1/namespaces/{self._site.namespace}/experiments/{path}"
        url = f"http://127.0.0.1:{self._port}{path}"
        return await asyncio.to_thread(ask, url, token, body, method)
