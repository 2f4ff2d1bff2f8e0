"""The best genome of an Experiment: what is known of it, its files, and the policy that it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubevo_client.policy import Policy, action_layout
from kubevo_client.transport import Transport, path_of
from kubevo_core import genome as genomes
from kubevo_core import networks
from kubevo_core.errors import FormatError, UserError
from kubevo_core.genome import Genome

__all__ = ["FILES", "Best"]

FILES = (
    "README.md",
    "genome.json",
    "model.onnx",
    "model.safetensors",
    "policy.py",
    "video.mp4",
)


@dataclass(frozen=True)
class Best:
    """A validated genome: its fitness is the mean of its validation episodes.

    ``document`` is all that the service said; ``finalTest`` in it is the held-out test.
    """

    fitness: float
    generation: int
    repeat: int
    genome: Genome
    document: Mapping[str, Any] = field(repr=False, compare=False)
    _transport: Transport = field(repr=False, compare=False)
    _place: tuple[str, str] = field(repr=False, compare=False)

    @property
    def digest(self) -> str:
        """sha256 of the genome's text, 64 hex digits."""
        return self.genome.digest

    @property
    def precision(self) -> str:
        """What its weights are rounded to, as in its search (float32 where a service does not say)."""
        return str(self.document.get("precision", "float32"))

    def download(self, file: str, target: str | Path | None = None, *, force: bool = False) -> Path:
        """Download one of FILES to ``target`` (default: its own name here) and return the path.

        It is the file of this very genome: where a search that goes on has found a better one
        meanwhile, the service refuses, and ``best()`` gives the new one.

        Raises:
            UserError: no such file, or the target exists already and ``force`` is not given.
            ServiceError: as the tree in `kubevo_client.errors` says.
        """
        if file not in FILES:
            raise UserError(f"download: expected one of {', '.join(FILES)}, got {file!r}")
        path = Path(file if target is None else target)
        if path.is_dir():
            path /= file
        if path.exists() and not force:
            raise UserError(f"{path}: exists already; force=True (--force) overwrites it")
        if not path.parent.is_dir():
            raise UserError(f"{path}: the folder {path.parent} does not exist; make it first")
        self._transport.download(
            self._path(file), {"repeat": self.repeat, "digest": self.digest}, path
        )
        return path

    def load_policy(self, environment: Any = None) -> Policy:
        """Return the policy: decoded on this machine from the genome, played by numpy.

        ``environment`` is the Gymnasium environment that it shall play; without it simple spaces
        are understood (see `Policy`).

        Raises:
            UserError: the environment does not fit the network.
            ServiceError: as the tree in `kubevo_client.errors` says.
        """
        network = networks.network(self.genome.network)
        namespace, name = self._place
        wanted: Mapping[str, Any] = {}
        if environment is None and network.observation == "vector":
            found = self._transport.get(path_of("namespaces", namespace, "experiments", name))
            wanted = found["spec"]["environment"]
        told = self.document.get("actions")
        layout, why = action_layout(network, environment, wanted, told)
        return Policy(self.genome, layout, environment, why, self.precision)

    def _path(self, file: str) -> str:
        namespace, name = self._place
        return path_of("namespaces", namespace, "experiments", name, "best", file)

    @staticmethod
    def of(document: Mapping[str, Any], transport: Transport, place: tuple[str, str]) -> "Best":
        """Return the genome that the service described.

        Raises:
            FormatError: the genome is not the one that its digest names.
        """
        found = genomes.parse(document["genome"])
        if found.digest != document["digest"]:
            raise FormatError(
                f"the best genome of {'/'.join(place)}: expected the digest {document['digest']}, "
                f"the text has {found.digest}; was it changed on its way?"
            )
        return Best(
            fitness=float(document["fitness"]),
            generation=int(document["generation"]),
            repeat=int(document["repeat"]),
            genome=found,
            document=document,
            _transport=transport,
            _place=place,
        )
