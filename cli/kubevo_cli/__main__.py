"""The ``kubevo`` program: the only place that turns errors into messages and exit codes.

::

    0    done                         1    any other KubevoError, or an OSError on a named path;
    2    the person's input (a             quietly, when the reader of stdout went away
         UserError, or wrong usage)   130  interrupted
    70   a bug, with a traceback
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence

USER_ERROR = 2
FAILED = 1
BUG = 70
INTERRUPTED = 130
# Modules that a command may find missing, and the extra that brings them.
EXTRAS = {
    "ale_py": "evaluator",
    "gymnasium": "evaluator",
    "imageio_ffmpeg": "cli",
    "matplotlib": "cli",
    "threadpoolctl": "evaluator",
    "torch": "torch",
    "kubernetes": "cluster",
    "fastapi": "api",
    "onnx": "api",
    "plotly": "api",
    "uvicorn": "api",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (default: this process's own) and return the exit code."""
    # One BLAS thread is part of the promise of equal bytes; it is read when numpy is imported.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from kubevo_cli.app import app

    own = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = _exit_code(lambda: app(args=own, prog_name=_program_name()))
        sys.stdout.flush()
    except BrokenPipeError:
        return _without_reader()
    return code


def _program_name() -> str:
    return "kubectl evo" if os.path.basename(sys.argv[0]) == "kubectl-evo" else "kubevo"  # noqa: PTH119


def _exit_code(command: Callable[[], object]) -> int:
    try:
        command()
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else FAILED if exc.code else 0
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as exc:  # noqa: BLE001 - the program's edge
        return _failed(exc)
    return 0


def _failed(exc: Exception) -> int:
    """Tell what went wrong and return the exit code; only a bug shows a traceback."""
    from kubevo_core.errors import IllegalTransition, KubevoError, UserError

    if isinstance(exc, KubevoError) and not isinstance(exc, IllegalTransition):
        _say(f"error: {exc}")
        return USER_ERROR if isinstance(exc, UserError) else FAILED
    if isinstance(exc, OSError):
        # A path or a device that the person named; the run's own files are reported as StoreError.
        where = f"{exc.filename}: " if exc.filename else ""
        _say(f"error: {where}{exc.strerror or exc}; check that it exists and may be used")
        return FAILED
    if isinstance(exc, ModuleNotFoundError):
        extra = EXTRAS.get((exc.name or "").partition(".")[0])
        if extra is not None:
            _say(
                f"error: {exc.name} is not installed; install it with: "
                f"pip install 'kubevo[{extra}]'"
            )
            return FAILED
    return _bug()


def _bug() -> int:
    _say(
        f"{traceback.format_exc()}\nerror: this is a bug in kubevo, not a mistake of yours; "
        "please report it with the lines above"
    )
    return BUG


def _without_reader() -> int:
    # What is still buffered must go somewhere, else the interpreter complains when it ends.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED  # as the command line library has it, where it meets the broken pipe first


def _say(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
