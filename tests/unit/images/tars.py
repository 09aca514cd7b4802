"""Archives for tests: ordinary ones by Python's own writer, and blocks by hand for what no honest writer makes."""

import io
import tarfile
from dataclasses import dataclass, field

from utilityvm.images.layer import Converted, convert
from utilityvm.images.limits import LIMITS, Limits

from .reader import Reader

END = bytes(1024)


@dataclass
class Item:
    """An entry; `data` is a regular file's."""

    name: str
    data: bytes = b""
    type: bytes = tarfile.REGTYPE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: float = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    pax: dict[str, str] = field(default_factory=dict)


def folder(name: str, mode: int = 0o755) -> Item:
    return Item(name, type=tarfile.DIRTYPE, mode=mode)


def link(name: str, target: str) -> Item:
    return Item(name, type=tarfile.SYMTYPE, target=target)


def hard_link(name: str, target: str) -> Item:
    return Item(name, type=tarfile.LNKTYPE, target=target)


def archive(*items: Item, format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002 (tarfile's own name)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for item in items:
            info = tarfile.TarInfo(item.name)
            info.type, info.mode, info.uid, info.gid, info.mtime = item.type, item.mode, item.uid, item.gid, item.mtime
            info.linkname, info.size, info.pax_headers = item.target, len(item.data), item.pax
            info.devmajor, info.devminor = item.device
            tar.addfile(info, io.BytesIO(item.data))
    return out.getvalue()


def block(name: bytes, kind: bytes = b"0", size: bytes | int = 0, **fields: bytes) -> bytes:
    """A header block by hand; `fields` are its bytes at ``at_OFFSET``. Its checksum is right."""
    told = size if isinstance(size, bytes) else b"%011o\0" % size
    header = bytearray(512)
    header[0 : len(name)] = name
    header[100:108], header[108:116], header[116:124], header[124:136], header[136:148] = b"0000644\0", bytes(8), bytes(8), told, bytes(12)
    header[156:157] = kind
    header[257:265] = b"ustar\x0000"
    for place, value in fields.items():
        at = int(place.removeprefix("at_"))
        header[at : at + len(value)] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def records(**values: bytes) -> bytes:
    """Extended records, with ``__`` for a point in their keys."""
    return b"".join(record(key.replace("__", ".").encode(), value) for key, value in values.items())


def record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def extended(body: bytes, kind: bytes = b"x") -> bytes:
    return block(b"PaxHeaders/x", kind, len(body)) + padded(body)


def made(data: bytes, limits: Limits = LIMITS) -> tuple[Converted, Reader]:
    """The image of an archive, read back."""
    out = io.BytesIO()
    converted = convert(io.BytesIO(data), out, limits)
    image = out.getvalue()
    assert len(image) == converted.size
    return converted, Reader(image)
