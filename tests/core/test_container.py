"""The checkpoint container: what goes in comes out, and any change is noticed and named."""

import hashlib
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubevo_core.container import Header, open_sealed, seal
from kubevo_core.errors import CheckpointCorrupt, CheckpointVersionError

HEADER = Header("0a1b2c3d-0000-4000-8000-000000000001", 3, 17)
NUMBERS = st.integers(0, 2**32 - 1)
# Surrogates have no UTF-8 form; a uid is plain text.
HEADERS = st.builds(
    Header, st.text(st.characters(exclude_categories=["Cs"]), max_size=60), NUMBERS, NUMBERS
)


def versioned(version: int, *, rest: bytes = b"whatever a newer one holds") -> bytes:
    head = struct.pack("<8sH", b"KUBEVOCK", version)
    return head + struct.pack("<I", zlib.crc32(head)) + rest


@given(HEADERS, st.binary(max_size=300))
def test_what_was_sealed_comes_out(header, payload):
    assert open_sealed(seal(header, payload)) == (header, payload)


def test_the_layout_is_the_drawn_one():
    sealed = seal(Header("ab", 1, 2), b"xyz")
    head = b"KUBEVOCK\x01\x00"
    before = head + struct.pack("<IH2sIIQ3s", zlib.crc32(head), 2, b"ab", 1, 2, 3, b"xyz")
    assert sealed == before + hashlib.sha256(before).digest()


def test_every_flipped_bit_of_a_small_file_is_corruption():
    sealed = seal(Header("uid-1", 0, 5), b"payload")
    for position in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[position] ^= 1 << bit
            with pytest.raises(CheckpointCorrupt):
                open_sealed(bytes(changed))


@given(HEADERS, st.binary(max_size=200), st.data())
def test_any_changed_byte_is_corruption(header, payload, data):
    changed = bytearray(seal(header, payload))
    position = data.draw(st.integers(0, len(changed) - 1))
    changed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CheckpointCorrupt):
        open_sealed(bytes(changed))


def test_every_truncation_is_corruption():
    sealed = seal(HEADER, b"some payload")
    for length in range(len(sealed)):
        with pytest.raises(CheckpointCorrupt):
            open_sealed(sealed[:length])


def test_bytes_after_the_digest_are_corruption():
    with pytest.raises(CheckpointCorrupt, match="found"):
        open_sealed(seal(HEADER, b"payload") + b"\0")


@pytest.mark.parametrize("version", [0, 2, 3, 0xFFFF])
def test_another_version_is_refused_by_its_number(version):
    with pytest.raises(CheckpointVersionError, match=rf"version {version}, this program reads 1"):
        open_sealed(versioned(version))


def test_a_file_of_another_kind_is_not_called_a_version():
    with pytest.raises(CheckpointCorrupt, match="begin with"):
        open_sealed(b"PK\x03\x04" + bytes(100))


def test_zeros_are_corruption():
    with pytest.raises(CheckpointCorrupt):
        open_sealed(bytes(4096))


@pytest.mark.parametrize(
    "header", [Header("u", -1, 0), Header("u", 0, 2**32), Header("u" * 70_000, 0, 0)]
)
def test_a_header_that_does_not_fit_is_refused(header):
    with pytest.raises(ValueError, match="expected"):
        seal(header, b"")
