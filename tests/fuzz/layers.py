"""Archives of layers, folded: a header block is mostly zeros and its checksum would catch every change before the parser sees it.

A record is 24 bytes and what follows them: the type's index, flags, the lengths of a name, a target and a body, the size that is told,
and bytes for two of the header's numbers. `unfold` makes the blocks of it.
"""

import io
from collections.abc import Hashable
from random import Random
from typing import Final

from tests.unit.images.reader import Reader
from tests.unit.images.tars import block, padded, record, records
from utilityvm.images.layer import convert
from utilityvm.images.limits import Limits
from utilityvm.kit.errors import BadArchive, Unsupported

from .mutate import Form

KINDS: Final = b"0125346xgLKS7V\0M"
LIMITS: Final = Limits(archive_bytes=1 << 20, image_bytes=8 << 20, entries=100, depth=20, kept_bytes=100_000)
HEAD: Final = 24
OLD, ENDED = 1, 2


def size(data: memoryview) -> int:
    return HEAD + data[2] + data[3] + int.from_bytes(data[4:6], "little") if len(data) >= HEAD else len(data)


FORM: Final = Form(size, ((0, 1), (1, 1), (2, 1), (3, 1), (4, 2), (6, 4), (10, 8), (18, 4)))


def fold(kind: bytes, name: bytes, body: bytes = b"", target: bytes = b"", told: int | None = None, flags: int = 0) -> bytes:
    length = len(body) if told is None else told
    head = bytes([KINDS.index(kind), flags, len(name), len(target)]) + len(body).to_bytes(2, "little") + length.to_bytes(4, "little")
    return head + b"0000755\0" + bytes(6) + name + target + body


def unfold(data: bytes) -> bytes:
    out, at = [], 0
    while at + HEAD <= len(data):
        head = data[at : at + HEAD]
        name_end = at + HEAD + head[2]
        target_end = name_end + head[3]
        end = target_end + int.from_bytes(head[4:6], "little")
        name, target, body = data[at + HEAD : name_end][:100], data[name_end:target_end][:100], data[target_end:end]
        old = {"at_257": b"ustar  \0", "at_386": data[at + HEAD : end][:97]} if head[1] & OLD else {}
        fields = {"at_100": head[10:18], "at_329": head[18:22], **old}
        out.append(
            block(name, KINDS[head[0] % len(KINDS)].to_bytes(1, "big"), int.from_bytes(head[6:10], "little"), at_157=target, **fields)
        )
        out.append(padded(body))
        at = end
        if head[1] & ENDED:
            break
    return b"".join(out) + bytes(1024)


SPARSE: Final = records(GNU__sparse__major=b"1", GNU__sparse__realsize=b"9000", GNU__sparse__name=b"s")
SEEDS: Final = (
    fold(b"5", b"d/")
    + fold(b"0", b"d/f", b"hello")
    + fold(b"2", b"l", target=b"d")
    + fold(b"0", b"l/g", b"x")
    + fold(b"1", b"h", target=b"d/f"),
    fold(b"0", b"d/.wh.x") + fold(b"0", b"d/.wh..wh..opq") + fold(b"5", b"d/x") + fold(b"3", b"c") + fold(b"4", b"b") + fold(b"6", b"p"),
    fold(b"x", b"", records(path=b"long", mtime=b"-1.5", uid=b"7", size=b"3"))
    + fold(b"0", b"x", b"abc")
    + fold(b"g", b"", records(gid=b"5")),
    fold(b"x", b"", record(b"SCHILY.xattr.user.a", b"1") + record(b"LIBARCHIVE.xattr.user.b", b"YQ")) + fold(b"0", b"x"),
    fold(b"L", b"", b"a/b/c\0") + fold(b"K", b"", b"../../t\0") + fold(b"2", b"x") + fold(b"1", b"y", target=b"a/b/c"),
    fold(b"x", b"", SPARSE) + fold(b"0", b"s", padded(b"2\n0\n5\n8192\n3\n") + b"hellobye"),
    fold(b"x", b"", records(GNU__sparse__map=b"0,5,8192,3", GNU__sparse__size=b"9000")) + fold(b"0", b"s", b"hellobye"),
    fold(b"S", b"00000000000\x0000000000005\0" * 4, b"hello", flags=OLD),
    fold(b"0", b"a") + fold(b"0", b"a/b") + fold(b"5", b"a") + fold(b"0", b"a/../../b"),
)


def check_layers(data: bytes, _chance: Random) -> Hashable:
    """An image comes out, in its form, or a refusal that has a name or steers no terminal."""
    return (outcome(data), outcome(unfold(data)))


def outcome(archive: bytes) -> str:
    out = io.BytesIO()
    try:
        converted = convert(io.BytesIO(archive), out, LIMITS)
    except (BadArchive, Unsupported) as error:
        refused = error.message
    else:
        image = Reader(out.getvalue())
        assert len(image.files) >= converted.entries
        shown = {f"{file.mode >> 12}{file.links > 1}{bool(file.xattrs)}{bool(file.holes)}" for file in image.files.values()}
        return ",".join(sorted(shown))
    assert refused.isprintable()
    assert len(refused) < 1000
    return "".join(c for c in refused.split(": ", 1)[-1] if c.isalpha() or c == " ")[:50]
