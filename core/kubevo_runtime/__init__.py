"""The shell that more than one program stands on: broker, checkpoint directory, the driver loop.

Belongs here: adapters and the loop that the operator and ``kubevo run`` both host. Never imported
here: an environment library, torch, kopf, kubernetes, fastapi. nats is imported by ``bus`` alone.
"""

__all__: list[str] = []
