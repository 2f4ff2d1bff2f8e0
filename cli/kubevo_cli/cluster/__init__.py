"""The command line against a cluster: Experiments by the Kubernetes API, results by the service.

``kubernetes_api`` and ``service`` reach out, ``views`` is pure, the others are what the commands do;
``commands`` names them with their flags. Only here does the command line know of Kubernetes, and the
client library is imported when a command runs.
"""

__all__: list[str] = []
