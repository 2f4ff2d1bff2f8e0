"""What is already certain about a generation while results are still missing.

The engine has no barrier: it hands out work as soon as no missing result can change it. Both
functions bound every possible completion from what is known, so an answer given once stays true
(monotone). Digests stand for genomes: one genome in several slots counts once.

The parents of the next generation are the elite e and then the first T-1 other digests of the
ranking D. So with the ranking complete, D[:T-1] are parents whoever e is; D[T-1] is one exactly if
e is among D[:T]; and only an elite can come from elsewhere.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Validation", "certain_candidates", "possible_parents"]


@dataclass(frozen=True, slots=True)
class Validation:
    """What is known of a candidate's validation: nothing yet, its mean, or that it failed."""

    mean: float | None = None
    failed: bool = False


def _displaced(
    ranked: Sequence[str], missing: Collection[str], carried: str | None
) -> list[tuple[str, int, int]]:
    """Return (digest, fewest, most): how many others may end up before it, the carried one aside."""
    unknown = set(missing) - {carried}
    found: list[tuple[str, int, int]] = []
    for digest in ranked:
        if digest == carried:
            continue
        unknown.discard(digest)
        found.append((digest, len(found), len(found) + len(unknown)))
        # A digest that is ranked and has a second, missing slot is counted by its rank from here.
    return found


def certain_candidates(
    ranked: Sequence[str], missing: Collection[str], carried: str | None, most: int
) -> list[str]:
    """Return the digests that are validated whatever the missing evaluations give.

    ``ranked`` are the distinct digests ranked so far, best first; ``missing`` those with an
    unfinished slot; ``most`` is the number of candidates C, the carried elite included.
    """
    room = most - (carried is not None)
    certain = [d for d, _, worst in _displaced(ranked, missing, carried) if worst < room]
    return [carried, *certain] if carried is not None else certain


def _possible_elites(
    ranked: Sequence[str],
    missing: Collection[str],
    carried: str | None,
    most: int,
    validations: Mapping[str, Validation],
) -> set[str]:
    room = most - (carried is not None)
    certain = certain_candidates(ranked, missing, carried, most)
    unknown = Validation()
    best: str | None = None
    for digest in certain:  # in candidate order, so that a tie keeps the earlier one
        mean = validations.get(digest, unknown).mean
        if mean is not None and (best is None or mean > (validations[best].mean or 0.0)):
            best = digest
    best_mean = validations[best].mean if best is not None else None

    possible = {d for d, fewest, _ in _displaced(ranked, missing, carried) if fewest < room}
    possible.update(missing, certain)
    elites: set[str] = set()
    for digest in possible:
        known = validations.get(digest, unknown)
        if known.failed:
            # The carried elite stays when nobody is eligible.
            if digest == carried and best is None:
                elites.add(digest)
        elif known.mean is None or digest == best or (missing and known.mean == best_mean):
            # While evaluations are missing, the order of candidates with equal means may change.
            elites.add(digest)
    return elites


def possible_parents(
    ranked: Sequence[str],
    missing: Collection[str],
    carried: str | None,
    candidates: int,
    parents: int,
    validations: Mapping[str, Validation],
) -> tuple[set[str], set[str]]:
    """Return all digests that may become parents, and those that certainly will.

    Arguments as in `certain_candidates`; ``candidates`` is C, ``parents`` is T, the elite included.
    """
    elites = _possible_elites(ranked, missing, carried, candidates, validations)
    unknown = set(missing)
    if len(unknown) >= parents > 1 or (unknown and parents == 1):
        return set(), set()  # nothing can be certain yet; the union is of no use then
    position = {digest: index for index, digest in enumerate(ranked)}
    earliest_elite = min((position.get(e, len(ranked)) for e in elites), default=len(ranked))
    union = set(elites)
    if parents > 1:
        union |= unknown
    for index, digest in enumerate(ranked):
        # An elite before this one takes no place of its own in the ranking's part.
        if index - (earliest_elite < index) > parents - 2:
            break
        union.add(digest)
    certain = _certain_parents(ranked, unknown, elites, parents)
    if len(elites) == 1:
        certain |= elites
    return union, certain & union


def _certain_parents(
    ranked: Sequence[str], missing: Collection[str], elites: set[str], parents: int
) -> set[str]:
    """Return the ranked digests that are parents in every completion."""
    position = {digest: index for index, digest in enumerate(ranked)}
    unknown = set(missing)
    certain: set[str] = set()
    for index, digest in enumerate(ranked[: parents + 1]):
        unknown.discard(digest)  # ranked already: it is counted by its rank
        before = index + len(unknown)
        if before <= parents - 2 or elites == {digest}:
            certain.add(digest)
        elif before == parents - 1:
            # Then it is a parent unless an elite from behind it takes a place of its own.
            others = elites - {digest}
            if all(e in unknown or position.get(e, len(ranked)) < index for e in others):
                certain.add(digest)
    return certain
