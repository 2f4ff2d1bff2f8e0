"""Signs of life: what fails the liveness probe, and what the port answers."""

import asyncio
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry

from kubevo_core.errors import UserError
from kubevo_operator.health import WATCH_SECONDS, Health, serve
from kubevo_operator.metrics import OperatorMetrics


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_fresh_process_is_alive(clock):
    assert Health(clock, 30).problems() == []


def test_a_lease_that_nobody_looks_at_fails(clock):
    health = Health(clock, 30)
    clock.now += 31
    assert "the Lease" in health.problems()[0]
    health.lease_looked(False)
    assert health.problems() == []


def test_a_change_that_the_watch_never_shows_fails(clock):
    health = Health(clock, 1000)
    health.seen("uid-1", "7")
    health.compare({"uid-1": "8"})
    clock.now += 60
    health.compare({"uid-1": "9"})  # a later one does not excuse the first
    clock.now += WATCH_SECONDS - 60
    assert health.problems() == []
    clock.now += 1
    assert "silent" in health.problems()[0]
    health.seen("uid-1", "9")
    assert health.problems() == []


def test_an_experiment_that_the_watch_never_showed_fails(clock):
    health = Health(clock, 1000)
    health.compare({"new": "1"})
    clock.now += WATCH_SECONDS + 1
    assert "silent" in health.problems()[0]


def test_a_watch_that_was_ahead_of_the_list_is_not_missed(clock):
    health = Health(clock, 1000)
    health.seen("uid-1", "8")
    health.compare({"uid-1": "7"})  # listed just before
    health.compare({"uid-1": "8"})
    clock.now += WATCH_SECONDS + 1
    assert health.problems() == []


def test_what_is_deleted_is_not_waited_for(clock):
    health = Health(clock, 1000)
    health.compare({"uid-1": "1"})
    health.compare({})
    clock.now += WATCH_SECONDS + 1
    assert health.problems() == []


def test_a_standby_is_ready_and_a_new_leader_not_before_its_watches(clock):
    health = Health(clock, 30)
    health.lease_looked(False)
    assert not health.is_ready
    health.lease_looked(True)
    assert health.is_ready
    health.begins_to_lead()
    assert not health.is_ready


async def fetch(port: int, path: str) -> tuple[int, str]:
    def get() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode()

    return await asyncio.to_thread(get)


async def test_the_port_answers_probes_and_prometheus(clock):
    health, registry = Health(clock, 30), CollectorRegistry()
    OperatorMetrics(registry, health).status_patches.inc()
    async with serve(health, registry, "127.0.0.1", 0) as port:
        assert await fetch(port, "/healthz") == (200, "ok")
        assert await fetch(port, "/readyz") == (503, "starting")
        health.is_ready = True
        assert await fetch(port, "/readyz") == (200, "ok")
        status, text = await fetch(port, "/metrics")
        assert status == 200
        assert "kubevo_operator_status_patches_total 1.0" in text
        assert "kubevo_operator_loop_lag_seconds" in text
        clock.now += 31
        status, text = await fetch(port, "/healthz")
        assert status == 503
        assert "the Lease" in text


async def test_a_taken_port_is_an_error_with_a_cure(clock):
    health, registry = Health(clock, 30), CollectorRegistry()
    async with serve(health, registry, "127.0.0.1", 0) as port:
        with pytest.raises(UserError, match="KUBEVO_HTTP_PORT"):
            async with serve(health, registry, "127.0.0.1", port):
                pass
