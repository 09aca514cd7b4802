"""An empty qcow2 image, to lie over another file: what is not written to it is read from there. Pure."""

import struct
from typing import Final

CLUSTER_BITS: Final = 16
CLUSTER: Final = 1 << CLUSTER_BITS
"""Bytes that are copied up from below with the first write to one of them."""

_MAGIC, _VERSION, _HEADER = b"QFI\xfb", 3, 104
_REFCOUNT_ORDER: Final = 4  # 16 bits each
_ENTRY: Final = 8  # bytes of an entry in a table


def overlay(size: int) -> bytes:
    """Return how an image of `size` bytes begins to which nothing has been written; more is not needed of it.

    It names no file below: whoever opens it says which that is.
    """
    covered = CLUSTER * (CLUSTER // _ENTRY)  # by one entry of the first table
    entries = -(-size // covered)
    table = -(-entries * _ENTRY // CLUSTER)  # clusters
    used = 3 + table  # header, table and block of reference counts, and the first table
    numbers = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(_MAGIC, _VERSION, 0, 0, CLUSTER_BITS, size, 0),
        *(entries, 3 * CLUSTER, CLUSTER, 1, 0, 0),
        *(0, 0, 0, _REFCOUNT_ORDER, _HEADER),
    )
    counts = struct.pack(">Q", 2 * CLUSTER), struct.pack(f">{used}H", *[1] * used)
    return b"".join(part.ljust(CLUSTER, b"\0") for part in (numbers, *counts)) + bytes(table * CLUSTER)
