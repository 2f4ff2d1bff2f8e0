"""NATS keys: Ed25519, as texts that say by their first letters whose they are and what they are.

::

    seed    base32(10010 kkk kkkkk 000 | 32 secret bytes | crc16)    SO… SA… SU…   58 characters
    public  base32(kkkkk kkk           | 32 public bytes | crc16)    O…  A…  U…    56 characters

k is the kind; the checksum is CRC-16/XMODEM, low byte first. The bus signs with a user's key when
it connects, the operator signs the broker's accounts and users with keys of its own.
"""

import base64
import binascii
from dataclasses import dataclass, field
from enum import Enum

from nacl.signing import SigningKey

__all__ = ["Key", "Kind"]

SEED_PREFIX = 18 << 3
SECRET_BYTES = 32
SEED_BYTES = 2 + SECRET_BYTES + 2
SEED_CHARACTERS = 58


class Kind(Enum):
    """Whose a key is; the values are NATS's."""

    ACCOUNT = 0
    OPERATOR = 14 << 3
    USER = 20 << 3

    @property
    def prefix(self) -> str:
        """The first two characters of a seed of this kind."""
        return base64.b32encode(_seed_header(self) + bytes(3)).decode()[:2]


@dataclass(frozen=True)
class Key:
    """A key pair: its kind and its 32 secret bytes, which no representation shows."""

    kind: Kind
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != SECRET_BYTES:
            raise ValueError(f"expected {SECRET_BYTES} secret bytes, got {len(self.secret)}")

    @property
    def seed(self) -> str:
        """The secret text that the pair is made from."""
        return _text(_seed_header(self.kind) + self.secret)

    @property
    def public(self) -> str:
        """The text that names the key's owner."""
        return _text(bytes([self.kind.value]) + bytes(SigningKey(self.secret).verify_key))

    def sign(self, body: bytes) -> bytes:
        """Return the signature of ``body``: 64 bytes, always the same ones."""
        return bytes(SigningKey(self.secret).sign(body).signature)

    @staticmethod
    def parse(seed: str, kind: Kind) -> "Key":
        """Read the seed of a key of one kind.

        Raises:
            ValueError: it is not one; the message does not show it.
        """
        wanted = f"expected an {kind.name.lower()}'s NATS seed ({kind.prefix}…, {SEED_CHARACTERS} "
        wanted += "characters)"
        try:
            found = base64.b32decode(seed.encode("ascii") + b"=" * (-len(seed) % 8))
        except (UnicodeError, binascii.Error):
            found = b""
        if len(found) != SEED_BYTES or _text(found[:-2]) != seed:
            raise ValueError(f"{wanted}, got {len(seed)} characters that are no seed")
        if found[:2] != _seed_header(kind):
            raise ValueError(f"{wanted}, got a seed of another kind ({seed[:2]}…)")
        return Key(kind, found[2:-2])


def _seed_header(kind: Kind) -> bytes:
    return bytes([SEED_PREFIX | kind.value >> 5, (kind.value & 31) << 3])


def _text(body: bytes) -> str:
    checksum = binascii.crc_hqx(body, 0).to_bytes(2, "little")
    return base64.b32encode(body + checksum).rstrip(b"=").decode()
