"""Children that end with their parent."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from kubevo_runtime.processes import GUARD, start_child, stop_child, tail

GUARDS = sorted({"pipe", GUARD})
PARENT = """
import asyncio, sys
from pathlib import Path
from kubevo_runtime.processes import start_child

async def main():
    child = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
    await start_child(child, log=Path(sys.argv[1]), guard=sys.argv[2])
    await asyncio.sleep(60)

asyncio.run(main())
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # not there, or it ended between opening and reading
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("guard", GUARDS)
async def test_a_child_ends_when_its_parent_is_killed(tmp_path, guard, until):
    log = tmp_path / "log"
    parent = await asyncio.create_subprocess_exec(*python(PARENT), log, guard)
    try:
        await until(lambda: tail(log, 1).isdigit())
        child = int(tail(log, 1))
        assert is_alive(child)
    finally:
        parent.kill()
        await parent.wait()
    await until(lambda: not is_alive(child))


@pytest.mark.parametrize("guard", GUARDS)
async def test_a_child_runs_with_its_environment_and_output(tmp_path, guard):
    log = tmp_path / "log"
    log.write_text("before\n")
    code = "import os, sys; print(os.environ['X']); sys.stderr.write('err\\n'); sys.exit(7)"
    child = await start_child(python(code), env={"X": "value"}, log=log, guard=guard)
    assert await child.wait() == 7
    assert sorted(tail(log, 10).split()) == ["before", "err", "value"]


async def test_a_childs_pid_is_the_programs(tmp_path):
    log = tmp_path / "log"
    child = await start_child(python("import os; print(os.getpid())"), log=log, guard="kernel")
    await child.wait()
    assert tail(log, 1) == str(child.pid)


@pytest.mark.parametrize("guard", GUARDS)
async def test_a_childs_signals_reach_the_program(tmp_path, guard, until):
    log = tmp_path / "log"
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    child = await start_child(python(code), log=log, guard=guard)
    await until(lambda: tail(log, 1) == "ready")
    assert await stop_child(child, 20) == 5


async def test_a_child_that_ignores_the_request_is_killed_after_the_grace(tmp_path, until):
    log = tmp_path / "log"
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    child = await start_child(python(code), log=log)
    await until(lambda: tail(log, 1) == "ready")
    assert await stop_child(child, 0.1) == -signal.SIGKILL


async def test_stopping_a_child_that_has_ended_gives_its_code():
    child = await start_child(python("raise SystemExit(3)"))
    await child.wait()
    assert await stop_child(child, 1) == 3


async def test_a_child_is_in_a_session_of_its_own(tmp_path):
    log = tmp_path / "log"
    child = await start_child(python("import os; print(os.getsid(0))"), log=log)
    await child.wait()
    assert int(tail(log, 1)) != os.getsid(0)


@pytest.mark.parametrize("guard", GUARDS)
async def test_a_program_that_is_not_there_is_told_in_the_log(tmp_path, guard):
    log = tmp_path / "log"
    child = await start_child([tmp_path / "nowhere"], log=log, guard=guard)
    assert await child.wait() == 127
    assert "cannot start" in tail(log, 1)
    assert "nowhere" in tail(log, 1)


def test_a_tail_is_the_last_lines(tmp_path):
    path = tmp_path / "log"
    assert tail(path, 3) == ""
    path.write_bytes(b"".join(b"line %d\n" % number for number in range(20000)) + b"\xff")
    assert tail(path, 2) == "line 19999\n\N{REPLACEMENT CHARACTER}"
    assert len(tail(path, 10**6)) <= 64 * 1024
