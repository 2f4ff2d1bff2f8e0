"""The REST service and its page: what a person or a program sees of Experiments.

It reads the custom resources (or a local directory of runs) and the runs' directories, never the
operator, and writes no checkpoint: the one thing it changes is a spec, by a patch. ``app`` composes
it; ``__main__`` (a cluster) and ``serve`` (a laptop) are the two composition roots. Of the cluster
only ``cluster`` knows; of HTTP only ``app``, ``routes`` and ``web``.
"""

__all__: list[str] = []
