"""The alerts: a Prometheus rules file, which the chart wraps in a PrometheusRule.

Every alert about an Experiment asks first for its state, so that a suspended or finished one never
alerts. An alert's ``docs`` annotation names its section of docs/how-to-monitor.md. Thresholds are the
constants at the top; they suit searches whose generations take from seconds to some hours.
"""

from typing import Any, Literal, NamedTuple

import yaml

__all__ = ["GROUPS", "Alert", "document", "rendered"]

Json = dict[str, Any]
FAILED_SHARE = 0.1
FEWEST_RESULTS = 20
# A generation is late after so long, and after so many times what generations took so far.
LATE_SECONDS, LATE_FACTOR = 7200, 5
# An attempt may take some seconds longer than the pause before it.
BLOCKED_SHARE = 0.2
LAG_SECONDS = 1
SLOW_SECONDS = 2
HEADER = "# Generated from kubevo_operator.monitoring by `make monitoring`; do not edit.\n"

OF = "by (namespace, experiment)"
ON = "on (namespace, experiment)"
EACH = "on (namespace, experiment, repeat)"
WHO = "{{ $labels.namespace }}/{{ $labels.experiment }}"


class Alert(NamedTuple):
    """One rule; ``wait`` is how long ``expr`` must hold. The texts are Prometheus templates."""

    name: str
    severity: Literal["info", "warning", "critical"]
    wait: str
    expr: str
    summary: str
    description: str

    def document(self) -> Json:
        """Return the rule as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr.strip() + "\n",
            "for": self.wait,
            "labels": {"severity": self.severity},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "docs": f"docs/how-to-monitor.md#{self.name.lower()}",
            },
        }


def _state(pattern: str) -> str:
    return f'max {OF} (kubevo_experiment_state{{state=~"{pattern}"}}) == 1'


_DRIVEN = _state("running|waiting")
_DESIRED = f'max {OF} (kubevo_evaluators{{state="desired"}})'
_READY = f'max {OF} (kubevo_evaluators{{state="ready"}})'
_AGE = (
    "(time() - max by (namespace, experiment, repeat) (kubevo_generation_start_timestamp_seconds))"
)
_USUAL = "max by (namespace, experiment, repeat) (kubevo_running_seconds / (kubevo_generation + 1))"

_EXPERIMENTS = (
    Alert(
        "KubevoNoProgress",
        "warning",
        "20m",
        f"""
{_DRIVEN}
unless {ON}
  sum {OF} (increase(kubevo_results_total{{outcome="accepted"}}[20m])) > 0
unless {ON}
  ({_DESIRED} > 0
   and {ON}
     {_READY} == 0)
""",
        f"Experiment {WHO} makes no progress.",
        f"Not one result of {WHO} was accepted for 40 minutes, although it is neither suspended nor "
        "finished. Look at its evaluators' logs, at scaling.replicas in mode Fixed, and at the broker.",
    ),
    Alert(
        "KubevoEvaluationsFailing",
        "warning",
        "10m",
        f"""
sum {OF} (increase(kubevo_failed_episodes_total[15m]))
  / sum {OF} (increase(kubevo_results_total{{outcome="accepted"}}[15m])) > {FAILED_SHARE}
and {ON}
  sum {OF} (increase(kubevo_results_total{{outcome="accepted"}}[15m])) >= {FEWEST_RESULTS}
and {ON}
  {_DRIVEN}
""",
        f"Evaluations of Experiment {WHO} fail.",
        "{{ $value | humanizePercentage }} of the episodes of "
        + WHO
        + " had no return in the last 15 "
        "minutes. The failures stand in its history and in the evaluators' logs.",
    ),
    Alert(
        "KubevoCheckpointOld",
        "warning",
        "10m",
        f"""
{_AGE} > {LATE_SECONDS}
unless {EACH}
  {_AGE}
    <= {LATE_FACTOR} * {_USUAL}
and {EACH}
  max by (namespace, experiment, repeat) (kubevo_open_episodes) > 0
and {ON}
  {_DRIVEN}
""",
        f"The last checkpoint of Experiment {WHO} is old.",
        f"Repeat {{{{ $labels.repeat }}}} of {WHO} has played for {{{{ $value | humanizeDuration }}}} "
        "without finishing a generation, far longer than its generations took so far. Look for "
        "episodes that never end and for too few evaluators.",
    ),
    Alert(
        "KubevoEvaluatorsMissing",
        "warning",
        "15m",
        f"""
{_DESIRED} > 0
and {ON}
  {_READY} == 0
and {ON}
  {_DRIVEN}
""",
        f"Experiment {WHO} has no evaluator.",
        "{{ $value }} evaluator processes of "
        + WHO
        + " are wanted and none is ready. The condition "
        "EvaluatorsReady says why: image, quota, scheduling or a crash.",
    ),
    Alert(
        "KubevoEvaluatorsShort",
        "info",
        "1h",
        f"""
{_READY} / ({_DESIRED} > 0) < 0.5
and {ON}
  {_READY} > 0
and {ON}
  {_DRIVEN}
""",
        f"Experiment {WHO} has less than half of its evaluators.",
        "Only {{ $value | humanizePercentage }} of the evaluator processes of "
        + WHO
        + " have been "
        "ready for an hour. It goes on, more slowly; look at its pods and at the cluster's room.",
    ),
    Alert(
        "KubevoDeadLetters",
        "warning",
        "0m",
        f"""
sum {OF} (increase(kubevo_faults_total{{kind=~"task_reissued|poisoned"}}[30m])) > 0
and {ON}
  {_state("running|waiting|blocked")}
""",
        f"Tasks of Experiment {WHO} use up their deliveries.",
        "About {{ $value | humanize }} times in the last 30 minutes a task of "
        + WHO
        + " had used up "
        "its deliveries: every worker that took it died or gave it back. It was issued again or given "
        "up. Look for memory limits, preemption and an environment that crashes.",
    ),
    Alert(
        "KubevoWorkLost",
        "warning",
        "0m",
        f"""
sum {OF} (increase(kubevo_faults_total{{kind="tasks_republished"}}[1h])) > 2
and {ON}
  {_DRIVEN}
""",
        f"The broker loses work of Experiment {WHO}.",
        "Tasks of " + WHO + " were missing on the broker about {{ $value | humanize }} times in an "
        "hour. They were published again and no result changes; the broker's storage needs a look.",
    ),
    Alert(
        "KubevoExperimentBlocked",
        "warning",
        "10m",
        # Each new attempt is `waiting` for some seconds; the plain state would start the clock anew.
        f"""
max {OF} (avg_over_time(kubevo_experiment_state{{state="blocked"}}[15m])) > {BLOCKED_SHARE}
and {ON}
  {_state("blocked|waiting")}
""",
        f"Experiment {WHO} waits for a person.",
        f"{WHO} is not driven although its spec wants it. `kubectl describe evo` shows the reason and "
        "what to do.",
    ),
)
_OPERATOR = (
    Alert(
        "KubevoOperatorDown",
        "critical",
        "5m",
        "absent(kubevo_operator_leading)",
        "No kubevo operator works.",
        "No replica of the operator shows that it leads: none runs, none gets the Lease, or Prometheus "
        "does not scrape it. Searches stand still and lose nothing.",
    ),
    Alert(
        "KubevoOperatorNotLeading",
        "critical",
        "5m",
        "max by (job) (kubevo_operator_leading) == 0",
        "The kubevo operator leads but does not work.",
        "A replica holds the Lease and its watches are not set up: the resource's definition or its "
        "rights may be missing. Its log says what it waits for.",
    ),
    Alert(
        "KubevoOperatorLagging",
        "warning",
        "10m",
        f"max by (job) (kubevo_operator_loop_lag_seconds) > {LAG_SECONDS}",
        "The kubevo operator's event loop is late.",
        "The operator's loop is {{ $value | humanizeDuration }} late: it has too little CPU or too "
        "many Experiments. Results and statuses wait.",
    ),
    Alert(
        "KubevoChildrenFailing",
        "warning",
        "15m",
        'sum by (job) (increase(kubevo_operator_faults_total{kind="children"}[15m])) > 5',
        "The kubevo operator cannot keep its Experiments' children.",
        "The API server refused or did not answer about {{ $value | humanize }} times in 15 minutes. "
        "Experiments with the condition Degraded say what was refused.",
    ),
)
_API = (
    Alert(
        "KubevoApiDown",
        "warning",
        "5m",
        """
max by (job) (max_over_time(kubevo_api_streams[1d])) >= 0
unless on (job)
  max by (job) (kubevo_api_streams)
""",
        "kubevo's API is gone.",
        "The API showed metrics within a day and shows none now. Searches go on without it.",
    ),
    Alert(
        "KubevoApiErrors",
        "warning",
        "10m",
        """
sum by (job) (rate(kubevo_api_requests_total{status=~"5.."}[10m]))
  / sum by (job) (rate(kubevo_api_requests_total[10m])) > 0.05
""",
        "kubevo's API answers with errors.",
        "{{ $value | humanizePercentage }} of the API's answers are its own failures (5xx). Its log "
        "has one line for each.",
    ),
    Alert(
        "KubevoApiSlow",
        "info",
        "15m",
        f"""
histogram_quantile(0.99, sum by (job, le) (
  rate(kubevo_api_request_seconds_bucket{{route!~".*/(events|[{{]file[}}]|video[.]mp4)"}}[10m])
)) > {SLOW_SECONDS}
""",
        "kubevo's API is slow.",
        "One in a hundred answers of the API takes over {{ $value | humanizeDuration }}, downloads and "
        "event streams not counted. Look at the operator's CPU and volume.",
    ),
)
GROUPS: dict[str, tuple[Alert, ...]] = {
    "kubevo-experiments": _EXPERIMENTS,
    "kubevo-operator": _OPERATOR,
    "kubevo-api": _API,
}


def document() -> Json:
    """Return the rules file's document."""
    return {
        "groups": [
            {"name": name, "rules": [alert.document() for alert in alerts]}
            for name, alerts in GROUPS.items()
        ]
    }


def rendered() -> str:
    """Return the rules as the text of their file."""
    text = yaml.dump(document(), Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
    return HEADER + text


class _Dumper(yaml.SafeDumper):
    """Writes a query as a block, as a person would."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
