"""9P2000.L, the protocol of file shares, from the server's end: requests that a guest may send, and the answers to them.

Integers are little-endian; a string is two bytes of length and its bytes, which nobody has promised to be text. A message is
``size[4] type[1] tag[2]`` and what its type says; `size` counts itself. What does not have exactly that form is refused.
"""

import errno
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import Final, final

import msgspec
from msgspec.structs import astuple, replace

from utilityvm.kit.errors import ProtocolError

VERSION: Final = b"9P2000.L"

HEADER: Final = 7
"""Bytes of a message before what its type says."""

IO_HEADER: Final = HEADER + 4
"""Bytes of an answer to a read before its data."""

MIN_MSIZE: Final = 4096
"""The shortest limit of messages, in bytes, that a guest may ask for."""

MAX_MSIZE: Final = 512 * 1024
"""The longest message, in bytes. A guest that asks for more gets this."""

FIRST_MSIZE: Final = 8192
"""The longest message, in bytes, before a limit is agreed on."""

MAX_NAME: Final = 255
"""Bytes of a name in a folder."""

MAX_WALK: Final = 16
"""Names in one request to walk."""

MAX_PATH: Final = 4095
"""Bytes of what a symbolic link says."""

MAX_XATTR: Final = 64 * 1024
"""Bytes of an extended attribute."""

NO_FID: Final = 0xFFFF_FFFF
NO_ID: Final = 0xFFFF_FFFF


class Type(IntEnum):
    """What a request asks for; its answer has the next number. A number of the wire, compared as one."""

    STATFS = 8
    LOPEN = 12
    LCREATE = 14
    SYMLINK = 16
    MKNOD = 18
    RENAME = 20
    READLINK = 22
    GETATTR = 24
    SETATTR = 26
    XATTRWALK = 30
    XATTRCREATE = 32
    READDIR = 40
    FSYNC = 50
    LOCK = 52
    GETLOCK = 54
    LINK = 70
    MKDIR = 72
    RENAMEAT = 74
    UNLINKAT = 76
    VERSION = 100
    AUTH = 102
    ATTACH = 104
    FLUSH = 108
    WALK = 110
    READ = 116
    WRITE = 118
    CLUNK = 120
    REMOVE = 122


RLERROR: Final = 7
"""The type of an answer that is a number of an error."""


class Statfs(msgspec.Struct, frozen=True):
    """How full the file system is."""

    fid: int


class Lopen(msgspec.Struct, frozen=True):
    """Open what `fid` stands for."""

    fid: int
    flags: int


class Lcreate(msgspec.Struct, frozen=True):
    """Create a file in the folder `fid`, which then stands for the file, open."""

    fid: int
    name: bytes
    flags: int
    mode: int
    gid: int


class Symlink(msgspec.Struct, frozen=True):
    """Create a symbolic link."""

    fid: int
    name: bytes
    target: bytes
    gid: int


class Mknod(msgspec.Struct, frozen=True):
    """Create a special file."""

    fid: int
    name: bytes
    mode: int
    major: int
    minor: int
    gid: int


class Rename(msgspec.Struct, frozen=True):
    """Move what `fid` stands for into the folder `folder`."""

    fid: int
    folder: int
    name: bytes


class Readlink(msgspec.Struct, frozen=True):
    """What a symbolic link says."""

    fid: int


class Getattr(msgspec.Struct, frozen=True):
    """Attributes; `mask` says which."""

    fid: int
    mask: int


class Setattr(msgspec.Struct, frozen=True):
    """Change the attributes that `valid` says."""

    fid: int
    valid: int
    mode: int
    uid: int
    gid: int
    size: int
    atime: int
    atime_ns: int
    mtime: int
    mtime_ns: int


class Xattrwalk(msgspec.Struct, frozen=True):
    """Let `new` be an extended attribute to be read; no name: the list of them."""

    fid: int
    new: int
    name: bytes


class Xattrcreate(msgspec.Struct, frozen=True):
    """Let `fid` be an extended attribute to be written."""

    fid: int
    name: bytes
    size: int
    flags: int


class Readdir(msgspec.Struct, frozen=True):
    """Read entries of an open folder."""

    fid: int
    offset: int
    limit: int


class Fsync(msgspec.Struct, frozen=True):
    """Make a file durable."""

    fid: int
    data_only: int


class Lock(msgspec.Struct, frozen=True):
    """Take, or give back, a lock on a range of an open file."""

    fid: int
    kind: int
    flags: int
    start: int
    length: int
    process: int
    client: bytes


class Getlock(msgspec.Struct, frozen=True):
    """Who has a lock that is in the way."""

    fid: int
    kind: int
    start: int
    length: int
    process: int
    client: bytes


class Link(msgspec.Struct, frozen=True):
    """Give `fid` another name, in the folder `folder`."""

    folder: int
    fid: int
    name: bytes


class Mkdir(msgspec.Struct, frozen=True):
    """Create a folder."""

    fid: int
    name: bytes
    mode: int
    gid: int


class Renameat(msgspec.Struct, frozen=True):
    """Move an entry of one folder into another."""

    old_fid: int
    old_name: bytes
    new_fid: int
    new_name: bytes


class Unlinkat(msgspec.Struct, frozen=True):
    """Remove an entry of a folder."""

    fid: int
    name: bytes
    flags: int


class Version(msgspec.Struct, frozen=True):
    """Agree on the protocol and on the longest message; what was open before is closed."""

    msize: int
    version: bytes


class Auth(msgspec.Struct, frozen=True):
    """Ask how to prove who one is."""

    afid: int
    user: bytes
    aname: bytes
    uid: int


class Attach(msgspec.Struct, frozen=True):
    """Let `fid` be the root of the share `aname`, for the user `uid` of the guest."""

    fid: int
    afid: int
    user: bytes
    aname: bytes
    uid: int


class Flush(msgspec.Struct, frozen=True):
    """Give a request up."""

    old_tag: int


class Walk(msgspec.Struct, frozen=True):
    """Let `new` stand for what is reached from `fid` by `names`."""

    fid: int
    new: int
    names: tuple[bytes, ...]


class Read(msgspec.Struct, frozen=True):
    """Read of what is open."""

    fid: int
    offset: int
    limit: int


class Write(msgspec.Struct, frozen=True):
    """Write to what is open. `data` is valid only until the next message is read."""

    fid: int
    offset: int
    data: memoryview


class Clunk(msgspec.Struct, frozen=True):
    """Forget a fid."""

    fid: int


class Remove(msgspec.Struct, frozen=True):
    """Remove what a fid stands for, and forget the fid."""

    fid: int


Request = (
    Statfs | Lopen | Lcreate | Symlink | Mknod | Rename | Readlink | Getattr | Setattr | Xattrwalk | Xattrcreate | Readdir | Fsync | Lock
    | Getlock | Link | Mkdir | Renameat | Unlinkat | Version | Auth | Attach | Flush | Walk | Read | Write | Clunk | Remove
)  # fmt: skip

# Letters as of `struct` for integers; s: a string, n: names, d: data.
_LAYOUTS: Final[Mapping[Type, tuple[Callable[..., Request], str]]] = MappingProxyType(
    {
        Type.STATFS: (Statfs, "I"),
        Type.LOPEN: (Lopen, "II"),
        Type.LCREATE: (Lcreate, "IsIII"),
        Type.SYMLINK: (Symlink, "IssI"),
        Type.MKNOD: (Mknod, "IsIIII"),
        Type.RENAME: (Rename, "IIs"),
        Type.READLINK: (Readlink, "I"),
        Type.GETATTR: (Getattr, "IQ"),
        Type.SETATTR: (Setattr, "IIIIIQQQQQ"),
        Type.XATTRWALK: (Xattrwalk, "IIs"),
        Type.XATTRCREATE: (Xattrcreate, "IsQI"),
        Type.READDIR: (Readdir, "IQI"),
        Type.FSYNC: (Fsync, "II"),
        Type.LOCK: (Lock, "IBIQQIs"),
        Type.GETLOCK: (Getlock, "IBQQIs"),
        Type.LINK: (Link, "IIs"),
        Type.MKDIR: (Mkdir, "IsII"),
        Type.RENAMEAT: (Renameat, "IsIs"),
        Type.UNLINKAT: (Unlinkat, "IsI"),
        Type.VERSION: (Version, "Is"),
        Type.AUTH: (Auth, "IssI"),
        Type.ATTACH: (Attach, "IIssI"),
        Type.FLUSH: (Flush, "H"),
        Type.WALK: (Walk, "IIn"),
        Type.READ: (Read, "IQI"),
        Type.WRITE: (Write, "IQd"),
        Type.CLUNK: (Clunk, "I"),
        Type.REMOVE: (Remove, "I"),
    }
)

_U16: Final = struct.Struct("<H")
_U32: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<IBH")
_QID: Final = struct.Struct("<BIQ")
_ATTRIBUTES: Final = struct.Struct("<QBIQIII15Q")
_ENTRY: Final = struct.Struct("<BIQQBH")

_Step = struct.Struct | str


def _steps(layout: str) -> tuple[_Step, ...]:
    """Cut a layout into what is read at once."""
    steps: list[_Step] = []
    run = ""
    for letter in layout:
        if letter in "snd":
            if run:
                steps.append(struct.Struct(f"<{run}"))
            steps.append(letter)
            run = ""
        else:
            run += letter
    return (*steps, struct.Struct(f"<{run}")) if run else tuple(steps)


_STEPS: Final = {int(kind): (make, _steps(layout)) for kind, (make, layout) in _LAYOUTS.items()}


class Message(msgspec.Struct, frozen=True):
    """A message as it stands in the stream. `body` is valid only until the next one is read."""

    kind: int
    tag: int
    body: memoryview


@final
class MessageReader:
    """Cuts a stream into messages, in a buffer of its own of `limit` bytes: write into `space`, say `filled`, take what `next` gives."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = memoryview(bytearray(limit))
        self._start = self._end = 0

    def space(self) -> memoryview:
        """Where bytes that come next belong; never empty while `next` returned None last."""
        if self._start:
            rest = self._end - self._start
            self._buffer[:rest] = self._buffer[self._start : self._end]
            self._start, self._end = 0, rest
        return self._buffer[self._end :]

    def filled(self, count: int) -> None:
        """So many bytes have come."""
        self._end += count

    def next(self) -> Message | None:
        """Return the next message that is there as a whole.

        Raises:
            ProtocolError: the stream holds none; it cannot be read on.
        """
        have = self._end - self._start
        if have < HEADER:
            return None
        size, kind, tag = _HEAD.unpack_from(self._buffer, self._start)
        if not HEADER <= size <= self._limit:
            raise ProtocolError(f"9p: a message of {size} bytes: there are {HEADER} to {self._limit}")
        if have < size:
            return None
        start = self._start
        self._start += size
        return Message(kind, tag, self._buffer[start + HEADER : start + size])

    def rest(self) -> bytes:
        """What has come and was not taken."""
        return bytes(self._buffer[self._start : self._end])


def decode(message: Message) -> Request:
    """Return what a message asks for.

    Raises:
        NotImplementedError: there is no request of this type.
        ProtocolError: the message is not what its type says.
    """
    known = _STEPS.get(message.kind)
    if known is None:
        raise NotImplementedError(f"9p: type {message.kind}")
    make, steps = known
    body, at = message.body, 0
    values: list[object] = []
    try:
        for step in steps:
            if isinstance(step, struct.Struct):
                values += step.unpack_from(body, at)
                at += step.size
            else:
                value, at = _READ[step](body, at)
                values.append(value)
    except struct.error as error:
        raise ProtocolError(f"9p: a message of type {message.kind} ends in its middle") from error
    if at != len(body):
        raise ProtocolError(f"9p: a message of type {message.kind} with {len(body)} bytes: it has {at}")
    return make(*values)


def _string(body: memoryview, at: int) -> tuple[bytes, int]:
    (size,) = _U16.unpack_from(body, at)
    end = at + 2 + size
    if end > len(body):
        raise struct.error
    return bytes(body[at + 2 : end]), end


def _names(body: memoryview, at: int) -> tuple[tuple[bytes, ...], int]:
    (count,) = _U16.unpack_from(body, at)
    if count > MAX_WALK:
        raise ProtocolError(f"9p: a Walk of {count} names: at most {MAX_WALK}")
    at += 2
    names = []
    for _ in range(count):
        name, at = _string(body, at)
        names.append(name)
    return tuple(names), at


def _data(body: memoryview, at: int) -> tuple[memoryview, int]:
    (size,) = _U32.unpack_from(body, at)
    end = at + 4 + size
    if end > len(body):
        raise struct.error
    return body[at + 4 : end], end


_READ: Final = {"s": _string, "n": _names, "d": _data}

# -- requests, as a client writes them; answers -------------------------------------------------------------------------


def encode(tag: int, request: Request) -> bytes:
    """Return the message that asks for `request`."""
    kind = next(kind for kind, (make, _) in _LAYOUTS.items() if make is type(request))
    out = bytearray()
    for letter, value in zip(_LAYOUTS[kind][1], astuple(request), strict=True):
        match letter, value:
            case "s", bytes(text):
                out += _text(text)
            case "n", tuple(names):
                out += _U16.pack(len(names)) + b"".join(map(_text, names))
            case "d", data if isinstance(data, memoryview | bytes):
                out += _U32.pack(len(data)) + data
            case _:
                out += struct.pack(f"<{letter}", value)
    return message(kind, tag, out)


def message(kind: int, tag: int, body: bytes | bytearray) -> bytes:
    """Return a message of any type."""
    return _HEAD.pack(HEADER + len(body), kind, tag) + body


def answer(kind: int, tag: int, body: bytes = b"") -> bytes:
    """Return the answer to a request of type `kind`."""
    return _HEAD.pack(HEADER + len(body), kind + 1, tag) + body


def failure(tag: int, number: int) -> bytes:
    """Return the answer to a request that failed: `number` is an errno of Linux."""
    return _HEAD.pack(HEADER + 4, RLERROR, tag) + _U32.pack(number)


def io_head(kind: int, tag: int, count: int) -> bytes:
    """Return what stands before the `count` bytes that were read."""
    return _HEAD.pack(IO_HEADER + count, kind + 1, tag) + _U32.pack(count)


def _text(text: bytes) -> bytes:
    return _U16.pack(len(text)) + text


class Qid(msgspec.Struct, frozen=True):
    """What a file is, and which: `path` is the same as long as it exists."""

    kind: int
    path: int

    def packed(self) -> bytes:
        """As it is sent."""
        return _QID.pack(self.kind, 0, self.path)


QID_FOLDER: Final = 0x80
QID_LINK: Final = 0x02
QID_FILE: Final = 0x00

BASIC: Final = 0x7FF
"""The attributes of `attributes`: all that `stat` tells."""


def attributes(qid: Qid, numbers: Sequence[int]) -> bytes:
    """Return the body of an answer to Getattr: mode, uid, gid, links, rdev, size, block size, blocks and the three times with ns."""
    return _ATTRIBUTES.pack(BASIC, qid.kind, 0, qid.path, *numbers, 0, 0, 0, 0)


def entry(qid: Qid, offset: int, kind: int, name: bytes) -> bytes:
    """Return an entry of a folder: `offset` is where the next one begins, `kind` a DT_ number."""
    return _ENTRY.pack(qid.kind, 0, qid.path, offset, kind, len(name)) + name


# -- the beginning of a connection ---------------------------------------------------------------------------------------


class Chosen(msgspec.Struct, frozen=True):
    """A guest that has agreed on messages of at most `msize` bytes attaches to `aname`; `rest` is that request and what follows."""

    aname: bytes
    tag: int
    msize: int
    rest: bytes


@final
class Greeting:
    """The beginning of a connection, up to the first request that names a share: who serves it is not known before."""

    def __init__(self) -> None:
        self._reader = MessageReader(FIRST_MSIZE)
        self._msize = 0

    def feed(self, data: bytes) -> Iterator[bytes | Chosen]:
        """Take bytes of the guest and yield answers to it and, last, its choice, after which nothing may be fed.

        Raises:
            ProtocolError: the guest does not begin as the protocol says.
        """
        view = memoryview(data)
        while True:
            space = self._reader.space()
            piece = view[: len(space)]
            space[: len(piece)] = piece
            self._reader.filled(len(piece))
            view = view[len(piece) :]
            while (came := self._reader.next()) is not None:
                reply = self._message(came)
                if isinstance(reply, Chosen):
                    yield replace(reply, rest=reply.rest + self._reader.rest() + bytes(view))
                    return
                yield reply
            if not view:
                return

    def _message(self, came: Message) -> bytes | Chosen:
        whole = message(came.kind, came.tag, bytes(came.body))
        request = decode(came) if came.kind in _STEPS else None
        match request:
            case Version(msize, version):
                reply, self._msize = agree(came.tag, msize, version)
                return reply
            case Attach() if self._msize:
                return Chosen(request.aname, came.tag, self._msize, whole)
            case Auth():
                return failure(came.tag, errno.EOPNOTSUPP)
        raise ProtocolError(f"9p: a connection that begins with a message of type {came.kind}")


def agree(tag: int, msize: int, version: bytes) -> tuple[bytes, int]:
    """Return the answer to Version and the limit agreed on, 0 when the guest does not speak this version.

    Raises:
        ProtocolError: its messages would be too short for anything.
    """
    if msize < MIN_MSIZE:
        raise ProtocolError(f"9p: messages of at most {msize} bytes: at least {MIN_MSIZE} are needed")
    agreed = min(msize, MAX_MSIZE)
    known = version == VERSION
    return answer(Type.VERSION, tag, _U32.pack(agreed) + _text(VERSION if known else b"unknown")), agreed if known else 0
