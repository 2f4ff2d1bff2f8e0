"""What an export is made of: a genome, and what a person wants to know beside it."""

from dataclasses import dataclass

from kubevo_core import decode, spec
from kubevo_core.genome import Genome
from kubevo_core.noise import Float32Vector

__all__ = ["Facts", "Model"]


@dataclass(frozen=True)
class Facts:
    """Where a genome comes from and how good it was found to be; None: not known.

    ``fitness`` is its mean over ``validation_episodes``; the final test's episodes were never used to
    choose anything. ``frames`` is what the search had played.
    """

    experiment: str
    namespace: str
    uid: str
    repeat: int
    generation: int
    fitness: float | None
    validation_episodes: int
    final_test_mean: float | None
    final_test_interval: tuple[float, float] | None
    final_test_episodes: int
    frames: int
    seed: int
    backend: str | None
    version: str

    @property
    def scores(self) -> dict[str, object]:
        """How good it is, as plain JSON values: equal for a genome until it is tested again."""
        found: dict[str, object] = {
            "experiment": self.experiment,
            "repeat": self.repeat,
            "generation": self.generation,
            "fitness": self.fitness,
            "validationEpisodes": self.validation_episodes,
        }
        if self.final_test_mean is not None:
            found["finalTest"] = {
                "mean": self.final_test_mean,
                "ci95": self.final_test_interval,
                "episodes": self.final_test_episodes,
            }
        return found


@dataclass(frozen=True)
class Model:
    """A genome; its environment, the actions there (as a Description says them), and the facts.

    ``precision`` is that of its search: what the genome plays with, and what is exported.
    """

    genome: Genome
    environment: spec.Environment | None = None
    actions: str | None = None
    facts: Facts | None = None
    precision: str = "float32"

    @property
    def weights(self) -> Float32Vector:
        """The weights that play: shape (size,), float32, rounded to the precision."""
        return decode.weights(self.genome, self.precision)

    @property
    def precision_document(self) -> dict[str, str]:
        """The precision as an entry of JSON: nothing for float32, which a genome alone means."""
        return {} if self.precision == "float32" else {"precision": self.precision}

    @property
    def genome_document(self) -> dict[str, object]:
        """The genome as plain JSON values, with what else it takes to decode it."""
        return self.genome.to_json() | self.precision_document

    @property
    def environment_document(self) -> dict[str, object] | None:
        """The environment as plain JSON values."""
        if self.environment is None:
            return None
        found: dict[str, object] = self.environment.model_dump(mode="json", by_alias=True)
        return found
