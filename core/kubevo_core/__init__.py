"""The pure core: what a search is, without anything that happens.

Belongs here: values (spec, genome, messages, checkpoint) and decisions (the engine, selection,
names). Never imported here: clocks, files, sockets, environment variables, random sources, or any
third-party library but numpy, safetensors' byte codec and, in ``spec`` alone, pydantic. Time,
randomness and identifiers are arguments. Test for belonging: given equal arguments, would every
machine in the world return equal bytes?
"""

__all__: list[str] = []
