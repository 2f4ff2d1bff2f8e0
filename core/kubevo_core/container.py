"""The sealed container around a checkpoint: whose it is, how long, and proof that no bit changed.

::

    offset  bytes
    0       8      magic              "KUBEVOCK"          ┐ the fixed head: the same in every
    8       2      version            u16                 │ version, with its own checksum, so
    10      4      crc32 of 0…9       u32                 ┘ that a named version is a true one
    14      2      length of the uid  u16 = u
    16      u      uid                UTF-8
    16+u    4      repeat             u32
    20+u    4      generation         u32
    24+u    8      length of payload  u64 = n
    32+u    n      payload
    32+u+n  32     sha256 of everything before it

All numbers are little-endian; nothing follows the digest. A flipped bit anywhere is corruption,
also in the version: only an intact head may accuse its file of being too new.
"""

import hashlib
import struct
import zlib
from dataclasses import dataclass

from kubevo_core.errors import CheckpointCorrupt, CheckpointVersionError

__all__ = ["Header", "open_sealed", "seal"]

MAGIC = b"KUBEVOCK"
VERSION = 1
_HEAD = struct.Struct("<8sH")
_CHECKSUM = struct.Struct("<I")
_UID_LENGTH = struct.Struct("<H")
_FIELDS = struct.Struct("<IIQ")
_HEAD_BYTES = _HEAD.size + _CHECKSUM.size
_DIGEST_BYTES = hashlib.sha256().digest_size
_CURE = "an older checkpoint of the same run may verify"


@dataclass(frozen=True)
class Header:
    """Whose checkpoint it is: the Experiment's uid, the repeat and the finished generation."""

    uid: str
    repeat: int
    generation: int


def seal(header: Header, payload: bytes) -> bytes:
    """Return ``payload`` in a container that any single changed byte betrays.

    Raises:
        ValueError: a field of ``header`` does not fit its place.
    """
    uid = header.uid.encode()
    if len(uid) > 0xFFFF or not all(0 <= n < 2**32 for n in (header.repeat, header.generation)):
        raise ValueError(
            f"expected a uid of at most 65535 bytes and 32-bit numbers, got {len(uid)} bytes, "
            f"repeat {header.repeat}, generation {header.generation}"
        )
    head = _HEAD.pack(MAGIC, VERSION)
    before = b"".join(
        (
            head,
            _CHECKSUM.pack(zlib.crc32(head)),
            _UID_LENGTH.pack(len(uid)),
            uid,
            _FIELDS.pack(header.repeat, header.generation, len(payload)),
        )
    )
    digest = hashlib.sha256(before)
    digest.update(payload)
    return b"".join((before, payload, digest.digest()))


def open_sealed(data: bytes) -> tuple[Header, bytes]:
    """Return the header and the payload of a container that verifies.

    Raises:
        CheckpointVersionError: an intact head names a version that this program does not read.
        CheckpointCorrupt: truncated, of another kind, or changed since it was sealed.
    """
    _check_head(data)
    try:
        (uid_bytes,) = _UID_LENGTH.unpack_from(data, _HEAD_BYTES)
        uid_start = _HEAD_BYTES + _UID_LENGTH.size
        fields_start = uid_start + uid_bytes
        repeat, generation, payload_bytes = _FIELDS.unpack_from(data, fields_start)
    except struct.error as exc:
        raise _truncated("its header", len(data)) from exc
    payload_start = fields_start + _FIELDS.size
    expected = payload_start + payload_bytes + _DIGEST_BYTES
    if len(data) != expected:
        raise _truncated(f"{expected} bytes", len(data))
    view = memoryview(data)
    if hashlib.sha256(view[:-_DIGEST_BYTES]).digest() != data[-_DIGEST_BYTES:]:
        raise CheckpointCorrupt(f"a checkpoint's sha256 is not that of its bytes; {_CURE}")
    try:
        uid = data[uid_start:fields_start].decode()
    except UnicodeDecodeError as exc:
        raise CheckpointCorrupt(f"a checkpoint's uid is not UTF-8; {_CURE}") from exc
    return Header(uid, repeat, generation), data[payload_start:-_DIGEST_BYTES]


def _check_head(data: bytes) -> None:
    if len(data) < _HEAD_BYTES:
        raise _truncated(f"at least {_HEAD_BYTES} bytes", len(data))
    magic, version = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise CheckpointCorrupt(
            f"expected a checkpoint to begin with {MAGIC!r}, found {magic!r}; {_CURE}"
        )
    (checksum,) = _CHECKSUM.unpack_from(data, _HEAD.size)
    if checksum != zlib.crc32(data[: _HEAD.size]):
        raise CheckpointCorrupt(f"the checksum of a checkpoint's fixed head is wrong; {_CURE}")
    if version != VERSION:
        raise CheckpointVersionError(
            f"a checkpoint has container version {version}, this program reads {VERSION}: "
            "resume it with the program that wrote it, or a newer one"
        )


def _truncated(expected: str, actual: int) -> CheckpointCorrupt:
    return CheckpointCorrupt(
        f"expected {expected} of a checkpoint, found {actual} bytes: truncated or changed; {_CURE}"
    )
