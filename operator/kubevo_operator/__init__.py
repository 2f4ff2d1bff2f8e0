"""The Kubernetes operator's package: kopf and kubernetes may be imported here and nowhere else.

It hosts ``kubevo_runtime.driver`` and never imports the evaluator or the API. The folder above
must never hold an ``__init__.py``: it would shadow the standard library's ``operator``.
"""

__all__: list[str] = []
