"""The Kubernetes API as the commands use it: a kubeconfig's context, plain dicts, errors with a cure."""

import difflib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
import yaml
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException

from kubevo_cli.cluster.options import ClusterOptions
from kubevo_core.errors import KubevoError, UserError

__all__ = [
    "Cluster",
    "ClusterRefused",
    "ClusterUnavailable",
    "NoCluster",
    "NotFound",
    "WatchExpired",
    "connect",
    "experiments_path",
]

Document = dict[str, Any]
GROUP_VERSION = "kubevo.dev/v1alpha1"
MERGE = "application/merge-patch+json"
MANAGER = "kubevo-cli"
CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0
# An API server that does not answer is not worth retries: the person sees it and tries again.
TIMEOUT = (CONNECT_SECONDS, READ_SECONDS)


class NoCluster(UserError):
    """There is no kubeconfig, or not the context that was asked for."""


class NotFound(UserError):
    """There is no such object."""


class ClusterRefused(KubevoError):
    """The API server will not: rights, a conflict; ``status`` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ClusterUnavailable(KubevoError):
    """The API server does not answer, or asks to come back later."""


class WatchExpired(KubevoError):
    """The place where a watch should go on is forgotten; list again."""


def experiments_path(namespace: str = "", name: str = "") -> str:
    """Return the path of all Experiments, of a namespace's, or of one."""
    parts = [f"/apis/{GROUP_VERSION}"]
    parts += ["namespaces", quote(namespace, safe="")] if namespace else []
    parts += ["experiments", *([quote(name, safe="")] if name else [])]
    return "/".join(parts)


@dataclass(frozen=True)
class Cluster:
    """One API server, as one user; ``namespace`` is the one asked for, or the context's."""

    client: ApiClient
    url: str
    namespace: str

    def experiments(self, namespace: str, name: str = "") -> tuple[list[Document], str]:
        """Return Experiments (an empty namespace: of all) and the version to watch from.

        Raises:
            KubevoError: as the classes of this module say, here and below.
        """
        query = {"fieldSelector": f"metadata.name={name}"} if name else {}
        found = self.request("GET", experiments_path(namespace), query=query)
        return found["items"], found["metadata"]["resourceVersion"]

    def experiment(self, namespace: str, name: str) -> Document:
        """Return one Experiment; an unknown one is told with the names that are like it."""
        try:
            return self.request("GET", experiments_path(namespace, name))
        except NotFound as exc:
            raise self.unknown(namespace, name) from exc

    def unknown(self, namespace: str, name: str) -> NotFound:
        """Return the error of a name that is not there."""
        others: list[str] = []
        with suppress(KubevoError):  # whoever may get may not list
            others = [each["metadata"]["name"] for each in self.experiments(namespace)[0]]
        near = difflib.get_close_matches(name, others, 3)
        cure = f"did you mean {' or '.join(near)}?" if near else "kubevo ls -A lists what there is"
        return NotFound(f"there is no Experiment {name!r} in the namespace {namespace!r}: {cure}")

    def patch(self, experiment: Document, change: Document) -> Document:
        """Merge ``change`` into an Experiment's spec, if it is still the same one."""
        metadata = experiment["metadata"]
        return self.request(
            "PATCH",
            experiments_path(metadata["namespace"], metadata["name"]),
            body={"metadata": {"uid": metadata["uid"]}, "spec": change},
            content_type=MERGE,
            query={"fieldManager": MANAGER, "fieldValidation": "Strict"},
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Document | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Document:
        """Send one request and return the answer's JSON."""
        with self._guarded():
            answer = self._send(method, path, body, content_type, query)
            text: bytes = answer.read()
        if answer.status >= 400:
            raise self._refusal(answer.status, text)
        try:
            found: Document = json.loads(text)
        except ValueError as exc:
            raise ClusterUnavailable(
                f"{self.url}{path}: expected JSON, got {text[:60]!r}; is this a Kubernetes API?"
            ) from exc
        return found

    def lines(
        self, path: str, query: Mapping[str, str], read_seconds: float | None = READ_SECONDS
    ) -> Iterator[bytes]:
        """Yield the lines of an answer as they come; ``read_seconds`` None: however long it takes."""
        with self._guarded():
            timeout = (CONNECT_SECONDS, read_seconds)
            answer = self._send("GET", path, None, "application/json", query, timeout)
        try:
            if answer.status == 410:
                raise WatchExpired("the API server does not know that version any more")
            if answer.status >= 400:
                with self._guarded():
                    text = answer.read()
                raise self._refusal(answer.status, text)
            rest = iter(answer)
            while True:
                with self._guarded():
                    line = next(rest, None)
                if line is None:
                    return
                yield line
        finally:
            answer.close()

    def watch(self, path: str, version: str, seconds: int, name: str = "") -> Iterator[Document]:
        """Yield the API server's watch events after ``version`` for some seconds."""
        query = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
            **({"fieldSelector": f"metadata.name={name}"} if name else {}),
        }
        for line in self.lines(path, query, seconds + READ_SECONDS):
            event: Document = json.loads(line)
            if event["type"] == "ERROR":
                if event["object"].get("code") == 410:
                    raise WatchExpired("the API server does not know that version any more")
                raise ClusterUnavailable(str(event["object"].get("message", "the watch failed")))
            yield event

    def _send(
        self,
        method: str,
        path: str,
        body: Document | None,
        content_type: str,
        query: Mapping[str, str] | None,
        timeout: tuple[float, float | None] = TIMEOUT,
    ) -> Any:
        url = path + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", "Content-Type": content_type}
        prepared = self.client.param_serialize(
            method, url, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        answer = self.client.call_api(*prepared, _request_timeout=timeout)
        return answer.response

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except ApiException as exc:  # what the library could not even send
            raise ClusterUnavailable(self._silence(exc.reason or exc)) from exc
        except (urllib3.exceptions.HTTPError, OSError) as exc:
            raise ClusterUnavailable(self._silence(exc)) from exc

    def _silence(self, reason: object) -> str:
        text = str(reason).rpartition(">: ")[2].rpartition("): ")[2] or type(reason).__name__
        return (
            f"the Kubernetes API at {self.url} does not answer: {text}; check the cluster, and the "
            "context: kubectl config current-context"
        )

    def _refusal(self, status: int, body: bytes) -> KubevoError:
        text = body.decode(errors="replace").strip()
        details: Mapping[str, Any] = {}
        with suppress(ValueError, AttributeError):
            document = json.loads(text)
            text, details = document.get("message", text), document.get("details") or {}
        if status == 404:
            if "could not find the requested resource" in text or "page not found" in text:
                return NotFound(
                    f"{self.url} knows no Experiments: kubevo is not installed in this cluster "
                    f"(it serves no {GROUP_VERSION})"
                )
            return NotFound(text)
        if status == 422:
            causes = [
                f"{cause.get('field', '')}: {cause.get('message', '')}"
                for cause in details.get("causes") or ()
            ]
            return UserError("\n".join(dict.fromkeys(causes)) or text)
        if status == 400:
            return UserError(text)
        if status == 401:
            return ClusterRefused(
                f"{self.url} does not take the credentials of this context: log in again, or choose "
                "another with --context",
                status,
            )
        if status == 403:
            return ClusterRefused(
                f"{text}; ask for a Role with that verb (kubectl auth can-i --list shows your own)",
                status,
            )
        if status == 429 or status >= 500:
            return ClusterUnavailable(f"{self.url} answered {status}: {text[:500]}; try again")
        return ClusterRefused(text[:1000], status)


def connect(options: ClusterOptions) -> Cluster:
    """Return the cluster that the flags and the kubeconfig say, without asking it anything.

    Raises:
        NoCluster: there is no kubeconfig, or not that context.
    """
    file = None if options.kubeconfig is None else str(options.kubeconfig)
    configuration = Configuration()
    namespace = "default"
    try:
        contexts, active = config.list_kube_config_contexts(file)  # type: ignore[no-untyped-call]
    except _UNREADABLE as exc:
        if not (options.kubeconfig is None and options.context is None and _in_a_pod()):
            raise NoCluster(
                f"no cluster is known: expected a kubeconfig at {file or 'KUBECONFIG or ~/.kube/config'}"
                f" ({_one_line(exc)}); name one with --kubeconfig"
            ) from exc
        config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        namespace = (_ACCOUNT / "namespace").read_text().strip()
    else:
        names = [each["name"] for each in contexts]
        chosen = active if options.context is None else None
        if options.context is not None:
            chosen = next((each for each in contexts if each["name"] == options.context), None)
        if chosen is None:
            raise NoCluster(
                f"--context: expected one of {', '.join(names)}, got {options.context!r}"
            )
        namespace = chosen["context"].get("namespace") or "default"
        _load(configuration, file, options.context)
    configuration.retries = False
    if not configuration.verify_ssl:  # the kubeconfig's own wish, which kubectl obeys in silence
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return Cluster(ApiClient(configuration), configuration.host, options.namespace or namespace)


def _load(configuration: Configuration, file: str | None, context: str | None) -> None:
    try:
        config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=file,
            context=context,
            client_configuration=configuration,
            persist_config=False,
        )
    except _UNREADABLE as exc:
        raise NoCluster(f"the kubeconfig cannot be used: {_one_line(exc)}") from exc


# What the library raises where a kubeconfig is not one; its parts are looked up without a check.
_UNREADABLE = (
    config.ConfigException,
    yaml.YAMLError,
    AttributeError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
)
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def _in_a_pod() -> bool:
    return (_ACCOUNT / "token").is_file()


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split()) or type(exc).__name__
