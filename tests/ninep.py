"""A client of shares that does whatever it likes: requests as they are, answers as they come."""

import os
import select
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

from utilityvm.compute.plan9.flags import Flag
from utilityvm.wire import ninep
from utilityvm.wire.ninep import NO_FID, RLERROR

WITHIN = 30.0
NAME = b"share"
NONE = Flag(0)


class Entry(NamedTuple):
    """What a folder says of a name in it."""

    name: bytes
    inode: int
    offset: int


class Failed(OSError):
    """The server's answer was an error."""


def _told(message: ninep.Message) -> tuple[int, bytes]:
    return message.kind, bytes(message.body)


class Client:
    """A connection on `sock`."""

    def __init__(self, sock: socket.socket, msize: int = 65536) -> None:
        self.sock, self.msize = sock, msize
        sock.settimeout(WITHIN)
        self._reader = ninep.MessageReader(ninep.MAX_MSIZE)
        self._free = 100

    def raw(self, data: bytes) -> tuple[int, bytes] | None:
        """Send bytes and return the answer's type and body; None when the connection was ended instead."""
        try:
            self.sock.sendall(data)
            while (message := self._reader.next()) is None:
                count = self.sock.recv_into(self._reader.space())
                if not count:
                    return None
                self._reader.filled(count)
        except ConnectionError:
            return None
        return _told(message)

    def ask(self, request: ninep.Request) -> bytes:
        """Return the body of the answer."""
        answer = self.raw(ninep.encode(7, request))
        assert answer is not None, f"the connection was ended by {request}"
        kind, body = answer
        if kind == RLERROR:
            number = int.from_bytes(body, "little")
            raise Failed(number, os.strerror(number))
        return body

    def attach(self, name: bytes = NAME, uid: int = 0) -> int:
        fid = self.fid()
        self.ask(ninep.Attach(fid, NO_FID, b"root", name, uid))
        return fid

    def fid(self) -> int:
        self._free += 1
        return self._free

    def walk(self, fid: int, *names: bytes) -> int:
        """Return a new fid; an error when not all of the way could be gone."""
        new = self.fid()
        reached = int.from_bytes(self.ask(ninep.Walk(fid, new, names))[:2], "little")
        if reached != len(names):
            raise Failed(2, "not all of the way")
        return new

    def open(self, fid: int, *names: bytes, flags: int = 0) -> int:
        new = self.walk(fid, *names)
        self.ask(ninep.Lopen(new, flags))
        return new

    def read(self, fid: int, count: int = 4096, offset: int = 0) -> bytes:
        return self.ask(ninep.Read(fid, offset, count))[4:]

    def write(self, fid: int, data: bytes, offset: int = 0) -> int:
        return int.from_bytes(self.ask(ninep.Write(fid, offset, memoryview(data))), "little")

    def create(self, folder: int, name: bytes, data: bytes = b"", *, mode: int = 0o644, flags: int = 0o102, gid: int = 0) -> int:
        fid = self.walk(folder)
        self.ask(ninep.Lcreate(fid, name, flags, mode, gid))
        if data:
            assert self.write(fid, data) == len(data)
        return fid

    def content(self, root: int, *names: bytes) -> bytes:
        fid = self.open(root, *names)
        try:
            return self.read(fid)
        finally:
            self.ask(ninep.Clunk(fid))

    def entries(self, fid: int, count: int = 4096, offset: int = 0) -> list[Entry]:
        body, found = self.ask(ninep.Readdir(fid, offset, count))[4:], []
        while body:
            _, _, inode, after, _, size = struct.unpack_from("<BIQQBH", body)
            found.append(Entry(body[24 : 24 + size], inode, after))
            body = body[24 + size :]
        return found

    def names(self, root: int, *names: bytes) -> set[bytes]:
        fid = self.open(root, *names)
        found: list[Entry] = []
        while more := self.entries(fid, offset=found[-1].offset if found else 0):
            found += more
        self.ask(ninep.Clunk(fid))
        return {entry.name for entry in found} - {b".", b".."}

    def attributes(self, fid: int) -> tuple[int, int, int, int]:
        """Return mode, uid, gid and size."""
        body = self.ask(ninep.Getattr(fid, ninep.BASIC))
        mode, uid, gid = struct.unpack_from("<III", body, 21)
        return mode, uid, gid, struct.unpack_from("<Q", body, 49)[0]

    def change(self, fid: int, valid: int, *, mode: int = 0, uid: int = 0, gid: int = 0, size: int = 0, mtime: int = 0) -> None:
        self.ask(ninep.Setattr(fid, valid, mode, uid, gid, size, 0, 0, mtime, 0))


class Server:
    """The real server of the folder `path`, in its jail as a machine starts it; `pid` is its process."""

    def __init__(self, path: Path, flags: Flag = NONE, allowed: Sequence[str] = ()) -> None:
        from utilityvm.compute.qemu.plan9 import enclosure
        from utilityvm.kit.child import Child

        if os.geteuid() != 0:
            flags |= Flag.ORDINARY
        self._stack = ExitStack()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            fd = theirs.fileno()
            words = [sys.executable, "-I", "-m", "utilityvm.compute.plan9.serve", str(fd), "vm", NAME.decode(), str(int(flags)), str(path)]
            self.child = Child([*words, *allowed], pass_fds=[fd], enclosure=enclosure(flags))
        self.control.settimeout(WITHIN)
        self.said = self.control.recv(4096)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stack.close()
        self.control.close()
        self.child.kill()
        await self.child.wait()

    @property
    def pid(self) -> int:
        return int(Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split()[0])

    def connect(self, msize: int = 65536) -> Client:
        assert self.said == b"ready", self.said
        ours, theirs = socket.socketpair()
        self._stack.callback(ours.close)
        socket.send_fds(self.control, [msize.to_bytes(4, "little")], [theirs.fileno()])
        theirs.close()
        return Client(ours, msize)

    def still_serves(self, client: Client) -> bool:
        """Whether it answers, and has ended no connection."""
        ended, _, _ = select.select([client.sock], [], [], 0)
        return not ended and bool(client.attach())
