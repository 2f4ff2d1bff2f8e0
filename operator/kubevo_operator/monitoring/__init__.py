"""What a platform team loads beside the chart: dashboard, alerts and the reference of all metrics.

Everything here is a pure builder of plain values from the tables in `kubevo_runtime.exposition` and
`kubevo_operator.metrics`; ``python -m kubevo_operator.monitoring`` writes the files that the chart and
the documentation carry. Never imported by the running operator.
"""

__all__: list[str] = []
