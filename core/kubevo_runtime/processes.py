"""Child processes that end with their parent, also when the parent is killed with SIGKILL.

Linux: the child is started through this very file (``python -I -S processes.py``), which asks the
kernel for SIGKILL at its parent's death and then becomes the wanted program, with the same pid. A
``preexec_fn`` would save that interpreter's 15 ms, but it runs Python between fork and exec, which
may deadlock in a process that has threads (numpy and gRPC start some), and it forbids vfork.
Elsewhere the file stays as a small parent of the program and ends it when its stdin, a pipe from
the real parent, is closed by the parent's death.

The kernel watches the *thread* that forked: start children from a thread that lives as long as
they should, which the event loop of ``asyncio.run`` in the main thread is.

Only the standard library is imported at the top, because the file also runs without site-packages.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["start_child", "stop_child", "tail"]

GUARD = "kernel" if sys.platform == "linux" else "pipe"
PR_SET_PDEATHSIG = 1
TAIL_BYTES = 64 * 1024
NOT_FOUND = 127


async def start_child(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    guard: str = GUARD,
) -> asyncio.subprocess.Process:
    """Start a program that is killed when this process ends, and return it.

    Its output is appended to ``log``, or goes where this process's goes. It is not in this
    process's session, so a Ctrl-C in the terminal reaches the parent alone. A program that cannot
    be started ends with code 127 and says why in its log.

    Raises:
        OSError: the log cannot be opened, or no process can be made.
    """
    command = [sys.executable, "-I", "-S", __file__, guard, str(os.getpid()), *map(str, argv)]
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("ab")) if log is not None else None
        return await asyncio.create_subprocess_exec(
            *command,
            env=env,
            # In pipe mode the transport keeps our end open for exactly as long as we live.
            stdin=subprocess.PIPE if guard == "pipe" else subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


async def stop_child(process: asyncio.subprocess.Process, grace_seconds: float) -> int:
    """Ask a child to end, kill it after ``grace_seconds``, and return its exit code."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(grace_seconds):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    return await process.wait()


def tail(path: Path, lines: int) -> str:
    """Return the last ``lines`` lines of a text file, at most 64 KiB; empty when there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _tie_to_parent(parent: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # The parent may have died before the kernel knew whom to tell.
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def _run_beside_pipe(argv: list[str]) -> int:
    """Run ``argv`` until it ends, or until stdin does, and return its exit code."""
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL)

    def end_at_eof() -> None:
        while sys.stdin.buffer.read(1):
            pass
        child.kill()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    threading.Thread(target=end_at_eof, daemon=True).start()
    code = child.wait()
    return code if code >= 0 else 128 - code


def _main(guard: str, parent: int, argv: list[str]) -> int:
    try:
        if guard == "pipe":
            return _run_beside_pipe(argv)
        _tie_to_parent(parent)
        os.execvp(argv[0], argv)  # noqa: S606 - a list, never a shell
    except OSError as exc:
        sys.stderr.write(f"cannot start {argv[0]}: {exc}\n")
        return NOT_FOUND


if __name__ == "__main__":
    # Not sys.exit: the thread that reads stdin may hold its lock, which a finalising interpreter
    # would abort on.
    exit_code = _main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
    sys.stderr.flush()
    os._exit(exit_code)
