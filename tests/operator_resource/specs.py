"""The table of specs: what an Experiment may say, and what the judges answer.

Each case is a change to a minimal good Experiment. `kubevo validate` and the API server must both
give its verdict; a bad case names words of the message, for the API server at least the field.
"""

import copy
from typing import Any, NamedTuple

__all__ = ["CASES", "FIXED", "LIVE", "REMOVE", "Case", "changed", "minimal"]

REMOVE = object()
GA = "spec.algorithm.geneticAlgorithm"
ATARI = {
    "spec.environment.id": "ALE/Pong-v5",
    "spec.policy": {"network": "dqn"},
}


class Case(NamedTuple):
    """One row: ``says`` is in `kubevo validate`'s message, ``server`` in the API server's."""

    name: str
    changes: dict[str, Any]
    says: str = ""
    server: str = ""

    @property
    def is_good(self) -> bool:
        return not self.says

    def document(self) -> dict[str, Any]:
        return changed(minimal(), self.changes)


def minimal() -> dict[str, Any]:
    """Return the smallest good Experiment."""
    return {
        "apiVersion": "kubevo.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": "table"},
        "spec": {
            "environment": {"id": "CartPole-v1"},
            "policy": {"network": "mlp"},
            "algorithm": {"geneticAlgorithm": {}},
            "budget": {"maxGenerations": 3},
        },
    }


def changed(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a copy with each dotted path set to its value, or removed."""
    document = copy.deepcopy(document)
    for path, value in changes.items():
        *above, last = path.split(".")
        at = document
        for name in above:
            at = at.setdefault(name, {})
        if value is REMOVE:
            at.pop(last, None)
        else:
            at[last] = copy.deepcopy(value)
    return document


def good(name: str, changes: dict[str, Any]) -> Case:
    return Case(name, changes)


def bad(name: str, path: str, value: Any, says: str, **more: Any) -> Case:
    """Return a case whose mistake is at ``path``; the API server must name the field."""
    field = path.rpartition(".")[2]
    return Case(name, {**more.get("also", {}), path: value}, says, more.get("server", field))


def rule(name: str, changes: dict[str, Any], says: str) -> Case:
    """Return a case about which both judges must say the same words."""
    return Case(name, changes, says, says)


# Each whole number's least and most; one less and one more are refused.
BOUNDS = {
    "spec.seed": (0, 2**32 - 1),
    "spec.repeats": (1, 32),
    "spec.ttlSecondsAfterFinished": (0, 315_360_000),
    "spec.environment.maxEpisodeSteps": (1, 10_000_000),
    f"{GA}.populationSize": (2, 100_000),
    f"{GA}.parents": (1, 100_000),
    f"{GA}.eliteCandidates": (2, 100_000),
    f"{GA}.eliteEpisodes": (1, 10_000),
    f"{GA}.episodesPerEvaluation": (1, 1_000),
    f"{GA}.testEpisodes": (0, 10_000),
    f"{GA}.testEveryGenerations": (0, 1_000_000),
    "spec.budget.maxGenerations": (1, 10_000_000),
    "spec.budget.maxFrames": (1, 10**15),
    "spec.budget.maxWallClockSeconds": (1, 10**9),
    "spec.evaluator.processesPerPod": (1, 512),
    "spec.evaluator.taskTimeoutSeconds": (1, 604_800),
    "spec.scaling.replicas": (0, 10_000),
    "spec.scaling.min": (0, 10_000),
    "spec.scaling.max": (1, 10_000),
    "spec.scaling.tasksPerReplica": (1, 100_000),
    "spec.scaling.idleSeconds": (0, 86_400),
    "spec.scaling.scaleDownStabilizationSeconds": (60, 3_600),
    "spec.checkpoint.keepLast": (1, 1_000),
    "spec.checkpoint.keepEvery": (0, 1_000_000),
    "spec.checkpoint.quotaMebibytes": (1, 10_000_000),
    "spec.recording.everyGenerations": (0, 1_000_000),
    "spec.environment.atari.frameSkip": (1, 16),
    "spec.environment.atari.maxNoops": (0, 255),
    "spec.warmStart.repeat": (0, 31),
    "spec.warmStart.generation": (0, 10_000_000),
}
# What must be there for a bound to be the only thing that is judged.
CONTEXT = {
    "spec.environment.atari": ATARI,
    "spec.warmStart": {"spec.warmStart.experiment": "before"},
}
# These may be at their most only together with others: the rules say which.
BOUND_BY_RULES = {
    f"{GA}.parents",
    f"{GA}.eliteCandidates",
    f"{GA}.eliteEpisodes",
    f"{GA}.episodesPerEvaluation",
    f"{GA}.populationSize",
    "spec.scaling.min",
}


def bounds() -> list[Case]:
    rows = []
    for path, (least, most) in BOUNDS.items():
        context = CONTEXT.get(path.rpartition(".")[0], {})
        name = path.removeprefix("spec.").replace(".geneticAlgorithm", "")
        rows += [
            bad(f"{name} too low", path, least - 1, f"expected at least {least}", also=context),
            bad(f"{name} too high", path, most + 1, f"expected at most {most}", also=context),
        ]
        if path not in BOUND_BY_RULES:
            rows.append(good(f"{name} at its bounds", {**context, path: most}))
    return rows


GOOD = [
    good("minimal", {}),
    good("a name of one letter", {"metadata.name": "a"}),
    good("dots in the name", {"metadata.name": "a.b-c.9"}),
    good("a name of 52 characters", {"metadata.name": "x" * 52}),
    good("labels and annotations", {"metadata.labels": {"team": "x"}, "metadata.annotations": {}}),
    good("a plug-in's environment", {"spec.environment.id": "my_plugin:My.Env-v0"}),
    good("a folder in the id", {"spec.environment.id": "phys2d/CartPole-v1"}),
    good("an id of 128 characters", {"spec.environment.id": "x" * 128}),
    good(
        "every kind of kwargs",
        {
            "spec.environment.kwargs": {
                "gravity": "-9.8",
                "_x9": "1e-3",
                "a": "true",
                "b": "false",
                "c": "null",
                "d": '"hard \\u00e9\\n\\""',
                "e": '""',
                "f": '"é"',
                "g": "0",
            }
        },
    ),
    good("kwargs of 256 characters", {"spec.environment.kwargs": {"k": '"' + "x" * 254 + '"'}}),
    good(
        "kwargs of 256 characters, not bytes",
        {"spec.environment.kwargs": {"k": '"' + "é" * 254 + '"'}},
    ),
    good("null in kwargs", {"spec.environment.kwargs": {"g": None, "h": "1"}}),
    good(
        "null in maps",
        {
            "spec.evaluator.resources": {
                "limits": None,
                "requests": {"cpu": None, "memory": "1Gi"},
            },
            "spec.evaluator.podTemplate.metadata": {"labels": {"a": None}, "annotations": None},
            "spec.evaluator.podTemplate.spec": {"a": None},
            "metadata.labels": None,
        },
    ),
    good("32 kwargs", {"spec.environment.kwargs": {f"k{n}": "1" for n in range(32)}}),
    good("an Atari game", ATARI),
    good("an Atari game without kwargs", {**ATARI, "spec.environment.kwargs": {}}),
    good("an empty atari block", {**ATARI, "spec.environment.atari": {}}),
    good(
        "atari in full",
        {
            **ATARI,
            "spec.environment.atari": {
                "frameSkip": 1,
                "stickyActionProbability": "0.25",
                "maxNoops": 0,
                "fireReset": False,
                "terminalOnLifeLoss": True,
                "fullActionSpace": True,
            },
        },
    ),
    good("always sticky", {**ATARI, "spec.environment.atari.stickyActionProbability": "1.0"}),
    good("no hidden layers", {"spec.policy.hiddenLayers": []}),
    good("eight hidden layers", {"spec.policy.hiddenLayers": [4096, 1, 1, 1, 1, 1, 1, 1]}),
    good("dqn with an empty list", {"spec.policy": {"network": "dqn", "hiddenLayers": []}}),
    good("torch", {"spec.policy.backend": "torch"}),
    good("native", {"spec.policy.backend": "native", "spec.policy.precision": "bfloat16"}),
    good("the type written out", {"spec.algorithm.type": "GeneticAlgorithm"}),
    good("the least sigma", {f"{GA}.mutationPower": "0.000001"}),
    good("the greatest sigma", {f"{GA}.mutationPower": "10"}),
    good("everybody is a parent", {f"{GA}.parents": 1000, f"{GA}.eliteCandidates": 1000}),
    good("a large population", {f"{GA}.populationSize": 100_000}),
    good(
        "just few enough episodes",
        {f"{GA}.populationSize": 99_900, f"{GA}.episodesPerEvaluation": 3},
    ),
    good("a negative target", {"spec.budget": {"targetFitness": "-100.5"}}),
    good("frames alone", {"spec.budget": {"maxFrames": 6_000_000_000}}),
    good("time alone", {"spec.budget": {"maxWallClockSeconds": 60}}),
    good("a whole number with a point", {"spec.seed": 7.0, "spec.policy.hiddenLayers": [16.0]}),
    good("null for what has a default", {"spec.seed": None, "spec.evaluator": None}),
    good("null for what may be absent", {"spec.warmStart": None, "spec.environment.atari": None}),
    good("suspended from the start", {"spec.suspend": True}),
    good("fixed scaling", {"spec.scaling": {"mode": "Fixed", "replicas": 3}}),
    good("KEDA", {"spec.scaling": {"mode": "KEDA", "min": 1, "max": 1}}),
    good("HPA", {"spec.scaling.mode": "HPA"}),
    good("scaled by somebody else", {"spec.scaling.mode": "External"}),
    good("an image", {"spec.evaluator.image": "registry.example/kubevo-evaluator:1"}),
    good(
        "resources",
        {
            "spec.evaluator.resources": {
                "requests": {"cpu": "500m", "memory": "1.5Gi", "ephemeral-storage": "1e9"},
                "limits": {"cpu": 2, "example.com/gpu": "1", "hugepages-2Mi": "4Mi"},
            }
        },
    ),
    good(
        "a pod template",
        {
            "spec.evaluator.podTemplate": {
                "metadata": {
                    "labels": {"kueue.x-k8s.io/queue-name": "team-a", "empty": ""},
                    "annotations": {"example.com/note": "Anything, even: this\nand that"},
                },
                "spec": {
                    "nodeSelector": {"pool": "spot"},
                    "tolerations": [{"key": "spot", "operator": "Exists"}],
                    "terminationGracePeriodSeconds": 90,
                },
            }
        },
    ),
    good("another checkpoint policy", {"spec.checkpoint": {"keepLast": 1, "keepEvery": 10}}),
    good("a failure counts as a score", {"spec.failurePolicy.onPoison": "Score"}),
    good("a warm start by name", {"spec.warmStart": {"experiment": "before.1", "generation": 0}}),
    good(
        "a warm start by uid",
        {"spec.warmStart": {"uid": "0f8fad5b-d9cb-469f-a165-70867728950e", "repeat": 2}},
    ),
    good("never resumed", {"spec.resumePolicy": "Never"}),
    good("deleted at once", {"spec.ttlSecondsAfterFinished": 0, "spec.retention": "Delete"}),
]

OBJECT = [
    bad(
        "a version that is not there",
        "apiVersion",
        "kubevo.dev/v2",
        "'kubevo.dev/v1alpha1'",
        server="v2",
    ),
    bad("another kind", "kind", "Experimnt", "kind: expected 'Experiment'", server="Experimnt"),
    bad("no spec", "spec", REMOVE, "spec is required and missing"),
    bad("spec is null", "spec", None, "spec is required and missing"),
    bad("spec is a text", "spec", "x", "spec: expected a mapping"),
    bad("an unknown top-level field", "sepc", {}, "did you mean 'spec'?"),
    bad("an unknown metadata field", "metadata.lables", {}, "did you mean 'labels'?"),
    bad("capitals in the name", "metadata.name", "Upper", "metadata.name: expected a text like"),
    bad("a name that ends in a dash", "metadata.name", "a-", "metadata.name: expected a text like"),
    bad("two dots in the name", "metadata.name", "a..b", "metadata.name: expected a text like"),
    bad("a name of 53 characters", "metadata.name", "x" * 53, "at most 52 characters"),
    bad("a number for an object's label", "metadata.labels", {"run": 1}, 'put it in quotes: "1"'),
    bad("true for an annotation", "metadata.annotations", {"a": True}, 'put it in quotes: "true"'),
    bad("a label of the object that is none", "metadata.labels", {"a b": "c"}, 'got "a b"'),
    bad("a bad value of the object's label", "metadata.labels", {"a": "b c"}, 'got "b c"'),
    bad("a number for the namespace", "metadata.namespace", 3, "expected a text, got 3"),
]

UNKNOWN = [
    bad("unknown in spec", "spec.sed", 1, "spec.sed: unknown field; did you mean 'seed'?"),
    bad("unknown in environment", "spec.environment.name", "x", "unknown field"),
    bad(
        "unknown in atari",
        "spec.environment.atari.frameskip",
        2,
        "did you mean 'frameSkip'?",
        also=ATARI,
    ),
    bad("unknown in policy", "spec.policy.hidden_layers", [3], "did you mean 'hiddenLayers'?"),
    bad("unknown in algorithm", "spec.algorithm.ga", {}, "unknown field"),
    bad("unknown in geneticAlgorithm", f"{GA}.populationsize", 4, "did you mean 'populationSize'?"),
    bad("unknown in budget", "spec.budget.maxGeneration", 4, "did you mean 'maxGenerations'?"),
    bad("unknown in evaluator", "spec.evaluator.imag", "x", "did you mean 'image'?"),
    bad(
        "unknown in resources",
        "spec.evaluator.resources.limit",
        {},
        "expected 'requests' or 'limits'",
    ),
    bad("unknown in podTemplate", "spec.evaluator.podTemplate.nodeSelector", {}, "unknown field"),
    bad(
        "unknown in the pods' metadata",
        "spec.evaluator.podTemplate.metadata.name",
        "x",
        "unknown field",
    ),
    bad("unknown in scaling", "spec.scaling.minReplicas", 1, "unknown field"),
    bad("unknown in checkpoint", "spec.checkpoint.keeplast", 1, "did you mean 'keepLast'?"),
    bad(
        "unknown in recording",
        "spec.recording.everygenerations",
        1,
        "did you mean 'everyGenerations'?",
    ),
    bad(
        "unknown in failurePolicy",
        "spec.failurePolicy.onpoison",
        "Fail",
        "did you mean 'onPoison'?",
    ),
    bad(
        "unknown in warmStart",
        "spec.warmStart",
        {"experiment": "a", "name": "b"},
        "unknown field",
        server="name",
    ),
]

TYPES = [
    bad("a number as a text", "spec.seed", "1", 'spec.seed: expected an integer, got "1"'),
    bad("a fraction for a whole number", "spec.seed", 1.5, "expected an integer, got 1.5"),
    bad("true for a number", "spec.seed", True, "expected an integer, got true"),
    bad("a text for true", "spec.suspend", "true", "spec.suspend: expected true or false"),
    bad("1 for true", "spec.suspend", 1, "spec.suspend: expected true or false"),
    bad("a text for a block", "spec.environment", "CartPole-v1", "expected a mapping"),
    bad("a list for a block", "spec.policy", ["mlp"], "spec.policy: expected a mapping"),
    bad("a number for a list", "spec.policy.hiddenLayers", 16, "hiddenLayers: expected a list"),
    bad("texts in a list of numbers", "spec.policy.hiddenLayers", ["16"], "expected an integer"),
    bad("null in a list", "spec.policy.hiddenLayers", [None], "expected an integer"),
    bad("a float for sigma", f"{GA}.mutationPower", 0.002, "got 0.002; put it in quotes"),
    bad("a number for the target", "spec.budget.targetFitness", 475, 'put it in quotes: "475"'),
    bad(
        "a float for a probability",
        "spec.environment.atari.stickyActionProbability",
        0.25,
        "put it in quotes",
        also=ATARI,
    ),
    bad("a float in kwargs", "spec.environment.kwargs", {"g": -9.8}, 'put it in quotes: "-9.8"'),
    bad("true in kwargs", "spec.environment.kwargs", {"g": True}, "expected a text"),
    bad("a mapping in kwargs", "spec.environment.kwargs", {"g": {}}, "expected a text"),
    bad(
        "a float for cpu",
        "spec.evaluator.resources.limits",
        {"cpu": 0.5},
        'put it in quotes: "0.5"',
        server="cpu",
    ),
    bad("a text for a pod's spec", "spec.evaluator.podTemplate.spec", "x", "expected a mapping"),
    bad(
        "a number for a label",
        "spec.evaluator.podTemplate.metadata.labels",
        {"a": 1},
        "expected a text",
    ),
]

CHOICES = [
    bad("another network", "spec.policy.network", "mpl", "expected 'mlp', 'dqn' or 'large-dqn'"),
    bad(
        "another precision", "spec.policy.precision", "float16", "expected 'float32' or 'bfloat16'"
    ),
    bad(
        "another backend",
        "spec.policy.backend",
        "jax",
        "expected 'auto', 'native', 'numpy' or 'torch'",
    ),
    bad("another algorithm", "spec.algorithm.type", "CMA", "expected 'GeneticAlgorithm'"),
    bad(
        "another scaling mode", "spec.scaling.mode", "keda", "expected 'Operator', 'Fixed', 'KEDA'"
    ),
    bad("another answer to poison", "spec.failurePolicy.onPoison", "Ignore", "expected 'Fail' or"),
    bad("another resume policy", "spec.resumePolicy", "Always", "expected 'FromCheckpoint' or"),
    bad("another retention", "spec.retention", "Keep", "expected 'Retain' or 'Delete'"),
]

MISSING = [
    bad("no environment", "spec.environment", REMOVE, "spec.environment is required and missing"),
    bad("no id", "spec.environment.id", REMOVE, "spec.environment.id is required and missing"),
    bad("id is null", "spec.environment.id", None, "spec.environment.id is required and missing"),
    bad("no policy", "spec.policy", REMOVE, "spec.policy is required and missing"),
    bad("no network", "spec.policy.network", REMOVE, "network is required and missing"),
    bad("no algorithm", "spec.algorithm", REMOVE, "spec.algorithm is required and missing"),
    bad("no algorithm block", GA, REMOVE, "geneticAlgorithm is required and missing"),
    bad("no budget", "spec.budget", REMOVE, "spec.budget is required and missing"),
]

FORMS = [
    bad("an empty id", "spec.environment.id", "", "expected at least 1 characters"),
    bad("an id of 129 characters", "spec.environment.id", "x" * 129, "at most 128 characters"),
    rule("a blank in the id", {"spec.environment.id": "a b"}, 'module:Id-v0, got "a b"'),
    rule("a letter beyond ASCII in the id", {"spec.environment.id": "Pongé-v5"}, 'got "Pongé-v5"'),
    rule("a digit beyond ASCII in the id", {"spec.environment.id": "Pong-v٣"}, 'got "Pong-v٣"'),
    bad(
        "a line break after the id", "spec.environment.id", "CartPole-v1\n", "expected a text like"
    ),
    rule("no JSON in kwargs", {"spec.environment.kwargs": {"g": "hard"}}, '\'"hard"\', got "hard"'),
    rule("a JSON object in kwargs", {"spec.environment.kwargs": {"g": "{}"}}, "a JSON scalar as"),
    rule("a JSON list in kwargs", {"spec.environment.kwargs": {"g": "[1]"}}, "a JSON scalar as"),
    rule("NaN in kwargs", {"spec.environment.kwargs": {"g": "NaN"}}, "scalar as text, such as"),
    rule("an infinite number in kwargs", {"spec.environment.kwargs": {"g": "1e999"}}, "1e999"),
    rule("a leading zero in kwargs", {"spec.environment.kwargs": {"g": "01"}}, 'got "01"'),
    rule("digits beyond ASCII in kwargs", {"spec.environment.kwargs": {"g": "٣"}}, 'got "٣"'),
    rule(
        "half a character in kwargs",
        {"spec.environment.kwargs": {"g": '"\\ud800"'}},
        "a JSON scalar",
    ),
    rule("an open text in kwargs", {"spec.environment.kwargs": {"g": '"a'}}, "a JSON scalar as"),
    bad("a line break in kwargs", "spec.environment.kwargs", {"g": '"a\nb"'}, "a JSON scalar as"),
    bad(
        "a text too long in kwargs",
        "spec.environment.kwargs",
        {"k": '"' + "x" * 255 + '"'},
        "at most 256",
    ),
    rule(
        "a dash in an argument",
        {"spec.environment.kwargs": {"a-b": "1"}},
        'digits and _), got "a-b"',
    ),
    bad(
        "an argument too long", "spec.environment.kwargs", {"x" * 65: "1"}, "at most 64 characters"
    ),
    bad(
        "33 kwargs",
        "spec.environment.kwargs",
        {f"k{n}": "1" for n in range(33)},
        "at most 32 items",
    ),
    rule(
        "a probability above 1",
        {**ATARI, "spec.environment.atari.stickyActionProbability": "1.5"},
        'to "1" in quotes, got "1.5"',
    ),
    rule(
        "a negative probability",
        {**ATARI, "spec.environment.atari.stickyActionProbability": "-0.1"},
        'got "-0.1"',
    ),
    bad(
        "a layer of no units",
        "spec.policy.hiddenLayers",
        [0],
        "hiddenLayers.0: expected at least 1",
    ),
    bad("a layer too wide", "spec.policy.hiddenLayers", [4097], "expected at most 4096"),
    bad("nine layers", "spec.policy.hiddenLayers", [1] * 9, "expected at most 8 items, got 9"),
    rule("sigma is no number", {f"{GA}.mutationPower": "abc"}, 'trailing zeros, got "abc"'),
    rule("sigma is zero", {f"{GA}.mutationPower": "0"}, "expected a decimal from 0.000001 to 10"),
    rule("sigma is zero with a point", {f"{GA}.mutationPower": "0.0"}, "from 0.000001 to 10"),
    rule("sigma is too large", {f"{GA}.mutationPower": "10.5"}, 'got "10.5"'),
    rule("sigma is too fine", {f"{GA}.mutationPower": "0.0000001"}, 'got "0.0000001"'),
    rule("sigma with an exponent", {f"{GA}.mutationPower": "2e-3"}, 'got "2e-3"'),
    rule("sigma with a trailing zero", {f"{GA}.mutationPower": "0.0020"}, 'got "0.0020"'),
    bad("sigma is too long", f"{GA}.mutationPower", "0.00000010", "expected at most 9 characters"),
    rule(
        "a target with an exponent",
        {"spec.budget.targetFitness": "1e3"},
        'such as "475", got "1e3"',
    ),
    rule("an infinite target", {"spec.budget.targetFitness": "inf"}, "expected a decimal number"),
    rule("a target with a plus", {"spec.budget.targetFitness": "+5"}, 'got "+5"'),
    bad("an empty image", "spec.evaluator.image", "", "expected at least 1 characters"),
    bad("an image too long", "spec.evaluator.image", "x" * 513, "expected at most 512 characters"),
    bad(
        "a quantity with a wrong unit",
        "spec.evaluator.resources.requests",
        {"memory": "1GB"},
        "expected a quantity such as",
        server="memory",
    ),
    bad(
        "a negative quantity",
        "spec.evaluator.resources.requests",
        {"cpu": "-1"},
        "expected a quantity such as",
        server="cpu",
    ),
    bad(
        "a negative number of cpus",
        "spec.evaluator.resources.requests",
        {"cpu": -1},
        "expected",
        server="cpu",
    ),
    bad(
        "too many cpus",
        "spec.evaluator.resources.requests",
        {"cpu": 10**15},
        "expected a quantity such as",
        server="cpu",
    ),
    rule(
        "a resource with a blank", {"spec.evaluator.resources.limits": {"c pu": "1"}}, 'got "c pu"'
    ),
    bad(
        "17 resources",
        "spec.evaluator.resources.limits",
        {f"r{n}": 1 for n in range(17)},
        "at most 16 items",
    ),
    rule(
        "a label that is no label",
        {"spec.evaluator.podTemplate.metadata.labels": {"a": "b c"}},
        'got "b c"',
    ),
    rule(
        "a label's name that is none",
        {"spec.evaluator.podTemplate.metadata.labels": {"-a": "b"}},
        'example.com/team, got "-a"',
    ),
    bad(
        "a label too long",
        "spec.evaluator.podTemplate.metadata.labels",
        {"a": "b" * 64},
        "at most 63 characters",
    ),
    bad(
        "a label's name too long",
        "spec.evaluator.podTemplate.metadata.labels",
        {"x" * 318: "b"},
        "at most 317 characters",
    ),
    rule("a source that is no name", {"spec.warmStart": {"experiment": "Upper"}}, 'got "Upper"'),
    bad(
        "a source with a long name", "spec.warmStart.experiment", "x" * 53, "at most 52 characters"
    ),
    rule("a source that is no uid", {"spec.warmStart": {"uid": "not a uid"}}, 'got "not a uid"'),
]

RULES = [
    rule(
        "more parents than individuals",
        {f"{GA}.parents": 1001},
        "parents must be at most populationSize, got parents 1001 and populationSize 1000; lower parents",
    ),
    rule(
        "more candidates than individuals",
        {f"{GA}.populationSize": 20, f"{GA}.eliteCandidates": 21},
        "eliteCandidates must be at most populationSize, got eliteCandidates 21 and populationSize 20",
    ),
    rule(
        "too many episodes",
        {f"{GA}.episodesPerEvaluation": 300},
        "must be at most 300000 episodes a generation, got 300300; lower one",
    ),
    rule(
        "atari for CartPole",
        {"spec.environment.atari": {}},
        'but id is "CartPole-v1"; remove the block',
    ),
    rule(
        "kwargs for an Atari game",
        {**ATARI, "spec.environment.kwargs": {"a": "1"}},
        'but id is "ALE/Pong-v5"; use the block atari',
    ),
    rule(
        "hidden layers for dqn",
        {"spec.policy": {"network": "dqn", "hiddenLayers": [4]}},
        'but network is "dqn"; remove it',
    ),
    rule(
        "mlp for an Atari game",
        {"spec.environment.id": "ALE/Pong-v5"},
        "but ALE/Pong-v5 shows pixels; use dqn or large-dqn",
    ),
    rule("no end", {"spec.budget": {}}, "a search needs an end: set at least one of targetFitness"),
    rule("an end that is null", {"spec.budget": {"maxFrames": None}}, "a search needs an end"),
    rule(
        "more pods at least than at most",
        {"spec.scaling": {"min": 5, "max": 4}},
        "min must be at most max, got min 5 and max 4; lower min or raise max",
    ),
    rule(
        "more pods at least than the default's most",
        {"spec.scaling.min": 11},
        "got min 11 and max 10",
    ),
    rule("a warm start from nowhere", {"spec.warmStart": {}}, "set experiment or uid"),
    rule(
        "a warm start from two places",
        {"spec.warmStart": {"experiment": "a", "uid": "b"}},
        "set experiment or uid",
    ),
]

CASES = [*GOOD, *bounds(), *OBJECT, *UNKNOWN, *TYPES, *CHOICES, *MISSING, *FORMS, *RULES]

# An Experiment whose every fixed field is set, and for each one another value.
FIXED: list[tuple[str, Any, Any]] = [
    ("spec.seed", 1, 2),
    ("spec.repeats", 1, 2),
    ("spec.environment", {"id": "CartPole-v1"}, {"id": "Acrobot-v1"}),
    ("spec.environment.id", "CartPole-v1", "Acrobot-v1"),
    ("spec.environment.kwargs", {"a": "1"}, {"a": "2"}),
    ("spec.environment.maxEpisodeSteps", 100, 101),
    ("spec.policy.network", "mlp", "dqn"),
    ("spec.policy.hiddenLayers", [16, 8], [8, 16]),
    ("spec.policy.backend", "numpy", "torch"),
    (f"{GA}.populationSize", 100, 101),
    (f"{GA}.mutationPower", "0.002", "0.02"),
    (f"{GA}.testEpisodes", 30, 31),
    ("spec.warmStart", {"experiment": "a"}, {"experiment": "b"}),
    ("spec.warmStart.generation", 3, 4),
]
LIVE: list[tuple[str, Any]] = [
    ("spec.suspend", True),
    ("spec.budget", {"targetFitness": "475"}),
    ("spec.budget.maxGenerations", 4),
    ("spec.evaluator", {"image": "other:1", "resources": {"limits": {"cpu": "2"}}}),
    ("spec.evaluator.podTemplate.spec", {"priorityClassName": "low"}),
    ("spec.evaluator.taskTimeoutSeconds", 60),
    ("spec.scaling", {"mode": "Fixed", "replicas": 2, "min": 1, "max": 3}),
    ("spec.checkpoint.keepLast", 5),
    ("spec.recording.everyGenerations", 10),
    ("spec.resumePolicy", "Never"),
    ("spec.ttlSecondsAfterFinished", 5),
    ("spec.retention", "Delete"),
    ("spec.failurePolicy.onPoison", "Score"),
]
