"""The files of a share, by descriptors: no path is ever followed, so nothing that a guest or a host swaps leads elsewhere.

A `Node` is a file or folder that a guest has reached: an ``O_PATH`` descriptor, and the name by which its folder knows it. Folders are
used by descriptor. A file is opened by its name in its folder and then must be the file that was reached, else it is ``ESTALE``: the
server has no ``/proc`` through which a descriptor could be opened once more.
"""

import errno
import os
import stat
from collections.abc import Iterator
from typing import Final, final

import msgspec

from utilityvm.wire.ninep import MAX_NAME, QID_FILE, QID_FOLDER, QID_LINK, Qid

MAX_NODES: Final = 16_384
"""Files and folders of a share that its guest may have reached and not given up at a time."""

NOBODY: Final = 65534

_AGAIN: Final = os.O_NOFOLLOW | os.O_CLOEXEC
_PATH: Final = os.O_PATH | _AGAIN
_OPEN: Final = _AGAIN | os.O_NONBLOCK | os.O_NOCTTY  # a pipe in a file's place must not keep the server waiting


def refusal(number: int) -> OSError:
    """Return the error of this errno."""
    return OSError(number, os.strerror(number))


class Identity(msgspec.Struct, frozen=True):
    """Who the guest's users are on the host.

    By default each is who he is. With `own`, files that the guest makes belong to the server's user, who is `uid` and `gid` on the
    host, and these two are 0 for the guest.
    """

    own: bool = False
    uid: int = 0
    gid: int = 0

    def shown(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the owner of a file as the guest sees it."""
        if not self.own:
            return uid, gid
        return self._shown(uid, self.uid), self._shown(gid, self.gid)

    def meant(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the owner that a guest wants for a file; -1 stays.

        Raises:
            OSError: it cannot be.
        """
        if not self.own:
            return uid, gid
        if uid not in {0, -1} or gid not in {0, -1}:
            raise refusal(errno.EPERM)
        return -1, -1

    def creator(self, uid: int, gid: int) -> tuple[int, int] | None:
        """Return whom a new file is to be given to, if anybody."""
        return None if self.own else (uid, gid)

    @staticmethod
    def _shown(number: int, own: int) -> int:
        if number == own:
            return 0
        return number or NOBODY


THEIRS: Final = Identity()
"""Each is who he is."""


@final
class Node:
    """A file or folder that was reached; `users` are the fids that stand for it and the nodes below it."""

    __slots__ = ("fd", "folder", "identity", "kind", "name", "users")

    def __init__(self, fd: int, told: os.stat_result, folder: "Node | None", name: bytes) -> None:
        self.fd, self.folder, self.name = fd, folder, name
        self.kind = stat.S_IFMT(told.st_mode)
        self.identity = (told.st_dev, told.st_ino)
        self.users = 1

    @property
    def is_folder(self) -> bool:
        """Whether there are names in it."""
        return self.kind == stat.S_IFDIR


@final
class Tree:
    """The share whose root is the folder `root`, a descriptor that becomes the tree's.

    With `allowed` the root has no other names than these. A `read_only` one refuses every change by itself, whatever the file system does.
    """

    def __init__(self, root: int, *, read_only: bool = False, allowed: frozenset[bytes] | None = None, identity: Identity = THEIRS) -> None:
        self._nodes: set[Node] = set()
        self._devices: dict[int, int] = {}
        self.read_only, self._allowed, self.identity = read_only, allowed, identity
        self.root = Node(root, os.fstat(root), None, b"")
        self._nodes.add(self.root)

    # -- reaching ---------------------------------------------------------------------------------------------------

    def hold(self, node: Node) -> Node:
        """Note one more user of `node`, and return it."""
        node.users += 1
        return node

    def drop(self, node: Node) -> None:
        """One user of `node` is gone; with the last its descriptor is closed."""
        at: Node | None = node
        while at is not None:
            at.users -= 1
            if at.users:
                return
            os.close(at.fd)
            self._nodes.discard(at)
            at = at.folder

    def step(self, folder: Node, name: bytes) -> Node:
        """Return a new node for what `name` is in `folder` now; the folder itself, or the one it was reached from, for ``..``.

        Raises:
            OSError: there is none.
        """
        if not folder.is_folder:
            raise refusal(errno.ENOTDIR)
        if name == b"..":
            return self.hold(folder.folder or folder)
        self._check_name(folder, name, errno.ENOENT)
        if len(self._nodes) >= MAX_NODES:
            raise refusal(errno.ENFILE)
        fd = os.open(name, _PATH, dir_fd=folder.fd)
        try:
            node = Node(fd, os.fstat(fd), folder, name)
        except BaseException:
            os.close(fd)
            raise
        self.hold(folder)
        self._nodes.add(node)
        return node

    def qid(self, told: os.stat_result) -> Qid:
        """Return what the guest knows a file by."""
        return Qid(_qid_kind(stat.S_IFMT(told.st_mode)), self._path(told.st_dev, told.st_ino))

    def entry_qid(self, folder: Node, kind: int, inode: int) -> Qid:
        """Return the same for an entry of a folder."""
        return Qid(_qid_kind(kind), self._path(folder.identity[0], inode))

    def _path(self, device: int, inode: int) -> int:
        # Files of one file system keep their numbers. Those of others that are mounted below could have the same.
        return (inode ^ self._devices.setdefault(device, len(self._devices)) << 48) & 0xFFFF_FFFF_FFFF_FFFF

    def shows(self, folder: Node, name: bytes) -> bool:
        """Whether the guest may know of this name."""
        return self._allowed is None or folder.identity != self.root.identity or name in self._allowed

    def place(self, folder: Node, name: bytes) -> int:
        """Return the descriptor of a folder in which `name` may be made, moved or removed.

        Raises:
            OSError: it may not.
        """
        self.may_change()
        if not folder.is_folder:
            raise refusal(errno.ENOTDIR)
        self._check_name(folder, name, errno.EACCES)
        return folder.fd

    def may_change(self, node: Node | None = None) -> None:
        """Refuse a change of a share that is read-only, and of the root `node` where only some of its names are shared.

        Raises:
            OSError: it may not be changed.
        """
        if self.read_only:
            raise refusal(errno.EROFS)
        if node is not None and self._allowed is not None and node.identity == self.root.identity:
            raise refusal(errno.EACCES)

    def _check_name(self, folder: Node, name: bytes, hidden: int) -> None:
        if len(name) > MAX_NAME:
            raise refusal(errno.ENAMETOOLONG)
        if not name or name in {b".", b".."} or b"/" in name or b"\0" in name:
            raise refusal(errno.EINVAL)
        if not self.shows(folder, name):
            raise refusal(hidden)

    # -- files by the descriptor of their folder ------------------------------------------------------------------------

    def open(self, node: Node, flags: int) -> int:
        """Open a file or folder that was reached.

        Raises:
            OSError: it cannot be opened, or another is in its place.
        """
        if node.is_folder:
            return os.open(b".", flags | _OPEN | os.O_DIRECTORY, dir_fd=node.fd)
        if node.kind != stat.S_IFREG:
            raise refusal(errno.EOPNOTSUPP)
        return self._open_same(node, flags)

    def _open_same(self, node: Node, flags: int) -> int:
        assert node.folder is not None  # noqa: S101 (only the root has none, and it is a folder)
        return same(os.open(node.name, flags | _OPEN, dir_fd=node.folder.fd), node.identity)

    def create(self, folder: Node, name: bytes, flags: int, mode: int) -> tuple[int, Node, bool]:
        """Create a file, or open the one that is there unless `flags` have ``O_EXCL``; also tell whether it is new.

        Raises:
            OSError: it cannot be.
        """
        at = self.place(folder, name)
        fd, new = -1, True
        try:
            fd = os.open(name, flags | _OPEN | os.O_CREAT | os.O_EXCL, mode, dir_fd=at)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            new = False
        try:
            node = self.step(folder, name)
        except BaseException:
            if new:
                os.close(fd)
            raise
        try:
            fd = same(fd, node.identity) if new else self.open(node, flags)
        except BaseException:
            self.drop(node)
            raise
        return fd, node, new

    def change_mode(self, node: Node, mode: int) -> None:
        """Set the mode of what was reached.

        Raises:
            OSError: it is not allowed, or what was reached has none.
        """
        if node.is_folder:
            os.chmod(b".", mode, dir_fd=node.fd)
            return
        if node.kind in {stat.S_IFLNK, stat.S_IFSOCK}:
            raise refusal(errno.EOPNOTSUPP)
        try:
            fd = self._open_same(node, os.O_RDONLY)
        except PermissionError:
            fd = self._open_same(node, os.O_WRONLY)
        try:
            os.fchmod(fd, mode)
        finally:
            os.close(fd)

    def named(self, node: Node) -> tuple[int, bytes]:
        """Return the folder's descriptor and the name in it by which a call that follows no links finds `node`.

        Raises:
            OSError: another has its name now.
        """
        if node.is_folder:
            return node.fd, b"."
        assert node.folder is not None  # noqa: S101 (only the root has none, and it is a folder)
        there = os.stat(node.name, dir_fd=node.folder.fd, follow_symlinks=False)
        if (there.st_dev, there.st_ino) != node.identity:
            raise refusal(errno.ESTALE)
        return node.folder.fd, node.name

    def entry(self, node: Node) -> tuple[Node, bytes]:
        """Return the folder and the name of what was reached, to move or remove it.

        Raises:
            OSError: it is the root; or another has its name now.
        """
        if node.folder is None:
            raise refusal(errno.EBUSY)
        there = os.stat(node.name, dir_fd=node.folder.fd, follow_symlinks=False)
        if (there.st_dev, there.st_ino) != node.identity:
            raise refusal(errno.ESTALE)
        return node.folder, node.name

    def move(self, old: Node, old_name: bytes, new: Node, new_name: bytes) -> None:
        """Move an entry, and with it what was reached by it.

        Raises:
            OSError: it cannot be moved.
        """
        os.replace(old_name, new_name, src_dir_fd=self.place(old, old_name), dst_dir_fd=self.place(new, new_name))
        for node in [node for node in self._nodes if node.name == old_name and node.folder and node.folder.identity == old.identity]:
            if node not in _upwards(new):  # as the host may have moved things; then its name here is no longer known
                before, node.folder, node.name = node.folder, self.hold(new), new_name
                assert before is not None  # noqa: S101 (looked at above)
                self.drop(before)

    def give(self, at: int, name: bytes, uid: int, gid: int) -> None:
        """Give what was made in the folder `at` to the guest's user."""
        if (owner := self.identity.creator(uid, gid)) is not None:
            os.chown(name, *owner, dir_fd=at, follow_symlinks=False)


def same(fd: int, identity: tuple[int, int]) -> int:
    """Return `fd` if it is of this file; close it otherwise.

    Raises:
        OSError: it is of another.
    """
    told = os.fstat(fd)
    if (told.st_dev, told.st_ino) != identity:
        os.close(fd)
        raise refusal(errno.ESTALE)
    return fd


def _qid_kind(kind: int) -> int:
    return {stat.S_IFDIR: QID_FOLDER, stat.S_IFLNK: QID_LINK}.get(kind, QID_FILE)


def _upwards(node: Node) -> Iterator[Node]:
    at: Node | None = node
    while at is not None:
        yield at
        at = at.folder
