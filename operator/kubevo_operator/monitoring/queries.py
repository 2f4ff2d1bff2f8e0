"""How the dashboard asks: PromQL for the chosen Experiments, whatever pod their series come from.

An operator that was replaced leaves the series of its old pod beside those of the new one, so every
query sums or takes the maximum by the labels that mean something.
"""

__all__ = [
    "ACCEPTED",
    "BUSY",
    "DECODE",
    "DESIRED",
    "EACH",
    "NAME",
    "OF",
    "PLAY",
    "READY",
    "REPEAT",
    "grown",
    "last",
    "quantile",
    "rate",
    "stat",
]

OF = "namespace, experiment"
EACH = "namespace, experiment, repeat"
NAME = "{{namespace}}/{{experiment}}"
REPEAT = f"{NAME} r{{{{repeat}}}}"


def _chosen(name: str, matchers: str = "") -> str:
    """Return a selector of the chosen Experiments' series."""
    more = f", {matchers}" if matchers else ""
    return f'{name}{{namespace=~"$namespace", experiment=~"$experiment"{more}}}'


def last(name: str, by: str = EACH, matchers: str = "") -> str:
    """Return a gauge whatever pod it comes from."""
    return f"max by ({by}) ({_chosen(name, matchers)})"


def rate(name: str, by: str = OF, matchers: str = "") -> str:
    """Return a counter's growth per second, of all pods together."""
    return f"sum by ({by}) (rate({_chosen(name, matchers)}[$__rate_interval]))"


def grown(name: str, by: str = OF, matchers: str = "") -> str:
    """Return a counter's growth over one step of the graph, of all pods together."""
    return f"sum by ({by}) (increase({_chosen(name, matchers)}[$__rate_interval]))"


def quantile(q: str, phase: str) -> str:
    """Return a quantile of the time that one phase of an episode takes, in seconds."""
    buckets = rate("kubevo_episode_seconds_bucket", f"{OF}, le", f'phase="{phase}"')
    return f"histogram_quantile({q}, {buckets})"


def stat(name: str) -> str:
    """Return a statistic of the fitness over the last generation."""
    return last("kubevo_fitness", EACH, f'stat="{name}"')


READY = last("kubevo_evaluators", OF, 'state="ready"')
DESIRED = last("kubevo_evaluators", OF, 'state="desired"')
DECODE = rate("kubevo_episode_seconds_sum", OF, 'phase="decode"')
PLAY = rate("kubevo_episode_seconds_sum", OF, 'phase="play"')
BUSY = rate("kubevo_episode_seconds_sum", OF)
ACCEPTED = rate("kubevo_results_total", OF, 'outcome="accepted"')
