"""The status of an Experiment and what kubectl shows of it: the part that the operator writes.

Loose in meaning and bounded in size. Fitness numbers are texts, because a float has no one text.
"""

from typing import Any

__all__ = ["COLUMNS", "SELECTABLE", "SUBRESOURCES", "status_schema"]

Schema = dict[str, Any]

SUBRESOURCES: Schema = {
    "status": {},
    "scale": {
        "specReplicasPath": ".spec.scaling.replicas",
        "statusReplicasPath": ".status.evaluators.pods",
        "labelSelectorPath": ".status.evaluators.selector",
    },
}
SELECTABLE = [
    {"jsonPath": ".spec.environment.id"},
    {"jsonPath": ".spec.policy.network"},
]
COLUMNS: list[Schema] = [
    {"name": name, "type": kind, "jsonPath": path, "description": description}
    | ({"priority": 1} if is_wide else {})
    for name, kind, path, description, is_wide in (
        ("Environment", "string", ".spec.environment.id", "The game.", False),
        ("Network", "string", ".spec.policy.network", "The network that plays.", True),
        (
            "Generation",
            "integer",
            ".status.progress.generation",
            "Newest finished generation.",
            False,
        ),
        ("Best", "string", ".status.best.fitness", "Best validated mean so far.", False),
        ("Elite", "string", ".status.elite.fitness", "This generation's validated mean.", False),
        ("Frames", "integer", ".status.progress.frames", "Frames played so far.", True),
        ("Evaluators", "integer", ".status.evaluators.ready", "Ready processes.", False),
        (
            "Status",
            "string",
            '.status.conditions[?(@.type=="Succeeded")].reason',
            "Where the search is.",
            False,
        ),
        ("Suspended", "boolean", ".spec.suspend", "Whether it is paused.", True),
        ("Age", "date", ".metadata.creationTimestamp", "Since it was made.", False),
    )
]


def status_schema() -> Schema:
    """Return the schema of ``status``."""
    return _block(
        "What the operator says about the search.",
        observedGeneration=_count("The metadata.generation that this status is about."),
        takeover=_count("Number of the operator's takeover; a lower one may not write files."),
        conditions=_conditions(),
        startTime=_time("When the search began."),
        completionTime=_time("When it succeeded or failed."),
        progress=_block(
            "How far the search is.",
            generation=_count("Newest finished generation; of all repeats the least."),
            generations=_count("Generations wanted, where the budget says so."),
            frames=_count("Frames charged so far."),
            framesPerSecond=_text("Frames a second lately.", 32),
            evaluations=_count("Episodes counted so far."),
            failedEvaluations=_count("Episodes that failed."),
            generationEpisodes=_count("Episodes of the generations that run, of all repeats."),
            generationEpisodesPlayed=_count("Those of them that have a result."),
            openEpisodes=_count("Episodes that wait or are played now: the queue."),
            etaSeconds=_count("Seconds until a limit is met, if it goes on like this."),
            runningSeconds=_text("Accumulated running time.", 32),
        ),
        best=_block(
            "The search's result so far.",
            fitness=_text("Validated mean.", 32),
            generation=_count("Generation that found it."),
            repeat=_count("Repeat that found it."),
            digest=_text("sha256 of its genome.", 64),
        ),
        elite=_block(
            "The newest generation's elite.",
            fitness=_text("Validated mean.", 32),
            generation=_count("That generation."),
        ),
        population=_block(
            "Fitness in the newest generation.",
            max=_text("Highest.", 32),
            mean=_text("Mean.", 32),
            median=_text("Median.", 32),
            min=_text("Lowest.", 32),
            failed=_count("Individuals whose evaluation failed."),
        ),
        evaluators=_block(
            "The processes that play.",
            desired=_count("Processes wanted."),
            ready=_count("Processes that are ready."),
            pods=_count("Pods that are there."),
            selector=_text("Label selector of the pods.", 1024),
        ),
        checkpoint=_block(
            "The newest checkpoint.",
            generation=_count("Its generation."),
            time=_time("When it was written."),
            bytes=_count("Its size."),
            path=_text("Its path on the operator's volume.", 1024),
        ),
        populationDigest=_text("sha256 of the last population's genomes.", 64),
        resultDigest=_text("sha256 of every generation: equal for equal searches.", 64),
        finalTest=_block(
            "The best's held-out test, after the end.",
            mean=_text("Mean of its episodes.", 32),
            episodes=_count("Episodes played."),
        ),
        reason=_text("Why the search stopped.", 256),
    )


def _conditions() -> Schema:
    item = _block(
        "One statement about the search.",
        type=_text("What the statement is about.", 316),
        status=_text("True, False or Unknown.", 7) | {"enum": ["True", "False", "Unknown"]},
        observedGeneration=_count("The metadata.generation that it is about."),
        lastTransitionTime=_time("When status last changed."),
        reason=_text("One word for why.", 1024),
        message=_text("A sentence for a person, with the next action.", 32768),
    )
    item["required"] = ["type", "status", "lastTransitionTime", "reason", "message"]
    return {
        "description": "Statements about the search; Succeeded sums them up.",
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": item,
    }


def _block(description: str, **properties: Schema) -> Schema:
    return {"description": description, "type": "object", "properties": properties}


def _count(description: str) -> Schema:
    return {"description": description, "type": "integer", "format": "int64"}


def _text(description: str, longest: int) -> Schema:
    return {"description": description, "type": "string", "maxLength": longest}


def _time(description: str) -> Schema:
    return {"description": description, "type": "string", "format": "date-time"}
