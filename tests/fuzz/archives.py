"""Archives of images and the documents in them: whatever they say, they are read within bounds or refused."""

import io
import re
from collections.abc import Hashable
from random import Random
from typing import Final

from tests.unit.images.samples import Sample, link, tar
from utilityvm.images.formats import Index, decode_config, decode_manifest
from utilityvm.images.outer import entries, follow
from utilityvm.kit.errors import Corrupt, Unsupported

from .mutate import Form

HEADER: Final = Form(
    size=lambda _: 512, fields=((0, 100), (100, 8), (124, 12), (124, 1), (148, 8), (156, 1), (157, 100), (257, 6), (345, 155))
)
SEEDS: Final = (
    tar({"index.json": b"{}"})[:1024],
    tar({"a": link("b"), "b": link("a")})[:1024],
    tar({"x" * 120: b""})[:1024],
)
DOCUMENTS: Final = (Sample().manifest_blob, Sample().config_blob, Sample().layout()["index.json"])


def why(error: Exception) -> str:
    said = re.sub("[0-9]+|'.*", "", str(error))
    return f"{type(error).__name__}: {said[:60]}"


def summed(data: bytes) -> bytes:
    """The same with checksums that are right: a wrong one ends the reading before anything else is looked at."""
    out = bytearray(data)
    for at in range(0, len(out) - 511, 512):
        if out[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b"        "
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


def check_archives(data: bytes, chance: Random) -> Hashable:
    found = {}
    data = summed(data) if chance.random() < 0.9 else data
    try:
        for name, place in entries(io.BytesIO(data), "a"):
            if place:
                assert 0 <= place.offset <= place.offset + place.size <= len(data)
                found[name] = place
        for name in found:
            follow(found, name, "a")
    except Corrupt as error:
        return why(error), len(found)
    return len(found)


def check_documents(data: bytes, _chance: Random) -> Hashable:
    manifest = decode_manifest(DOCUMENTS[0], "m")
    assert not isinstance(manifest, Index)
    seen: list[Hashable] = []
    for read in (lambda: decode_manifest(data, "m"), lambda: decode_config(data, manifest, "c").image_config()):
        try:
            seen.append(type(read()).__name__)
        except (Corrupt, Unsupported) as error:
            seen.append(why(error))
    return tuple(seen)
