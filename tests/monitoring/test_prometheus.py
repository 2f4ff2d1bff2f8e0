"""The dashboard and the alerts on a real Prometheus that scrapes what the programs really expose."""

import asyncio
import json
import math
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import AsyncExitStack, contextmanager

import pytest
import pytest_asyncio
import yaml
from prometheus_client import CollectorRegistry, start_http_server

from kubevo_api.metrics import Metrics as ApiMetrics
from kubevo_core.evaluation import Episode
from kubevo_core.generation import Limits, Outcome, ask, finish, is_complete, start, tell
from kubevo_core.messages import ResultReport
from kubevo_operator.health import Health
from kubevo_operator.metrics import OperatorMetrics
from kubevo_operator.monitoring.dashboard import dashboard
from kubevo_runtime.events import Fault, GenerationFinished, Progress, ResultTaken
from kubevo_runtime.exposition import Metrics
from kubevo_runtime.processes import start_child, stop_child, tail

# One server for all: they only ask, and Prometheus looks for its targets but every five seconds.
pytestmark = pytest.mark.asyncio(loop_scope="module")
WAIT_SECONDS = 60.0
EXPERIMENTS = (("lab", "x"), ("other", "y"))
TARGETS = [
    (panel["title"], target)
    for panel in dashboard()["panels"]
    for target in panel.get("targets", ())
]


class Programs:
    """The operator's and the API's metrics, fed as the programs feed them."""

    def __init__(self, settings, play):
        self.registry = CollectorRegistry()
        health = Health(time.monotonic, 30)
        health.begins_to_lead()
        health.is_ready = True
        self.metrics = Metrics(self.registry)
        self.operator = OperatorMetrics(self.registry, health)
        self.operator.experiments.set(len(EXPERIMENTS))
        self.api = ApiMetrics()
        self._play, self._limits = play, Limits(max_generations=9)
        self._states = {key: start(settings) for key in EXPERIMENTS}

    def play_a_generation(self):
        """Let every Experiment play one generation; some of its episodes fail."""
        for key in EXPERIMENTS:
            self._search(key, self.metrics.of(*key))
            self.metrics.situate(*key, "running", desired=3, ready=2)
        with self.operator.reconcile.time():
            self.operator.status_patches.inc()
        self.operator.faults.labels("children").inc()
        self.api.request("GET", "/api/v1/experiments", 200, 0.01)
        self.api.request("GET", "/api/v1/experiments", 500, 0.01)

    def _search(self, key, sink):
        state = self._states[key]
        generation = state.generation
        while not is_complete(state):
            for demand in ask(state, self._limits):
                tell(state, self._play(demand))
        for episode in list(state.results.values()):
            seconds = {"decode": 0.01, "play": 0.2}
            sink(ResultTaken(Outcome.ACCEPTED, ResultReport(episode, "w", "c", seconds)))
        lost = Episode(episode.key, None, 1, 4, "synthetic failure")
        sink(ResultTaken(Outcome.STALE, ResultReport(lost, "w", "c", {})))
        sink(Progress(0, generation, 1, 2, open=1))
        sink(Fault("task_reissued", "a worker died"))
        self._states[key] = finish(state, self._limits, 1.5 * (generation + 1))
        sink(GenerationFinished(self._states[key].finished, 1.5, 2048))

    @property
    def frames(self):
        labels = {"namespace": "lab", "experiment": "x"}
        return self.registry.get_sample_value("kubevo_frames_total", labels)


class Prometheus:
    """A running server's HTTP API."""

    def __init__(self, url):
        self._url = url

    async def ask(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)

        def get():
            try:
                answer = urllib.request.urlopen(f"{self._url}/api/v1/{path}?{query}", timeout=10)
            except urllib.error.HTTPError as refusal:
                answer = refusal
            with answer:
                return json.load(answer)

        found = await asyncio.to_thread(get)
        assert found["status"] == "success", found
        return found["data"]

    async def query(self, expr):
        """Return (labels, value) of each series."""
        found = await self.ask("query", query=expr)
        return [(each["metric"], float(each["value"][1])) for each in found["result"]]

    async def until(self, expr, is_so):
        """Ask until the answer is as wanted."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                found = await self.query(expr)
                if is_so(found):
                    return found
                await asyncio.sleep(0.1)


@contextmanager
def served(registry):
    server, thread = start_http_server(0, "127.0.0.1", registry=registry)
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def configuration(root, operator, api):
    """Return a configuration as the guide describes it, but faster."""
    # What service discovery adds: the namespace where the operator lives.
    labels = {"namespace": "kubevo-system", "pod": "kubevo-0"}
    return {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(root / "charts/kubevo/files/alerts.yaml")],
        "scrape_configs": [
            {
                "job_name": "kubevo",
                "honor_labels": True,
                "static_configs": [{"targets": [operator, api], "labels": labels}],
            }
        ],
    }


async def address(log, process):
    """Return where Prometheus listens: it takes a free port and says which."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            said = tail(log, 100)
            found = re.search(r'msg="Listening on" address=(127\.0\.0\.1:\d+)', said)
            if found and "Server is ready to receive web requests" in said:
                return f"http://{found[1]}"
            assert process.returncode is None, said
            await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scraped(program, root, tmp_path_factory, make_settings, synthetic_play):
    """Yield a Prometheus that has scraped two Experiments' first and second generation."""
    programs = Programs(make_settings(), synthetic_play())
    programs.play_a_generation()
    folder = tmp_path_factory.mktemp("prometheus")
    binary, log, file = program("prometheus"), folder / "log", folder / "prometheus.yaml"
    async with AsyncExitStack() as stack:
        operator = stack.enter_context(served(programs.registry))
        api = stack.enter_context(served(programs.api.registry))
        file.write_text(yaml.safe_dump(configuration(root, operator, api)))
        process = await start_child(
            [
                binary,
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            log=log,
        )
        stack.push_async_callback(stop_child, process, 10.0)
        server = Prometheus(await address(log, process))
        both = "count(kubevo_operator_leading) + count(kubevo_api_streams)"
        await server.until(both, lambda found: found == [({}, 2.0)])
        programs.play_a_generation()
        frames = 'kubevo_frames_total{namespace="lab", experiment="x"}'
        await server.until(frames, lambda found: [v for _, v in found] == [programs.frames])
        counted = "sum(increase(kubevo_api_requests_total[1m])) > 0"
        await server.until(counted, lambda found: found)
        yield server


def filled(expr, namespace=".*", experiment=".*"):
    """Return a query as Grafana sends it."""
    for name, value in (
        ("$__rate_interval", "1m"),
        ("$namespace", namespace),
        ("$experiment", experiment),
    ):
        expr = expr.replace(name, value)
    assert "$" not in expr
    return expr


async def test_every_query_of_the_dashboard_answers_with_numbers(scraped):
    await scraped.until("ALERTS", lambda found: found)
    for title, target in TARGETS:
        found = await scraped.query(filled(target["expr"]))
        assert any(math.isfinite(value) for _, value in found), f"{title}: {target['expr']}"
        named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        for labels, _ in found:
            assert named - {"instance"} <= set(labels), f"{title}: {labels}"


async def test_the_variables_choose_experiments_by_their_own_namespace(scraped):
    for variable in dashboard()["templating"]["list"][1:]:
        series, label = re.fullmatch(
            r"label_values\((.*), (\w+)\)", variable["definition"]
        ).groups()
        found = await scraped.ask(f"label/{label}/values", **{"match[]": filled(series)})
        assert found == sorted({key[label == "experiment"] for key in EXPERIMENTS})
    for title, target in TARGETS:
        if "$experiment" in target["expr"]:
            found = await scraped.query(filled(target["expr"], "lab", "x"))
            assert found, title
            assert {labels.get("experiment", "x") for labels, _ in found} == {"x"}, title


async def test_every_alert_is_judged_without_an_error_and_one_is_told_in_words(scraped):
    found = await scraped.until(
        'ALERTS{alertname="KubevoDeadLetters", alertstate="firing"}',
        lambda found: len(found) == len(EXPERIMENTS),
    )
    assert {(labels["namespace"], labels["experiment"]) for labels, _ in found} == set(EXPERIMENTS)
    for group in (await scraped.ask("rules"))["groups"]:
        for rule in group["rules"]:
            assert (rule["health"], rule.get("lastError")) == ("ok", None), rule["name"]
    for alert in (await scraped.ask("alerts"))["alerts"]:
        texts = alert["annotations"]
        assert not re.search(
            r"{{|no value|error (calling|executing|expanding)", " ".join(texts.values())
        ), texts
        if alert["labels"]["alertname"] == "KubevoDeadLetters":
            who = f"{alert['labels']['namespace']}/{alert['labels']['experiment']}"
            assert who in texts["summary"]
