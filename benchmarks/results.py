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


def against_random(data: Path, example: str, episodes: int) -> list[str]:
    lines = [
        (
            f"| seed | generations | frames | best over {episodes} fresh episodes (95 % interval) "
            "| random search: individuals | frames | its best | seconds |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    apart, directories = 0, []
    for seed in (1, 2, 3):
        run = search(data / example, example, seed)
        directories.append(run["dataDir"])
        history = kubevo("history", run["dataDir"])
        first = history[0]
        # A tenth more than the first generation suggests, so that one try mostly has the frames.
        individuals = math.ceil(1.1 * run["frames"] / first["frames"] * first["evaluations"])
        while True:
            other = search(
                data / f"{example}-random",
                example,
                seed,
                f"{GENETIC}.populationSize={individuals}",
                "spec.budget.maxGenerations=1",
                "spec.budget.targetFitness=null",
            )
            if other["frames"] >= run["frames"]:
                break
            individuals = math.ceil(individuals * 1.05 * run["frames"] / other["frames"])
        mean, low, high = fresh(run["dataDir"], episodes)
        rival, rival_low, rival_high = fresh(other["dataDir"], episodes)
        apart += low > rival_high
        lines.append(
            f"| {seed} | {run['generation'] + 1} | {run['frames']:,} "
            f"| **{mean:.1f}** ({low:.1f} … {high:.1f}) | {individuals} | {other['frames']:,} "
            f"| {rival:.1f} ({rival_low:.1f} … {rival_high:.1f}) | {run['commandSeconds']:.0f} |"
        )
        print(lines[-1], flush=True)
    draw(directories, f"{example}.png")
    return [*lines, "", f"Intervals apart: **{apart} of 3**.", "", f"![{example}]({example}.png)"]


def frostbite(data: Path, minutes: int) -> list[str]:
    run = search(
        data / "frostbite",
        "frostbite",
        1,
        "spec.budget.maxGenerations=null",
        f"spec.budget.maxWallClockSeconds={60 * minutes}",
        f"{GENETIC}.populationSize=100",
        f"{GENETIC}.eliteEpisodes=8",
        f"{GENETIC}.parents=10",
        f"{GENETIC}.eliteCandidates=4",
    )
    mean, low, high = fresh(run["dataDir"], 100)
    history = kubevo("history", run["dataDir"])
    random_best = history[0]["best"]["mean"]
    draw([run["dataDir"]], "frostbite.png")
    return [
        (
            f"{run['generation'] + 1} generations, {run['frames']:,} frames, "
            f"{run['evaluations']:,} evaluations in {run['wallSeconds']:.0f} s "
            f"({run['frames'] / run['wallSeconds']:,.0f} frames/s on two cores, network dqn, "
            "backend numpy)."
        ),
        "",
        (
            f"Best over 100 fresh episodes: **{mean:.1f}** (95 % interval {low:.1f} … {high:.1f}); "
            f"the best of generation 0 (random) had {random_best:.1f} in its validation."
        ),
        "",
        "![frostbite](frostbite.png)",
    ]


def draw(directories: list[str], name: str) -> None:
    out = ROOT / "docs" / name
    command = [KUBEVO, "plot", *directories, "--out", out, "--force"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


PARTS = {
    "cartpole": cartpole,
    "acrobot": lambda data: against_random(data, "acrobot", 1000),
    "lunarlander": lambda data: against_random(data, "lunarlander", 500),
    "frostbite": lambda data: frostbite(data, 20),
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
