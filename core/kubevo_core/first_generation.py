"""Generation 0: random individuals, or imported genomes and children of them (a warm start).

::

    slot   0 … k-1               k … N-1
           imported genomes      child = its parent among the imported + one mutation
                                 (PARENT and MUTATION with generation 0 and the slot)

An imported genome's number is its slot, so a child's parent slot means the same as everywhere.
"""

from collections.abc import Sequence
from dataclasses import replace

from kubevo_core.demands import child_of, parent_hash
from kubevo_core.errors import WarmStartRefused
from kubevo_core.generation_report import Individual
from kubevo_core.genome import DIALECT, MAX_TEXT_BYTES, Genome
from kubevo_core.search import Settings
from kubevo_core.seeding import Purpose, derive
from kubevo_core.selection import rendezvous

__all__ = ["LONGEST_MUTATION_BYTES", "first_population", "require_fitting"]

# What a child adds to its parent's text at most: separator, ten digits, '*', sigma.
LONGEST_MUTATION_BYTES = 21


def first_population(settings: Settings, imported: Sequence[Genome] = ()) -> tuple[Individual, ...]:
    """Return the N individuals of generation 0.

    Of ``imported`` each genome counts once, and those beyond N are dropped; none of them means a
    search from INIT seeds.

    Raises:
        WarmStartRefused: an imported genome does not fit the search's network.
    """
    n = settings.population_size
    genomes = list(dict.fromkeys(imported))[:n]
    if not genomes:
        return tuple(_random(settings, slot) for slot in range(n))
    require_fitting(genomes, settings.network)
    population = [Individual(genome, genome, None, -1) for genome in genomes]
    slots = {genome.digest: slot for slot, genome in enumerate(genomes)}
    for slot in range(len(genomes), n):
        parent_slot = slots[rendezvous(parent_hash(settings, 0, slot), slots)]
        child = child_of(settings, 0, slot, genomes[parent_slot])
        population.append(replace(child, parent_slot=parent_slot))
    return tuple(population)


def _random(settings: Settings, slot: int) -> Individual:
    seed = derive(settings.seed, Purpose.INIT, settings.repeat, slot)
    genome = Genome(settings.network, seed)
    return Individual(genome, genome, None, -1)


def require_fitting(genomes: Sequence[Genome], network: str, source: str = "the source") -> None:
    """Refuse genomes from which a search with ``network`` cannot start.

    Raises:
        WarmStartRefused: another network, or a genome too long to have children.
    """
    for genome in genomes:
        if genome.network != network:
            raise WarmStartRefused(
                f"warmStart: expected genomes of the network {network} ({DIALECT}), which this "
                f"Experiment's environment and policy mean, but {source} has genomes of "
                f"{genome.network}: name another source, or give both the same policy and "
                "observation and action sizes"
            )
        if genome.text_bytes + LONGEST_MUTATION_BYTES > MAX_TEXT_BYTES:
            raise WarmStartRefused(
                f"warmStart: a genome of {source} has {genome.text_bytes:,} bytes of text and "
                f"could not have children, the limit is {MAX_TEXT_BYTES:,}: name a source, or one "
                "of its generations, with a shorter history"
            )
