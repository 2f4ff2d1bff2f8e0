"""The searches behind docs/results.md: run for real, compared with random search, drawn.

Every search is a `kubevo run` of an example at 2 workers. The comparison is a random search with at
least the same frames: one generation of as many random individuals, whose best are re-tested as in
every generation; so it has the same protection from luck. Both bests are then played on fresh
episodes that neither has seen. Run it by `make results`; DATA keeps the runs.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
KUBEVO = Path(sys.executable).parent / "kubevo"
GENETIC = "spec.algorithm.geneticAlgorithm"
FRESH_SEED = "987654"
SEEDS = 1, 2, 3


def kubevo(*arguments: str | Path) -> Any:
    """Run the command and return the JSON it prints."""
    command = [KUBEVO, *map(str, arguments), "--output", "json"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr.decode()[-2000:]}")
    return json.loads(done.stdout)


def search(data: Path, example: str, seed: int, *assignments: str) -> dict[str, Any]:
    """Run an example under a seed; the wall time is the whole command's, start-up included."""
    started = time.perf_counter()
    sets = [word for item in (f"spec.seed={seed}", *assignments) for word in ("--set", item)]
    file = ROOT / "examples" / f"{example}.yaml"
    found = kubevo("run", file, "--workers", "2", "--data", data, *sets)
    found["commandSeconds"] = time.perf_counter() - started
    return dict(found)


def fresh(directory: str, episodes: int) -> tuple[float, float, float]:
    """Return mean and 95 % interval of the best over fresh episodes."""
    found = kubevo("evaluate", directory, "--episodes", str(episodes), "--seed", FRESH_SEED)
    returns = found["episodeReturns"]
    mean = math.fsum(returns) / len(returns)
    deviation = math.sqrt(math.fsum((r - mean) ** 2 for r in returns) / (len(returns) - 1))
    half = 1.96 * deviation / math.sqrt(len(returns))
    return mean, mean - half, mean + half


def cartpole(data: Path) -> list[str]:
    lines = [
        "| seed | generations | elite over 30 episodes | best over 100 fresh episodes | seconds |",
        "|---|---|---|---|---|",
    ]
    solved = 0
    for seed in range(20):
        run = search(data / "cartpole", "cartpole", seed)
        mean, _, _ = fresh(run["dataDir"], 100)
        elite, seconds = run["elite"]["fitness"], run["commandSeconds"]
        solved += elite >= 475 and mean >= 475 and seconds < 10
        lines.append(
            f"| {seed} | {run['generation'] + 1} | {elite:.1f} | {mean:.1f} | {seconds:.1f} |"
        )
        print(lines[-1], flush=True)
    return [*lines, "", f"Solved in under 10 s: **{solved} of 20**."]


def random_search(data: Path, example: str, seed: int, run: dict[str, Any]) -> dict[str, Any]:
    """Run one generation of so many random individuals that it has at least the frames of a run."""
    first = kubevo("history", run["dataDir"])[0]
    # More than the first generation suggests, which re-tests its best, so that one try has the frames.
    individuals = math.ceil(1.3 * run["frames"] / first["frames"] * first["evaluations"])
    while True:
        found = search(
            data,
            example,
            seed,
            f"{GENETIC}.populationSize={individuals}",
            "spec.budget.maxGenerations=1",
            "spec.budget.maxFrames=null",
            "spec.budget.targetFitness=null",
        )
        if found["frames"] >= run["frames"]:
            return found | {"individuals": individuals}
        individuals = math.ceil(individuals * 1.05 * run["frames"] / found["frames"])


def against_random(data: Path, example: str, episodes: int) -> list[str]:
    lines = [
        (
            f"| seed | generations | frames | best over {episodes} fresh episodes (95 % interval) "
            "| random search: individuals | frames | its best | seconds |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    runs = []
    for seed in SEEDS:
        runs.append(search(data / example, example, seed))
        print(f"{example}, seed {seed}: {runs[-1]['commandSeconds']:.0f} s", flush=True)
    apart = 0
    for seed, run in zip(SEEDS, runs, strict=True):
        other = random_search(data / f"{example}-random", example, seed, run)
        mean, low, high = fresh(run["dataDir"], episodes)
        rival, rival_low, rival_high = fresh(other["dataDir"], episodes)
        apart += low > rival_high
        lines.append(
            f"| {seed} | {run['generation'] + 1} | {run['frames']:,} "
            f"| **{mean:.1f}** ({low:.1f} … {high:.1f}) | {other['individuals']} "
            f"| {other['frames']:,} | {rival:.1f} ({rival_low:.1f} … {rival_high:.1f}) "
            f"| {run['commandSeconds']:.0f} |"
        )
        print(lines[-1], flush=True)
    draw([run["dataDir"] for run in runs], f"{example}.png")
    return [*lines, "", f"Intervals apart: **{apart} of 3**.", "", f"![{example}]({example}.png)"]


def draw(directories: list[str], name: str) -> None:
    out = ROOT / "docs" / name
    command = [KUBEVO, "plot", *directories, "--out", out, "--force"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


PARTS = {
    "cartpole": cartpole,
    "acrobot": lambda data: against_random(data, "acrobot", 1000),
    "lunarlander": lambda data: against_random(data, "lunarlander", 500),
    "frostbite-long": lambda data: against_random(data, "frostbite-long", 100),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the searches behind docs/results.md")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--data", type=Path, default=ROOT / "kubevo-data" / "results")
    options = parser.parse_args()
    for name in options.parts or PARTS:
        lines = PARTS[name](options.data)
        (options.data / f"{name}.md").write_text("\n".join(lines) + "\n")
        print(f"\n## {name}\n", *lines, sep="\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
