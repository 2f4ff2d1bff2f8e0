"""The dashboard's rows about searches: how far, how fast, where the time goes, how diverse."""

from kubevo_operator.monitoring.panels import Panel, Query
from kubevo_operator.monitoring.queries import (
    ACCEPTED,
    BUSY,
    DECODE,
    EACH,
    NAME,
    OF,
    PLAY,
    READY,
    REPEAT,
    last,
    quantile,
    rate,
    stat,
)

__all__ = ["DIVERSITY", "PROGRESS", "THROUGHPUT", "TIME_BUDGET"]

PROGRESS = (
    Panel(
        "State",
        "The one word for where each Experiment is: running, waiting, blocked, suspended, succeeded "
        "or failed. `kubectl describe evo NAME` says why.",
        "none",
        (
            Query(
                f"{last('kubevo_experiment_state', f'{OF}, state')} == 1",
                f"{NAME}: {{{{state}}}}",
                instant=True,
            ),
        ),
        kind="stat",
        options={
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "none",
            "graphMode": "none",
            "textMode": "name",
        },
    ),
    Panel(
        "Best fitness",
        "Validation mean of the best elite so far, in units of reward: the result of the search.",
        "short",
        (Query(last("kubevo_best_fitness"), REPEAT),),
    ),
    Panel(
        "Elite fitness",
        "Validation mean of each generation's elite, in units of reward. It may fall: every "
        "generation validates on new episodes.",
        "short",
        (Query(last("kubevo_elite_fitness"), REPEAT),),
    ),
    Panel(
        "Fitness of the population",
        "Maximum, mean, median and minimum over the last generation, in units of reward. The maximum "
        "is of few episodes and flatters.",
        "short",
        (Query(last("kubevo_fitness", f"{EACH}, stat"), f"{REPEAT} {{{{stat}}}}"),),
    ),
    Panel(
        "Generation",
        "Last finished generation, counted from 0.",
        "none",
        (Query(last("kubevo_generation"), REPEAT),),
        above=0,
    ),
    Panel(
        "Generations since the best was found",
        "A line that only climbs says that the search stagnates.",
        "none",
        (
            Query(
                f"{last('kubevo_generation')} - {last('kubevo_best_generation')}",
                REPEAT,
            ),
        ),
        above=0,
    ),
    Panel(
        "Time of a generation",
        "From one checkpoint to the next, averaged over the generations that finished meanwhile.",
        "s",
        (
            Query(
                f"{rate('kubevo_generation_seconds_sum')}"
                f" / {rate('kubevo_generation_seconds_count')}",
                NAME,
            ),
        ),
        above=0,
    ),
    Panel(
        "Age of the last checkpoint",
        "What a lost volume snapshot would cost. It grows while an Experiment is suspended or "
        "finished, too.",
        "s",
        (Query(f"time() - {last('kubevo_checkpoint_timestamp_seconds')}", REPEAT),),
        above=0,
    ),
    Panel(
        "Size of the last checkpoint",
        "One generation's file on the operator's volume; `checkpoint.keepLast` of them are kept.",
        "bytes",
        (Query(last("kubevo_checkpoint_bytes"), REPEAT),),
        above=0,
    ),
)
THROUGHPUT = (
    Panel(
        "Frames per second",
        "Frames of accepted results. After a restart of the operator, results that it reads back "
        "count once more.",
        "cps",
        (Query(rate("kubevo_frames_total"), NAME),),
        above=0,
    ),
    Panel(
        "Episodes per second",
        "Accepted results of all evaluators of an Experiment.",
        "cps",
        (Query(ACCEPTED, NAME),),
        above=0,
    ),
    Panel(
        "Frames per second and evaluator",
        "Frames of accepted results by ready evaluator process: what one core gives.",
        "cps",
        (Query(f"{rate('kubevo_frames_total')} / ({READY} > 0)", NAME),),
        above=0,
    ),
)
TIME_BUDGET = (
    Panel(
        "What evaluators do",
        "Processes that decode a genome, play, or wait: for work, for the network, for a generation "
        "to end. Waiting is what is left of the ready ones.",
        "short",
        (
            Query(f"sum({DECODE})", "decode"),
            Query(f"sum({PLAY})", "play"),
            Query(f"clamp_min(sum({READY}) - sum({BUSY}), 0)", "wait"),
        ),
        stacked=True,
        above=0,
    ),
    Panel(
        "Use of the evaluators",
        "Share of the ready evaluators' time spent on decoding and playing. Low with work in the "
        "queue: look at the network and the broker; low without: too many evaluators.",
        "percentunit",
        (Query(f"{BUSY} / ({READY} > 0)", NAME),),
        above=0,
    ),
    Panel(
        "Decoding's share",
        "Share of the busy time that goes into making weights from seeds. A few per cent are usual; "
        "more says that evaluators start cold too often or episodes are very short.",
        "percentunit",
        (Query(f"{DECODE} / ({BUSY} > 0)", NAME),),
        above=0,
        below=1,
    ),
    Panel(
        "Time of an episode",
        "Half of the episodes, and 99 % of them, play in at most this time, to the bounds of the "
        "histogram.",
        "s",
        (
            Query(quantile("0.5", "play"), f"{NAME} p50"),
            Query(quantile("0.99", "play"), f"{NAME} p99"),
        ),
        width=12,
        above=0,
    ),
    Panel(
        "Time to decode",
        "Half of the genomes, and 99 % of them, become weights in at most this time.",
        "s",
        (
            Query(quantile("0.5", "decode"), f"{NAME} p50"),
            Query(quantile("0.99", "decode"), f"{NAME} p99"),
        ),
        width=12,
        above=0,
    ),
)
DIVERSITY = (
    Panel(
        "Lineages",
        "Different first ancestors among the last population and among the next one's parents. One "
        "says that a single line has won.",
        "none",
        (Query(last("kubevo_lineages", f"{EACH}, group"), f"{REPEAT} {{{{group}}}}"),),
        above=0,
    ),
    Panel(
        "Mutations of the elite",
        "Length of the elite's genome. A flat line: an old genome is carried on, unbeaten.",
        "none",
        (Query(last("kubevo_elite_mutations"), REPEAT),),
        above=0,
    ),
    Panel(
        "Spread of the population",
        "Maximum minus median fitness of the last generation, in units of reward. Near 0: mutations "
        "change nothing, or everything is equally bad.",
        "short",
        (
            Query(
                f"{stat('max')} - {stat('median')}",
                REPEAT,
            ),
        ),
        above=0,
    ),
)
