"""A genome: the short list of seeds that any worker decodes into the same weights.

::

    kubevo-1:large-dqn-18:7:11*0.002,2769946857*0.002
    └dialect └network     │ └mutation seed*sigma, in the order applied
                          └init seed
    kubevo-1:mlp-4-16-2:7                               (an unmutated one has no last part)

The digest is the sha256 of that ASCII text, lower-case hex. Seeds are 32-bit; sigma is a canonical
decimal from 0.000001 to 10, kept verbatim, because its text is part of the identity.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kubevo_core.errors import GenomeError
from kubevo_core.networks import network

__all__ = [
    "DIALECT",
    "MAX_TEXT_BYTES",
    "Genome",
    "Mutation",
    "canonical_sigma",
    "from_json",
    "parse",
]

DIALECT = "kubevo-1"
MAX_TEXT_BYTES = 512 * 1024
_SIGMA = re.compile(r"(0|[1-9][0-9]?)(\.[0-9]{1,6})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Mutation:
    """One Gaussian step: a 32-bit seed and its power sigma, a canonical decimal string."""

    seed: int
    sigma: str

    def __str__(self) -> str:
        return f"{self.seed}*{self.sigma}"


@dataclass(frozen=True)
class Genome:
    """A network id, the seed of its first weights, and the mutations applied since."""

    network: str
    init_seed: int
    mutations: tuple[Mutation, ...] = ()

    @cached_property
    def _hash(self) -> Any:
        # A child copies its parent's running hash, so a digest costs one mutation, not a lineage.
        return hashlib.sha256(self.text.encode("ascii"))

    @cached_property
    def digest(self) -> str:
        """sha256 of the text, 64 lower-case hex characters."""
        found: str = self._hash.hexdigest()
        return found

    @property
    def text(self) -> str:
        """The one-line form."""
        head = f"{DIALECT}:{self.network}:{self.init_seed}"
        return f"{head}:{','.join(map(str, self.mutations))}" if self.mutations else head

    @cached_property
    def text_bytes(self) -> int:
        """Length of the text in bytes."""
        return len(self.text)

    def child(self, mutation: Mutation) -> "Genome":
        """Return this genome with one more mutation."""
        suffix = f"{',' if self.mutations else ':'}{mutation}"
        child = Genome(self.network, self.init_seed, (*self.mutations, mutation))
        running = self._hash.copy()
        running.update(suffix.encode("ascii"))
        child.__dict__["_hash"] = running
        child.__dict__["text_bytes"] = self.text_bytes + len(suffix)
        return child

    def ancestor_digests(self) -> Iterator[str]:
        """Yield the digests of the ancestors, from the unmutated one up to the parent."""
        running = Genome(self.network, self.init_seed)._hash.copy()
        for index, mutation in enumerate(self.mutations):
            yield running.hexdigest()
            running.update(f"{',' if index else ':'}{mutation}".encode("ascii"))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form: dialect, network, initSeed, mutations, digest."""
        return {
            "dialect": DIALECT,
            "network": self.network,
            "initSeed": self.init_seed,
            "mutations": [{"seed": m.seed, "sigma": m.sigma} for m in self.mutations],
            "digest": self.digest,
        }


def canonical_sigma(text: str) -> str:
    """Return ``text`` if it is a canonical sigma.

    Raises:
        ValueError: it is not a decimal from 0.000001 to 10 without exponent or trailing zeros.
    """
    match = _SIGMA.fullmatch(text)
    fraction = match[2] if match else None
    if (
        match is None
        or (fraction is not None and fraction.endswith("0"))
        or not 0 < float(text) <= 10
    ):
        raise ValueError(
            "expected a decimal from 0.000001 to 10 with at most six decimals, no exponent and no "
            f'trailing zeros, such as "0.002", got {text[:40]!r}'
        )
    return text


def _seed(text: str, where: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 10 or str(int(text)) != text:
        raise GenomeError(f"{where}: expected an integer from 0 to 4294967295, got {text[:40]!r}")
    value = int(text)
    if value > 0xFFFF_FFFF:
        raise GenomeError(f"{where}: expected an integer from 0 to 4294967295, got {value}")
    return value


def _mutation(text: str, index: int) -> Mutation:
    seed, star, sigma = text.partition("*")
    where = f"mutation {index} of the genome"
    if not star:
        raise GenomeError(f"{where}: expected <seed>*<sigma>, got {text[:40]!r}")
    try:
        return Mutation(_seed(seed, where), canonical_sigma(sigma))
    except ValueError as exc:
        raise GenomeError(f"{where}: {exc}") from exc


def parse(text: str) -> Genome:
    """Read a genome's one-line form (surrounding white space is dropped).

    Raises:
        GenomeError: unknown dialect or network, or any part out of form.
    """
    text = text.strip()
    if len(text) > MAX_TEXT_BYTES:
        raise GenomeError(f"the genome text has {len(text)} bytes, more than {MAX_TEXT_BYTES}")
    dialect, *parts = text.split(":")
    if dialect != DIALECT:
        raise GenomeError(
            f"unknown genome dialect {dialect[:40]!r}: this version reads {DIALECT!r}; "
            "decode it with the program that wrote it"
        )
    if len(parts) not in (2, 3):
        raise GenomeError(
            f"expected {DIALECT}:<network>:<init seed>[:<seed>*<sigma>,…], got {text[:80]!r}"
        )
    identifier = network(parts[0]).id
    chain = parts[2].split(",") if len(parts) == 3 else []
    mutations = tuple(_mutation(item, index) for index, item in enumerate(chain, start=1))
    return Genome(identifier, _seed(parts[1], "the genome's init seed"), mutations)


def from_json(text: str) -> Genome:
    """Read the JSON form and check its digest.

    Raises:
        GenomeError: not JSON, unknown dialect, a field missing or out of form, or another digest.
    """
    try:
        document = json.loads(text)
        dialect = document["dialect"]
        if dialect != DIALECT:
            raise GenomeError(
                f"unknown genome dialect {str(dialect)[:40]!r}: this version reads {DIALECT!r}"
            )
        chain = ",".join(f"{item['seed']}*{item['sigma']}" for item in document["mutations"])
        head = f"{dialect}:{document['network']}:{document['initSeed']}"
        genome = parse(f"{head}:{chain}" if chain else head)
        expected = document.get("digest", genome.digest)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise GenomeError(f"not a genome in JSON: {type(exc).__name__}: {exc}") from exc
    if expected != genome.digest:
        raise GenomeError(
            f"the genome's digest is {genome.digest}, but its JSON says {str(expected)[:70]}: it "
            "was changed after it was written"
        )
    return genome
