"""Each alert fires when it must and stays silent when it must, judged by promtool.

A scenario is what Prometheus would have scraped once a minute, as differences from a day on which all
is well. Every scenario is asked about every alert, so that none fires beside the one that is meant.
"""

import re
from dataclasses import dataclass, field

import pytest
import yaml

from kubevo_operator.monitoring.alerts import GROUPS, document
from kubevo_operator.monitoring.metric_table import label_values, metrics
from kubevo_runtime.exposition import FAULTS, STATES

MINUTES = 300
ALERTS = {alert.name: alert for group in GROUPS.values() for alert in group}
JOB = 'job="kubevo"'
OWN = f'{JOB},namespace="lab",experiment="x"'
RESTING = ("suspended", "succeeded", "failed")


def flat(value):
    return f"{value}+0x{MINUTES}"


def growing(step, start=0):
    return f"{start}+{step}x{MINUTES}"


def states(state):
    """Return the series of an Experiment that is in one state all day."""
    return {
        f'kubevo_experiment_state{{{OWN},state="{each}"}}': flat(int(each == state))
        for each in STATES
    }


def fault(kind, values):
    return {f'kubevo_faults_total{{{OWN},kind="{kind}"}}': values}


def evaluators(desired, ready):
    return {
        f'kubevo_evaluators{{{OWN},state="desired"}}': flat(desired),
        f'kubevo_evaluators{{{OWN},state="ready"}}': flat(ready),
    }


def accepted(values):
    return {f'kubevo_results_total{{{OWN},outcome="accepted"}}': values}


def failed(values):
    return {f"kubevo_failed_episodes_total{{{OWN}}}": values}


def generation(start, took=60):
    """Return a generation that began at second ``start``, after some that took ``took`` seconds."""
    repeat = f'{OWN},repeat="0"'
    return {
        f"kubevo_generation_start_timestamp_seconds{{{repeat}}}": start,
        f"kubevo_running_seconds{{{repeat}}}": flat(10 * took),
        f"kubevo_generation{{{repeat}}}": flat(9),
        f"kubevo_open_episodes{{{repeat}}}": flat(5),
    }


def answers(good=60, bad=0, within="0.1", route="/api/v1/experiments"):
    """Return the API's counters; all of its answers come within a bound, in seconds."""
    where = f'{JOB},route="{route}"'
    buckets = {
        f'kubevo_api_request_seconds_bucket{{{where},le="{le}"}}': growing(
            (good + bad) * (float(le) >= float(within))
        )
        for le in ("0.1", "2", "10", "+Inf")
    }
    return buckets | {
        f'kubevo_api_requests_total{{{where},method="GET",status="200"}}': growing(good),
        f'kubevo_api_requests_total{{{where},method="GET",status="500"}}': growing(bad),
    }


WELL = {
    **states("running"),
    **accepted(growing(10)),
    **failed(flat(0)),
    **evaluators(4, 4),
    **generation(growing(60)),
    **answers(),
    **{name: values for kind in FAULTS for name, values in fault(kind, flat(0)).items()},
    f"kubevo_operator_leading{{{JOB}}}": flat(1),
    f"kubevo_operator_loop_lag_seconds{{{JOB}}}": flat(0),
    f'kubevo_operator_faults_total{{{JOB},kind="children"}}': flat(0),
    f"kubevo_api_streams{{{JOB}}}": flat(3),
}


@dataclass
class Scenario:
    """``changes`` to the day on which all is well; ``fires`` maps an alert to its shown value.

    It fires at minute ``at`` and does not yet at minute ``before``. A series whose values are None
    is not there.
    """

    changes: dict = field(default_factory=dict)
    fires: dict = field(default_factory=dict)
    at: int = 120
    before: int | None = None


TROUBLES = {
    "no result": Scenario(
        accepted("0+10x29 " + "300+0x270"), {"KubevoNoProgress": ""}, at=71, before=66
    ),
    "nobody describes it": Scenario(
        dict.fromkeys(accepted("")), {"KubevoNoProgress": ""}, at=20, before=19
    ),
    "one in four episodes fails": Scenario(
        failed(growing(2.5)), {"KubevoEvaluationsFailing": "25%"}, before=8
    ),
    "a generation that does not end": Scenario(
        generation(flat(0)), {"KubevoCheckpointOld": "2h 11m 0s"}, at=131, before=130
    ),
    "no first generation": Scenario(
        dict.fromkeys(generation(""))
        | {
            name: values
            for name, values in generation(flat(0)).items()
            if "start" in name or "open" in name
        },
        {"KubevoCheckpointOld": "2h 11m 0s"},
        at=131,
        before=130,
    ),
    "no evaluator": Scenario(
        evaluators(4, 0) | accepted(flat(0)) | states("waiting"),
        {"KubevoEvaluatorsMissing": "4"},
        before=14,
    ),
    "few evaluators": Scenario(evaluators(4, 1), {"KubevoEvaluatorsShort": "25%"}, before=59),
    "a task was reissued": Scenario(
        fault("task_reissued", "0+0x59 1+0x240"), {"KubevoDeadLetters": "1"}, at=60, before=59
    ),
    "an evaluation was given up": Scenario(
        fault("poisoned", "0+0x59 1+0x240"), {"KubevoDeadLetters": "1"}, at=60, before=59
    ),
    "a task was reissued until the search was given up": Scenario(
        fault("task_reissued", "0+0x59 2+0x240") | states("blocked"),
        {"KubevoDeadLetters": "2", "KubevoExperimentBlocked": ""},
        at=60,
    ),
    "the broker forgets": Scenario(
        fault("tasks_republished", growing(0.1)), {"KubevoWorkLost": "6"}, before=18
    ),
    "blocked": Scenario(
        states("blocked") | accepted(flat(0)), {"KubevoExperimentBlocked": ""}, before=9
    ),
    "blocked, with an attempt now and then": Scenario(
        states("none")
        | {
            f'kubevo_experiment_state{{{OWN},state="blocked"}}': " ".join(["1 0 0"] * 100),
            f'kubevo_experiment_state{{{OWN},state="waiting"}}': " ".join(["0 1 1"] * 100),
            **accepted(flat(0)),
        },
        {"KubevoExperimentBlocked": ""},
        before=8,
    ),
    "no operator": Scenario(
        {name: None for name in WELL if "api" not in name},
        {"KubevoOperatorDown": ""},
        before=4,
    ),
    "an operator that waits": Scenario(
        {f"kubevo_operator_leading{{{JOB}}}": flat(0)}, {"KubevoOperatorNotLeading": ""}, before=4
    ),
    "a late loop": Scenario(
        {f"kubevo_operator_loop_lag_seconds{{{JOB}}}": flat(3)},
        {"KubevoOperatorLagging": "3s"},
        before=9,
    ),
    "children refused": Scenario(
        {f'kubevo_operator_faults_total{{{JOB},kind="children"}}': growing(1)},
        {"KubevoChildrenFailing": "15"},
        before=15,
    ),
    "the API went away": Scenario(
        {name: "0+0x29 stale" for name in WELL if "api_" in name},
        {"KubevoApiDown": ""},
        at=40,
        before=33,
    ),
    "the API has been away for hours": Scenario(
        {name: "0+0x29 stale" for name in WELL if "api_" in name}, {"KubevoApiDown": ""}, at=280
    ),
    "the API fails": Scenario(answers(good=54, bad=6), {"KubevoApiErrors": "10%"}, before=9),
    "the API is slow": Scenario(answers(within="10"), {"KubevoApiSlow": "9.92s"}, before=14),
}
FINE = {
    "all is well": Scenario(),
    "a few failures": Scenario(failed(growing(0.5))),
    "all of a handful of results fail": Scenario(accepted(growing(0.5)) | failed(growing(0.5))),
    "a long generation that is as long as the others": Scenario(
        generation(flat(0), took=3600), at=290
    ),
    "a repeat that has stopped": Scenario(
        generation(flat(0)) | {f'kubevo_open_episodes{{{OWN},repeat="0"}}': flat(0)}, at=290
    ),
    "slow event streams and downloads": Scenario(
        answers(within="10", route="/api/v1/events")
        | answers(within="10", route="/api/v1/namespaces/{ns}/experiments/{name}/best/{file}")
    ),
    "no API": Scenario({name: None for name in WELL if "api_" in name}),
    "nothing but an operator": Scenario({n: None for n in WELL if "experiment=" in n}),
    "a second replica that stands by and shows nothing": Scenario({'up{job="kubevo"}': flat(1)}),
}


def rules_test(scenario, at, fires):
    series = {**WELL, **scenario.changes}
    return {
        "interval": "1m",
        "input_series": [
            {"series": name, "values": values}
            for name, values in series.items()
            if values is not None
        ],
        "alert_rule_test": [
            {
                "eval_time": f"{at}m",
                "alertname": name,
                "exp_alerts": [expected(alert, fires[name])] if name in fires else [],
            }
            for name, alert in ALERTS.items()
        ],
    }


def expected(alert, value):
    """Return the alert as it is shown for the one Experiment, or the one job, of the scenarios."""
    shown = alert.document()
    labels = dict(shown["labels"])
    if "namespace" in alert.expr:
        labels |= {"namespace": "lab", "experiment": "x"}
    if "repeat" in alert.expr:
        labels["repeat"] = "0"
    if "by (job" in alert.expr:
        labels["job"] = "kubevo"

    def fill(text):
        for label in ("namespace", "experiment", "repeat"):
            text = text.replace(f"{{{{ $labels.{label} }}}}", labels.get(label, "?"))
        return re.sub(r"{{ \$value[^}]*}}", value, text)

    texts = {name: fill(text) for name, text in shown["annotations"].items()}
    return {"exp_labels": labels, "exp_annotations": texts}


@pytest.fixture
def judge(promtool, tmp_path, root):
    def run(*tests):
        path = tmp_path / "test.yaml"
        rules = str(root / "charts/kubevo/files/alerts.yaml")
        body = {"rule_files": [rules], "evaluation_interval": "1m", "tests": list(tests)}
        path.write_text(yaml.safe_dump(body))
        promtool("test", "rules", path)

    return run


@pytest.mark.parametrize("name", TROUBLES)
def test_a_trouble_fires_its_alert_in_time_and_no_other(judge, name):
    scenario = TROUBLES[name]
    tests = [rules_test(scenario, scenario.at, scenario.fires)]
    if scenario.before is not None:
        tests.append(rules_test(scenario, scenario.before, {}))
    judge(*tests)


@pytest.mark.parametrize("name", FINE)
def test_what_is_no_trouble_fires_nothing(judge, name):
    judge(rules_test(FINE[name], FINE[name].at, {}))


@pytest.mark.parametrize("state", RESTING)
def test_an_experiment_at_rest_never_alerts_whatever_went_before(judge, state):
    troubled = [s for s in TROUBLES.values() if any("experiment=" in name for name in s.changes)]
    judge(
        *(
            rules_test(
                Scenario(
                    {k: v for k, v in scenario.changes.items() if "leading" not in k}
                    | {k: v for k, v in WELL.items() if "operator" in k or "api_" in k}
                    | states(state)
                ),
                scenario.at,
                {},
            )
            for scenario in troubled
        )
    )


def test_an_operator_that_was_replaced_alerts_nobody(judge):
    old, new = 'pod="a"', 'pod="b"'
    changes = dict.fromkeys(WELL)
    for name, values in WELL.items():
        constant = "+0x" in values
        first, step = re.fullmatch(r"([\d.]+)\+([\d.]+)x.*", values).groups()
        is_counter = "_total" in name or "_bucket" in name
        later = first if constant or is_counter else str(float(first) + 61 * float(step))
        changes[name.replace("{", f"{{{old},")] = f"{first}+{step}x59 stale"
        changes[name.replace("{", f"{{{new},")] = f"_x61 {later}+{step}x200"
    for minute in (58, 60, 62, 64, 80, 130):
        judge(rules_test(Scenario(changes), minute, {}))


def test_every_alert_is_seen_firing():
    assert {name for scenario in TROUBLES.values() for name in scenario.fires} == set(ALERTS)


def test_the_rules_are_well_formed(promtool, root):
    said = promtool("check", "rules", root / "charts/kubevo/files/alerts.yaml")
    assert f"{len(ALERTS)} rules found" in said


def test_every_alert_asks_for_what_exists(selectors):
    known = {series: metric for metric in metrics() for series in metric.series}
    values = label_values()
    for alert in ALERTS.values():
        for name, matchers in selectors(alert.expr):
            assert name in known, f"{name} in {alert.name}"
            for label, operator, value in matchers:
                assert label in known[name].labels, f"{label} in {alert.name}"
                possible = values.get(f"{known[name].name}{{{label}}}")
                if possible is not None:
                    chosen = value.split("|") if operator.endswith("~") else [value]
                    assert set(chosen) <= set(possible), alert.name


def test_every_alert_says_what_it_means_and_where_to_read_on(root):
    page = (root / "docs/how-to-monitor.md").read_text()
    anchors = {heading.lower() for heading in re.findall(r"^#+ (\w+)$", page, re.MULTILINE)}
    for group in document()["groups"]:
        for rule in group["rules"]:
            texts = rule["annotations"]
            assert texts["summary"].endswith(".")
            assert len(texts["summary"]) <= 120
            assert texts["description"].endswith(".")
            file, _, anchor = texts["docs"].partition("#")
            assert file == "docs/how-to-monitor.md"
            assert anchor in anchors
