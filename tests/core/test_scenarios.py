"""Scenario files: a script for the engine, ``----``, and the trace it must print.

``pytest tests/core/test_scenarios.py --rewrite`` writes the traces anew; read the difference.

Commands: ``start key=value…`` (settings and limits), ``ask``, ``play [first|last|all] [law]``,
``tell <what> <return|fail|nan>`` where what is ``p<slot>.<episode>``, ``v<slot>.<episode>`` or
``c<slot>.<episode>`` (a child of the next generation), ``finish``, ``restart``, ``tests``,
``raise key=value…`` (limits, then reopen). A slot may be N, the carried elite's.
"""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from kubevo_core import checkpoint
from kubevo_core.errors import IllegalTransition
from kubevo_core.evaluation import Episode
from kubevo_core.generation import (
    Limits,
    ask,
    close_tests,
    completed_tests,
    finish,
    is_complete,
    reopen,
    resume,
    start,
    tell,
)
from kubevo_core.seeding import Purpose

FOLDER = Path(__file__).parent.parent / "scenarios"
SCENARIOS = sorted(FOLDER.glob("*.txt"))
LIMITS = {"target_fitness": float, "max_generations": int, "max_frames": int}


class Interpreter:
    def __init__(self, make_settings, play):
        self.make_settings, self.play = make_settings, play
        self.trace = []

    def run(self, script):
        for line in script.splitlines():
            if line.strip() and not line.startswith("#"):
                self.trace.append(f"> {line.strip()}")
                command, *words = line.split()
                getattr(self, f"do_{command}")(*words)
        return "\n".join(self.trace) + "\n"

    def say(self, text):
        self.trace.append(f"  {text}")

    def limits_of(self, fields):
        return {n: LIMITS[n](fields.pop(n)) for n in list(fields) if n in LIMITS}

    def do_start(self, *words):
        fields = dict(word.split("=") for word in words)
        self.limits = Limits(**self.limits_of(fields))
        self.state = start(self.make_settings(**{name: int(v) for name, v in fields.items()}))

    def label(self, key):
        n = self.state.settings.population_size
        letter = {Purpose.POPULATION: "p", Purpose.VALIDATION: "v"}.get(key.purpose, "t")
        if letter == "p" and key.generation > self.state.generation:
            letter = "c"
        return f"{letter}{'N' if key.slot == n else key.slot}.{key.episode}"

    def do_ask(self):
        demands = ask(self.state, self.limits)
        shown = " ".join(self.label(demand.key) for demand in demands)
        self.say(f"generation {self.state.generation}: {shown or 'nothing'}")

    def find(self, what):
        known = [d.key for d in ask(self.state, self.limits)] + list(self.state.results)
        return next(key for key in known if self.label(key) == what)

    def do_tell(self, what, value):
        key = self.last if what == "again" else self.find(what)
        self.last = key
        number = None if value == "fail" else math.nan if value == "nan" else float(value)
        self.say(str(tell(self.state, Episode(key, number, 1, 4))))

    def do_play(self, which="all"):
        outcomes = Counter()
        while demands := ask(self.state, self.limits):
            now = [
                d for d in demands if d.key.generation == self.state.generation or which == "all"
            ]
            if not now:
                break
            for demand in now if which != "last" else reversed(now):
                outcomes[tell(self.state, self.play(demand))] += 1
            if which == "all" and is_complete(self.state):
                break
        self.say(", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())))

    def do_finish(self):
        try:
            self.state = finish(self.state, self.limits, 0.0)
        except IllegalTransition as exc:
            self.say(f"IllegalTransition: {exc}")
            return
        done = self.state.finished
        fitness = " ".join("failed" if f is None else f"{f:g}" for f in done.fitnesses)
        self.say(f"fitness {fitness}")
        candidates = " ".join(
            f"{'N' if slot == len(done.population) else slot}={'failed' if m is None else f'{m:g}'}"
            for (slot, _), m in zip(done.candidates, done.means, strict=True)
        )
        self.say(f"candidates {candidates or 'none'}")
        self.say(f"elite {done.elite.slot if done.elite else 'none'}, frames {done.frames}")
        self.say(f"parents {' '.join(str(slot) for slot, _ in done.parents) or 'none'}")
        self.say(f"{self.state.phase}{f' ({self.state.stop})' if self.state.stop else ''}")

    def do_restart(self):
        state = self.state
        if state.finished is None:
            self.state = start(state.settings)
        else:
            found = checkpoint.decode(checkpoint.encode(state))
            self.state = resume(state.settings, found.finished, found.tests, found.stop)
        self.say(
            f"{self.state.phase}, generation {self.state.generation}, "
            f"{len(self.state.results)} results"
        )

    def do_tests(self):
        for report in completed_tests(self.state):
            self.say(
                f"{report.purpose.name} of generation {report.generation}: {report.row()['mean']}"
            )
            self.state = close_tests(self.state, [(report.generation, report.purpose)])
        self.say(str(self.state.phase))

    def do_raise(self, *words):
        fields = dict(word.split("=") for word in words)
        self.limits = replace(self.limits, **self.limits_of(fields))
        try:
            self.state = reopen(self.state, self.limits)
        except IllegalTransition as exc:
            self.say(f"IllegalTransition: {exc}")
        self.say(f"{self.state.phase}, generation {self.state.generation}")


@pytest.mark.parametrize("path", SCENARIOS, ids=[path.stem for path in SCENARIOS])
def test_scenario(path, make_settings, synthetic_play, request):
    script, _, _ = path.read_text().partition("----\n")
    trace = Interpreter(make_settings, synthetic_play()).run(script)
    if request.config.getoption("--rewrite"):
        path.write_text(f"{script}----\n{trace}")
    assert trace == path.read_text().partition("----\n")[2], (
        "run with --rewrite and read the difference"
    )


def test_the_scenarios_exist():
    assert {path.stem for path in SCENARIOS} >= {
        "all_evaluations_failed",
        "illegal_transition",
        "nan_is_a_failure",
        "pause_and_resume",
        "restart_mid_generation",
        "straggler_then_duplicate",
        "ties_go_to_the_lower_slot",
    }
