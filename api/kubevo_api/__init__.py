"""The HTTP service's package: fastapi may be imported here and nowhere else.

It reads custom resources and checkpoint directories, never the operator, and writes neither.
"""

__all__: list[str] = []
