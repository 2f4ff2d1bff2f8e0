"""What a task names instead of carrying it: its context and its base genome, from the bucket."""

from collections import OrderedDict

from kubevo_core import genome as genomes
from kubevo_core import spec
from kubevo_core.errors import GenomeError, MessageError
from kubevo_core.genome import Genome
from kubevo_core.messages import Context, Task
from kubevo_runtime.bus import WorkerBus

__all__ = ["Contexts", "specs"]

MOST_BASES = 256


class Contexts:
    """Reads contexts, and keeps the base genomes that were read last."""

    def __init__(self, bus: WorkerBus) -> None:
        self._bus = bus
        self._bases: OrderedDict[str, Genome] = OrderedDict()

    async def context(self, digest: str) -> Context | None:
        """Return a context; None while the bucket has none."""
        body = await self._bus.get_blob(digest)
        return None if body is None else Context.decode(body)

    async def base(self, task: Task) -> Genome | None:
        """Return the genome that a task's own descends from; None while the bucket has none.

        Raises:
            GenomeError: the bucket holds something else.
        """
        if isinstance(task.base, int):
            return Genome(task.network, task.base)
        found = self._bases.get(task.base)
        if found is None:
            body = await self._bus.get_blob(task.base)
            if body is None:
                return None
            found = genomes.parse(body.decode("ascii", "replace"))
            if found.digest != task.base:
                raise GenomeError(f"the bucket holds genome {found.digest} under {task.base}")
            self._bases[task.base] = found
            if len(self._bases) > MOST_BASES:
                self._bases.popitem(last=False)
        return found


def specs(context: Context) -> tuple[spec.Environment, spec.Policy]:
    """Return a context's environment and policy.

    Raises:
        MessageError: they are not such specs.
    """
    try:
        return (
            spec.Environment.model_validate(context.environment),
            spec.Policy.model_validate(context.policy),
        )
    except ValueError as exc:
        raise MessageError(f"the context's spec cannot be read: {exc}") from exc
