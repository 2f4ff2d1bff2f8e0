"""Speed as ratios within one run, each beside its must-level and its aim.

Absolute times on shared machines mean little. Each figure is the median over interleaved rounds: of
CPU seconds within one process, and of wall seconds through a broker. Run it by `make bench
[OUT=file.json]`; a whole run writes its table into docs/performance.md, between two marks.

The file holds ``{"figures": {name: {"value", "must", "aim", "better": "higher" | "lower"}}}``.
"""

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import logging
import math
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import in_process
import through_broker
import whole_runs
from kubevo_core import noise
from kubevo_evaluator import native
from kubevo_runtime.logs import configure

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
# A table of its own for each of the kernel's best instruction sets; a new one comes last.
BEGIN, END = "<!-- make bench, {} -->\n", "<!-- end of make bench -->\n"


@dataclass(frozen=True)
class Figure:
    """One ratio: what is measured, and how good it must and should be."""

    about: str
    must: float
    aim: float
    better: str
    measure: Callable[[], float]


def raw(game: str, backend: str, precision: str, must: float, aim: float) -> Figure:
    name = game.removeprefix("ALE/").removesuffix("-v5")
    return Figure(
        f"{backend}, {precision}, {name}: whole loop / raw emulator (speed)",
        must,
        aim,
        "higher",
        lambda: in_process.loop_over_raw(game, backend, precision),
    )


FROSTBITE, PONG = in_process.FROSTBITE, in_process.PONG
FIGURES: dict[str, Figure] = {
    "native_loop_over_raw": raw(FROSTBITE, "native", "float32", 0.42, 0.50),
    "native_loop_over_raw_pong": raw(PONG, "native", "float32", 0.34, 0.41),
    "bfloat16_loop_over_raw": raw(FROSTBITE, "native", "bfloat16", 0.46, 0.55),
    "torch_loop_over_raw": raw(FROSTBITE, "torch", "float32", 0.22, 0.30),
    "numpy_loop_over_raw": raw(FROSTBITE, "numpy", "float32", 0.15, 0.25),
    "native_loop_over_usual": Figure(
        "native, float32: whole loop / (Gymnasium's wrappers + eager torch) (speed)",
        2.0,
        2.5,
        "higher",
        lambda: in_process.loop_over_usual("float32"),
    ),
    "bfloat16_loop_over_usual": Figure(
        "native, bfloat16: whole loop / (Gymnasium's wrappers + eager torch) (speed)",
        2.2,
        3.0,
        "higher",
        lambda: in_process.loop_over_usual("bfloat16"),
    ),
    "preprocessing_over_raw": Figure(
        "emulator + preprocessing / raw emulator, Frostbite (speed)",
        0.82,
        0.90,
        "higher",
        lambda: in_process.preprocessing(FROSTBITE),
    ),
    "preprocessing_over_raw_pong": Figure(
        "emulator + preprocessing / raw emulator, Pong (speed)",
        0.82,
        0.90,
        "higher",
        lambda: in_process.preprocessing(PONG),
    ),
    "start_over_load_rom": Figure(
        "episode start / loadROM start (time)", 0.02, 0.001, "lower", in_process.episode_start
    ),
    "native_link_over_torch_randn": Figure(
        "one decode link, native / (torch.randn + axpy) (time)",
        0.25,
        0.18,
        "lower",
        lambda: in_process.link(native.add_noise),
    ),
    "link_over_torch_randn": Figure(
        "one decode link, numpy / (torch.randn + axpy) (time)",
        0.7,
        0.5,
        "lower",
        lambda: in_process.link(noise.add_noise),
    ),
    "depth_1000_over_depth_1": Figure(
        "child at depth 1000 / at depth 1, parent cached (time)",
        1.5,
        1.05,
        "lower",
        in_process.depth,
    ),
    "task_bytes_depth_1000_over_depth_1": Figure(
        "task at depth 1000 / at depth 1 (bytes)", 1.1, 1.03, "lower", in_process.task_bytes
    ),
    "same_actions_as_torch": Figure(
        "native takes torch's action, float32 (share of visited observations)",
        0.9999,
        1.0,
        "higher",
        in_process.same_actions,
    ),
    "overhead_share": Figure(
        "time outside emulator, preprocessing and policy (share)",
        0.02,
        0.01,
        "lower",
        through_broker.overhead,
    ),
    "two_workers_over_one": Figure(
        "2 workers / 1 worker, evaluations a wall second",
        1.85,
        1.92,
        "higher",
        through_broker.scaling,
    ),
    "native_run_over_torch_run": Figure(
        "`kubevo run`, native / torch, evaluations a wall second",
        1.8,
        2.2,
        "higher",
        whole_runs.native_over_torch,
    ),
}


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "?")


def main() -> int:
    configure("console", logging.WARNING)
    parser = argparse.ArgumentParser(description="Speed ratios beside their goals")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    parser.add_argument("names", nargs="*", help="only these figures")
    options = parser.parse_args()
    lines = [
        (
            f"{cpu_model()}, {len(os.sched_getaffinity(0))} cores, instruction sets of the kernel: "
            f"{', '.join(native.levels()) or 'none'}; Python {platform.python_version()}."
        ),
        "",
        "| figure | value | must | aim |",
        "|---|---|---|---|",
    ]
    print(*lines, sep="\n")
    found, missed = {}, 0
    for name, figure in FIGURES.items():
        if options.names and name not in options.names:
            continue
        value = figure.measure()
        good = value >= figure.must if figure.better == "higher" else value <= figure.must
        missed += not good or not math.isfinite(value)
        sign = "≥" if figure.better == "higher" else "≤"
        shown = f"{value:.4g}" if good else f"**{value:.4g}, missed**"
        lines.append(
            f"| {figure.about} | {shown} | {sign} {figure.must:g} | {sign} {figure.aim:g} |"
        )
        print(lines[-1], flush=True)
        found[name] = {
            "value": value,
            "must": figure.must,
            "aim": figure.aim,
            "better": figure.better,
        }
    if options.out:
        options.out.write_text(json.dumps({"figures": found}, indent=2) + "\n")
    if not options.names:
        begin = BEGIN.format(next(iter(native.levels()), "no kernel"))
        before, _, rest = PAGE.read_text().partition(begin)
        table = "\n".join(lines) + "\n"
        PAGE.write_text(f"{before}{begin}{table}{END}{rest.partition(END)[2]}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
