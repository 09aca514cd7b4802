"""Extended attributes of a share's files: those of users. The kernel finds them by name only, so from inside the folder."""

import errno
import os
from typing import Final, Self, final

from utilityvm.compute.plan9.tree import Node, Tree, refusal
from utilityvm.wire.ninep import MAX_XATTR

_USER: Final = b"user."


@final
class Xattr:
    """An attribute that is read, or that is written when the guest has said all of it (`name` is not empty then)."""

    __slots__ = ("_flags", "data", "name", "size")

    def __init__(self, data: bytes, name: bytes = b"", size: int = 0, flags: int = 0) -> None:
        self.data, self.name, self.size, self._flags = data, name, size, flags

    @classmethod
    def read(cls, tree: Tree, node: Node, name: bytes) -> Self:
        """Read an attribute, or without a name the list of them.

        Raises:
            OSError: there is none; it is not one of users.
        """
        _enter(tree, node)
        here = node.name if not node.is_folder else b"."
        if not name:
            listed = [os.fsencode(each) for each in os.listxattr(here, follow_symlinks=False)]
            return cls(b"".join(each + b"\0" for each in listed if each.startswith(_USER)))
        if not name.startswith(_USER):
            raise refusal(errno.ENODATA)
        return cls(os.getxattr(here, name, follow_symlinks=False))

    @classmethod
    def to_be_written(cls, name: bytes, size: int, flags: int) -> Self:
        """Begin an attribute of `size` bytes; none: it is removed.

        Raises:
            OSError: it cannot be.
        """
        if not name.startswith(_USER):
            raise refusal(errno.EOPNOTSUPP)
        if size > MAX_XATTR:
            raise refusal(errno.ENOSPC)
        return cls(b"", name, size, flags)

    def write(self, offset: int, data: memoryview) -> int:
        """Add to what is written.

        Raises:
            OSError: it is not the next part, or too much.
        """
        if not self.name:
            raise refusal(errno.EBADF)
        if offset != len(self.data) or offset + len(data) > self.size:
            raise refusal(errno.EINVAL)
        self.data += bytes(data)
        return len(data)

    def store(self, tree: Tree, node: Node) -> None:
        """Carry out what was written; nothing happens for one that was read.

        Raises:
            OSError: it cannot be.
        """
        if not self.name:
            return
        if len(self.data) != self.size:
            raise refusal(errno.EINVAL)
        _enter(tree, node)
        here = node.name if not node.is_folder else b"."
        if self.size:
            os.setxattr(here, self.name, self.data, self._flags, follow_symlinks=False)
        else:
            os.removexattr(here, self.name, follow_symlinks=False)


def _enter(tree: Tree, node: Node) -> None:
    os.fchdir(tree.named(node)[0])
