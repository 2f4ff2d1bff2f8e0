"""The routes, one module a subject; each is a thin answer from `kubevo_api.context`'s parts."""

__all__: list[str] = []
