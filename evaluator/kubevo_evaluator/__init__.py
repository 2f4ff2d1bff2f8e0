"""The evaluator: environments, policies, the one episode loop, and the worker process around them.

The only place that imports gymnasium, ale_py or torch. Keeps no state that matters: kill it
anywhere and another evaluator gives the same bytes.
"""

__all__: list[str] = []
