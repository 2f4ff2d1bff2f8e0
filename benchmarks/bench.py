"""Speed as ratios within one run, each beside its must-level and its aim.

Absolute times on shared machines mean little. Each figure is the median over interleaved rounds: of
CPU seconds within one process, and of wall seconds through a broker. Run it by `make bench
[OUT=file.json]`; what it prints is the table of docs/performance.md.

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
from kubevo_runtime.logs import configure


@dataclass(frozen=True)
class Figure:
    """One ratio: what is measured, and how good it must and should be."""

    about: str
    must: float
    aim: float
    better: str
    measure: Callable[[], float]


FIGURES: dict[str, Figure] = {
    "torch_loop_over_raw": Figure(
        "torch backend, whole loop / raw emulator (speed)",
        0.22,
        0.30,
        "higher",
        in_process.torch_loop,
    ),
    "numpy_loop_over_raw": Figure(
        "numpy backend, whole loop / raw emulator (speed)",
        0.15,
        0.25,
        "higher",
        in_process.numpy_loop,
    ),
    "preprocessing_over_raw": Figure(
        "emulator + preprocessing / raw emulator (speed)",
        0.75,
        0.86,
        "higher",
        in_process.preprocessing,
    ),
    "start_over_load_rom": Figure(
        "episode start / loadROM start (time)", 0.02, 0.001, "lower", in_process.episode_start
    ),
    "link_over_torch_randn": Figure(
        "one decode link, numpy / (torch.randn + axpy) (time)", 0.7, 0.5, "lower", in_process.link
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
    "overhead_share": Figure(
        "time outside emulator, preprocessing and policy (share)",
        0.03,
        0.01,
        "lower",
        through_broker.overhead,
    ),
    "two_workers_over_one": Figure(
        "2 workers / 1 worker, evaluations a wall second",
        1.8,
        1.92,
        "higher",
        through_broker.scaling,
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
    cores = len(os.sched_getaffinity(0))
    print(f"{cpu_model()}, {cores} cores, Python {platform.python_version()}:\n")
    print("| figure | value | must | aim |\n|---|---|---|---|")
    found, missed = {}, 0
    for name, figure in FIGURES.items():
        if options.names and name not in options.names:
            continue
        value = figure.measure()
        good = value >= figure.must if figure.better == "higher" else value <= figure.must
        missed += not good or not math.isfinite(value)
        sign = "≥" if figure.better == "higher" else "≤"
        shown = f"{value:.3g}" if good else f"**{value:.3g}, missed**"
        print(
            f"| {figure.about} | {shown} | {sign} {figure.must:g} | {sign} {figure.aim:g} |",
            flush=True,
        )
        found[name] = {
            "value": value,
            "must": figure.must,
            "aim": figure.aim,
            "better": figure.better,
        }
    if options.out:
        options.out.write_text(json.dumps({"figures": found}, indent=2) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
