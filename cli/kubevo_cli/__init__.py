"""The ``kubevo`` command: it stands on top of everything and nothing imports it."""

__all__: list[str] = []
