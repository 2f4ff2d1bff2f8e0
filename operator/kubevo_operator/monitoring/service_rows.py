"""The dashboard's rows about what carries searches: queue, evaluators, operator, API, alerts."""

from kubevo_operator.monitoring.panels import Panel, Query
from kubevo_operator.monitoring.queries import (
    ACCEPTED,
    DESIRED,
    NAME,
    OF,
    READY,
    REPEAT,
    grown,
    last,
    rate,
)

__all__ = ["ALERTS", "API", "EVALUATORS", "OPERATOR", "QUEUE"]

QUEUE = (
    Panel(
        "Open episodes",
        "Episodes that are demanded and have no result yet, queued or in an evaluator's hands: how "
        "many processes could be busy.",
        "short",
        (Query(last("kubevo_open_episodes"), REPEAT),),
        above=0,
    ),
    Panel(
        "Results that changed nothing",
        "Duplicate, stale and unknown results: work that was done twice, too late, or before it was "
        "asked for again. Harmless; many of them waste evaluators.",
        "cps",
        (
            Query(
                rate("kubevo_results_total", f"{OF}, outcome", 'outcome!="accepted"'),
                f"{NAME} {{{{outcome}}}}",
            ),
        ),
        above=0,
    ),
    Panel(
        "Redelivered and given up",
        "Tasks that had used up their deliveries and were issued again (task_reissued), that the "
        "broker had lost (tasks_republished), or that were given up (poisoned).",
        "short",
        (
            Query(
                grown(
                    "kubevo_faults_total",
                    f"{OF}, kind",
                    'kind=~"task_reissued|tasks_republished|poisoned"',
                ),
                f"{NAME} {{{{kind}}}}",
            ),
        ),
        above=0,
    ),
)
EVALUATORS = (
    Panel(
        "Evaluators",
        "Processes that the Deployment asks for, and those that are ready.",
        "short",
        (
            Query(DESIRED, f"{NAME} desired"),
            Query(READY, f"{NAME} ready"),
        ),
        above=0,
    ),
    Panel(
        "Failed episodes",
        "Share of the accepted results without a return: the environment raised, or the return was "
        "not finite.",
        "percentunit",
        (
            Query(
                f"{rate('kubevo_failed_episodes_total')} / ({ACCEPTED} > 0)",
                NAME,
            ),
        ),
        above=0,
        below=1,
    ),
    Panel(
        "Faults",
        "What went wrong and was survived, by kind; the reference of metrics explains each.",
        "short",
        (Query(grown("kubevo_faults_total", f"{OF}, kind"), f"{NAME} {{{{kind}}}}"),),
        above=0,
    ),
)
OPERATOR = (
    Panel(
        "Leading replicas",
        "Operators that lead and whose watches are set up: 1 for each installation.",
        "none",
        (Query("sum(kubevo_operator_leading)", "leading"),),
        width=4,
        above=0,
    ),
    Panel(
        "Experiments under care",
        "All that exist, finished ones included.",
        "none",
        (Query("sum(kubevo_operator_experiments)", "experiments"),),
        width=4,
        above=0,
    ),
    Panel(
        "Lag of the event loop",
        "How late the operator's loop is. Over a second, status and results wait.",
        "s",
        (Query("max by (pod, instance) (kubevo_operator_loop_lag_seconds)", "{{instance}}"),),
        above=0,
    ),
    Panel(
        "Time to reconcile",
        "One comparison of an Experiment's Deployment and other children, 99 % of them.",
        "s",
        (
            Query(
                "histogram_quantile(0.99, sum by (le) "
                "(rate(kubevo_operator_reconcile_seconds_bucket[$__rate_interval])))",
                "p99",
            ),
        ),
        above=0,
    ),
    Panel(
        "Status patches",
        "Patches of Experiments' status that the API server gets, a second.",
        "cps",
        (
            Query(
                "sum(rate(kubevo_operator_status_patches_total[$__rate_interval]))",
                "patches",
            ),
        ),
        width=12,
        above=0,
    ),
    Panel(
        "The operator's faults",
        "What went wrong with the operator's own work and was tried again, by kind.",
        "short",
        (
            Query(
                "sum by (kind) (increase(kubevo_operator_faults_total[$__rate_interval]))",
                "{{kind}}",
            ),
        ),
        width=12,
        above=0,
    ),
)
API = (
    Panel(
        "Requests",
        "Answered requests a second, by status.",
        "reqps",
        (
            Query(
                "sum by (status) (rate(kubevo_api_requests_total[$__rate_interval]))",
                "{{status}}",
            ),
        ),
        above=0,
    ),
    Panel(
        "Time of an answer",
        "99 % of the answers of a route take at most this time, to the bounds of the histogram. Event "
        "streams are left out: they last as long as somebody looks.",
        "s",
        (
            Query(
                "histogram_quantile(0.99, sum by (route, le) (rate("
                'kubevo_api_request_seconds_bucket{route!~".*/events"}[$__rate_interval])))',
                "{{route}}",
            ),
        ),
        above=0,
    ),
    Panel(
        "Event streams",
        "Streams that are open: pages and clients that watch.",
        "none",
        (Query("sum(kubevo_api_streams)", "streams"),),
        width=4,
        above=0,
    ),
    Panel(
        "Exported models",
        "Size of the cache of models that were asked for.",
        "bytes",
        (Query("sum(kubevo_api_export_cache_bytes)", "cache"),),
        width=4,
        above=0,
    ),
)
ALERTS = (
    Panel(
        "Alerts",
        "kubevo's alerts that fire or soon will; how-to-monitor.md says what to do about each.",
        "none",
        (),
        kind="alertlist",
        width=12,
    ),
    Panel(
        "Alerts over time",
        "Firing and pending alerts, as Prometheus evaluated them.",
        "none",
        (
            Query(
                'count by (alertname, alertstate) (ALERTS{alertname=~"Kubevo.*"})',
                "{{alertname}} {{alertstate}}",
            ),
        ),
        width=12,
        stacked=True,
        above=0,
    ),
)
