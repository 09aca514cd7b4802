"""What is in an open folder of a share, read as a guest asks for it: never all at once."""

import errno
import os
import stat
from collections.abc import Iterator
from typing import final

from utilityvm.compute.plan9.tree import Node, Tree, refusal
from utilityvm.wire import ninep


@final
class Entries:
    """The entries of an open folder, read as they are asked for. The offset of an entry is how many come before it."""

    def __init__(self, tree: Tree, node: Node, fd: int) -> None:
        self._tree, self._node, self._fd = tree, node, fd
        self._at = 0
        self._next: tuple[ninep.Qid, int, bytes] | None = None  # did not fit, or was passed over to
        self._running: Iterator[tuple[ninep.Qid, int, bytes]] = iter(())
        self._rewind()

    def close(self) -> None:
        """Give up what is being read."""
        self._running = iter(())

    def read(self, offset: int, count: int) -> bytes:
        """Return whole entries, at most `count` bytes."""
        if offset != self._at:
            self._go_to(offset)
        out = bytearray()
        while (found := self._next or next(self._running, None)) is not None:
            self._next = found
            qid, kind, name = found
            packed = ninep.entry(qid, self._at + 1, kind, name)
            if len(out) + len(packed) > count:
                if not out:
                    raise refusal(errno.EINVAL)
                break
            out += packed
            self._at += 1
            self._next = None
        return bytes(out)

    def _go_to(self, offset: int) -> None:
        if offset < self._at:
            self._rewind()
        while self._at < offset and (self._next or next(self._running, None)) is not None:
            self._next = None
            self._at += 1

    def _rewind(self) -> None:
        self._at, self._next = 0, None
        self._running = self._all()

    def _all(self) -> Iterator[tuple[ninep.Qid, int, bytes]]:
        node = self._node
        for name, of in ((b".", node), (b"..", node.folder or node)):
            yield self._tree.qid(os.fstat(of.fd)), stat.S_IFDIR >> 12, name
        with os.scandir(self._fd) as found:
            for each in found:
                name = os.fsencode(each.name)
                kind = _kind(each)
                if self._tree.shows(node, name):
                    yield self._tree.entry_qid(node, kind, each.inode()), kind >> 12, name


def _kind(entry: "os.DirEntry[str]") -> int:
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFREG if entry.is_file(follow_symlinks=False) else 0
