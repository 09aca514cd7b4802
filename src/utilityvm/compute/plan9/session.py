"""One connection of a guest to a share: its fids, and the answer to each request. Requests are carried out one after the other."""

import errno
import fcntl
import os
import stat
import struct
import time
from typing import Final, final

from utilityvm.compute.plan9.entries import Entries
from utilityvm.compute.plan9.tree import Node, Tree, refusal
from utilityvm.compute.plan9.xattr import Xattr
from utilityvm.wire import ninep
from utilityvm.wire.ninep import IO_HEADER, MAX_PATH, NO_FID, NO_ID

MAX_FIDS: Final = 16_384
"""Fids of one connection."""

_ACCESS: Final = 3
# The protocol's numbers are those of x86, whatever the host is.
_FLAGS: Final = ((0o200, os.O_EXCL), (0o2000, os.O_APPEND), (0o10000, os.O_DSYNC), (0o4000000, os.O_SYNC))
_TRUNCATE: Final = 0o1000
_REMOVE_FOLDER: Final = 0x200

_MODE, _UID, _GID, _SIZE, _ATIME, _MTIME, _ATIME_SET, _MTIME_SET = 1, 2, 4, 8, 0x10, 0x20, 0x80, 0x100

_STATFS: Final = struct.Struct("<IIQQQQQQI")
_MAGIC: Final = 0x01021997
_LOCK: Final = struct.Struct("<BQQIH")
_FLOCK: Final = struct.Struct("hhqqi4x")  # the kernel's `struct flock` of 64 bits
_LOCK_KINDS: Final = (fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK)
_SET_LOCK, _GET_LOCK = 37, 36  # F_OFD_SETLK, F_OFD_GETLK: locks that belong to an open file, not to a process
_TAKEN, _BUSY = 0, 1
_FARTHEST: Final = (1 << 63) - 1


@final
class Fid:
    """What a guest's number stands for: a node, and what is open of it. `uid` is the guest's user who attached."""

    __slots__ = ("entries", "fd", "node", "uid", "writes", "xattr")

    def __init__(self, node: Node, uid: int) -> None:
        self.node, self.uid = node, uid
        self.fd = -1
        self.writes = False
        self.entries: Entries | None = None
        self.xattr: Xattr | None = None


@final
class Session:
    """One connection to the share `tree`, which its guest calls `aname`; messages are at most `msize` bytes long."""

    def __init__(self, tree: Tree, aname: bytes, msize: int) -> None:
        self._tree, self._aname = tree, aname
        self.msize = self._limit = msize
        self._fids: dict[int, Fid] = {}

    def close(self) -> None:
        """Close everything."""
        for fid in self._fids.values():
            self._end(fid)
        self._fids.clear()

    def handle(self, message: ninep.Message) -> list[bytes | memoryview]:
        """Carry a request out and return the parts of its answer.

        Raises:
            ProtocolError: it is none; the connection cannot go on.
        """
        try:
            return self._answer(message.kind, message.tag, ninep.decode(message))
        except OSError as error:
            number = error.errno or errno.EIO
        except NotImplementedError:
            number = errno.EOPNOTSUPP
        except (OverflowError, ValueError):  # a number beyond what the kernel takes; a name with a zero byte
            number = errno.EINVAL
        return [ninep.failure(message.tag, number)]

    def _answer(self, kind: int, tag: int, request: ninep.Request) -> list[bytes | memoryview]:
        match request:
            case ninep.Read() | ninep.Readdir():
                return self._read(kind, tag, request)
            case ninep.Version(msize, version):
                reply, agreed = ninep.agree(tag, min(msize, self._limit), version)
                self.close()
                self.msize = agreed or self.msize
                return [reply]
            case ninep.Write():
                body = self._write(request)
            case ninep.Walk() | ninep.Attach() | ninep.Clunk() | ninep.Flush() | ninep.Auth():
                body = self._fid_request(request)
            case ninep.Getattr() | ninep.Setattr() | ninep.Statfs() | ninep.Readlink() | ninep.Xattrwalk() | ninep.Xattrcreate():
                body = self._attributes(request)
            case ninep.Lopen() | ninep.Lcreate() | ninep.Fsync() | ninep.Lock() | ninep.Getlock():
                body = self._file_request(request)
            case _:
                body = self._name_request(request)
        return [ninep.answer(kind, tag, body)]

    # -- fids -------------------------------------------------------------------------------------------------------

    def _of(self, number: int) -> Fid:
        if (fid := self._fids.get(number)) is None:
            raise refusal(errno.EBADF)
        return fid

    def _node(self, number: int) -> Node:
        fid = self._of(number)
        if fid.xattr is not None:
            raise refusal(errno.EBADF)
        return fid.node

    def _new(self, number: int, node: Node, uid: int) -> Fid:
        """Let a number stand for a node of which we are a user already."""
        if number in self._fids or number == NO_FID or len(self._fids) >= MAX_FIDS:
            self._tree.drop(node)
            raise refusal(errno.ENFILE if len(self._fids) >= MAX_FIDS else errno.EBADF)
        fid = self._fids[number] = Fid(node, uid)
        return fid

    def _end(self, fid: Fid) -> None:
        if fid.entries is not None:
            fid.entries.close()
        if fid.fd >= 0:
            os.close(fid.fd)
        self._tree.drop(fid.node)

    def _clunk(self, number: int) -> None:
        fid = self._of(number)
        del self._fids[number]
        try:
            if fid.xattr is not None:
                fid.xattr.store(self._tree, fid.node)
        finally:
            self._end(fid)

    def _fid_request(self, request: ninep.Walk | ninep.Attach | ninep.Clunk | ninep.Flush | ninep.Auth) -> bytes:
        match request:
            case ninep.Walk():
                return self._walk(request)
            case ninep.Attach():
                if request.aname != self._aname:
                    raise refusal(errno.ENOENT)
                if request.afid != NO_FID:
                    raise refusal(errno.EOPNOTSUPP)
                root = self._tree.root
                self._new(request.fid, self._tree.hold(root), 0 if request.uid == NO_ID else request.uid)
                return self._tree.qid(os.fstat(root.fd)).packed()
            case ninep.Clunk(number):
                self._clunk(number)
                return b""
            case ninep.Flush():
                return b""  # what came before it has been answered
            case ninep.Auth():
                raise refusal(errno.EOPNOTSUPP)

    def _walk(self, request: ninep.Walk) -> bytes:
        start = self._of(request.fid)
        if request.new != request.fid and request.new in self._fids:
            raise refusal(errno.EBADF)
        node, qids = self._tree.hold(self._node(request.fid)), bytearray()
        for at, name in enumerate(request.names):
            try:
                reached = self._tree.step(node, name)
            except OSError:
                self._tree.drop(node)
                if not at:
                    raise
                return at.to_bytes(2, "little") + qids  # as far as it goes; no fid is made
            self._tree.drop(node)
            node = reached
            qids += self._tree.qid(os.fstat(node.fd)).packed()
        if request.new == request.fid:
            if start.fd >= 0:
                self._tree.drop(node)
                raise refusal(errno.EBADF)
            self._tree.drop(start.node)
            start.node = node
        else:
            self._new(request.new, node, start.uid)
        return len(request.names).to_bytes(2, "little") + qids

    # -- attributes -------------------------------------------------------------------------------------------------

    def _attributes(
        self, request: ninep.Getattr | ninep.Setattr | ninep.Statfs | ninep.Readlink | ninep.Xattrwalk | ninep.Xattrcreate
    ) -> bytes:
        fid, node = self._of(request.fid), self._node(request.fid)
        match request:
            case ninep.Getattr():
                return self._getattr(fid)
            case ninep.Setattr():
                self._setattr(fid, request)
                return b""
            case ninep.Statfs():
                told = os.fstatvfs(node.fd)
                counts = (told.f_blocks, told.f_bfree, told.f_bavail, told.f_files, told.f_ffree)
                return _STATFS.pack(_MAGIC, told.f_frsize, *counts, told.f_fsid & _FARTHEST, told.f_namemax)
            case ninep.Readlink():
                target = os.readlink(b"", dir_fd=node.fd)
                return len(target).to_bytes(2, "little") + target
            case ninep.Xattrwalk():
                value = Xattr.read(self._tree, node, request.name)
                self._new(request.new, self._tree.hold(node), fid.uid).xattr = value
                return len(value.data).to_bytes(8, "little")
            case ninep.Xattrcreate():
                self._tree.may_change(node)
                if fid.fd >= 0:
                    raise refusal(errno.EBADF)
                fid.xattr = Xattr.to_be_written(request.name, request.size, request.flags)
                return b""

    def _getattr(self, fid: Fid) -> bytes:
        told = os.fstat(fid.fd if fid.fd >= 0 else fid.node.fd)
        owner = self._tree.identity.shown(told.st_uid, told.st_gid)
        sizes = (told.st_nlink, told.st_rdev, told.st_size, told.st_blksize, told.st_blocks)
        times = [part for ns in (told.st_atime_ns, told.st_mtime_ns, told.st_ctime_ns) for part in divmod(ns, 1_000_000_000)]
        numbers = (told.st_mode, *owner, *sizes, *(part & 0xFFFF_FFFF_FFFF_FFFF for part in times))
        return ninep.attributes(self._tree.qid(told), numbers)

    def _setattr(self, fid: Fid, request: ninep.Setattr) -> None:
        valid, node, tree = request.valid, fid.node, self._tree
        tree.may_change(node)
        if valid & (_UID | _GID):
            uid, gid = tree.identity.meant(request.uid if valid & _UID else -1, request.gid if valid & _GID else -1)
            at, name = tree.named(node)
            try:
                os.chown(name, uid, gid, dir_fd=at, follow_symlinks=False)
            except OSError as error:
                if error.errno == errno.EINVAL:  # the server's namespace has no such user
                    raise refusal(errno.EPERM) from error
                raise
        if valid & _MODE:
            tree.change_mode(node, stat.S_IMODE(request.mode))
        if valid & _SIZE:
            self._truncate(fid, request.size)
        if valid & (_ATIME | _MTIME):
            self._set_times(node, request)

    def _truncate(self, fid: Fid, size: int) -> None:
        if fid.fd >= 0 and fid.writes:
            os.ftruncate(fid.fd, size)
            return
        fd = self._tree.open(fid.node, os.O_WRONLY)
        try:
            os.ftruncate(fd, size)
        finally:
            os.close(fd)

    def _set_times(self, node: Node, request: ninep.Setattr) -> None:
        told, now = os.fstat(node.fd), time.time_ns()
        at, name = self._tree.named(node)
        if request.valid & (_ATIME | _MTIME | _ATIME_SET | _MTIME_SET) == _ATIME | _MTIME:
            os.utime(name, dir_fd=at, follow_symlinks=False)  # the only form that those may use who may only write
            return
        times = [told.st_atime_ns, told.st_mtime_ns]
        if request.valid & _ATIME:
            times[0] = _nanoseconds(request.atime, request.atime_ns) if request.valid & _ATIME_SET else now
        if request.valid & _MTIME:
            times[1] = _nanoseconds(request.mtime, request.mtime_ns) if request.valid & _MTIME_SET else now
        os.utime(name, ns=(times[0], times[1]), dir_fd=at, follow_symlinks=False)

    # -- open files -------------------------------------------------------------------------------------------------

    def _file_request(self, request: ninep.Lopen | ninep.Lcreate | ninep.Fsync | ninep.Lock | ninep.Getlock) -> bytes:
        match request:
            case ninep.Lopen(number, flags):
                return self._open(self._of(number), flags)
            case ninep.Lcreate():
                return self._create(self._of(request.fid), request)
            case ninep.Fsync(number, data_only):
                fd = self._open_fd(number)
                (os.fdatasync if data_only else os.fsync)(fd)
                return b""
            case ninep.Lock():
                return bytes([self._lock(request)])
            case ninep.Getlock():
                return self._getlock(request)

    def _open_fd(self, number: int) -> int:
        fid = self._of(number)
        if fid.fd < 0:
            raise refusal(errno.EBADF)
        return fid.fd

    def _unopened(self, fid: Fid) -> None:
        if fid.fd >= 0 or fid.xattr is not None:
            raise refusal(errno.EBADF)

    def _open(self, fid: Fid, flags: int) -> bytes:
        self._unopened(fid)
        writes = flags & _ACCESS != os.O_RDONLY
        if writes or flags & _TRUNCATE:
            self._tree.may_change()
        fd = self._tree.open(fid.node, _local(flags) & ~os.O_EXCL)
        self._opened(fid, fd, flags)
        return self._tree.qid(os.fstat(fd)).packed() + self._unit()

    def _opened(self, fid: Fid, fd: int, flags: int) -> None:
        try:
            if flags & _TRUNCATE and not fid.node.is_folder:
                os.ftruncate(fd, 0)
        except BaseException:
            os.close(fd)
            raise
        fid.fd, fid.writes = fd, flags & _ACCESS != os.O_RDONLY
        if fid.node.is_folder:
            fid.entries = Entries(self._tree, fid.node, fd)

    def _create(self, fid: Fid, request: ninep.Lcreate) -> bytes:
        self._unopened(fid)
        folder = fid.node
        fd, node, new = self._tree.create(folder, request.name, _local(request.flags), stat.S_IMODE(request.mode))
        if new and (owner := self._tree.identity.creator(fid.uid, request.gid)) is not None:
            try:
                os.fchown(fd, *owner)
            except OSError:  # as on a file system without owners
                os.close(fd)
                self._tree.drop(node)
                raise
        self._tree.drop(folder)
        fid.node = node
        self._opened(fid, fd, request.flags & ~_TRUNCATE if new else request.flags)
        return self._tree.qid(os.fstat(fd)).packed() + self._unit()

    def _unit(self) -> bytes:
        return (self.msize - 24).to_bytes(4, "little")  # what is left beside the head of a write, and of a read

    def _read(self, kind: int, tag: int, request: ninep.Read | ninep.Readdir) -> list[bytes | memoryview]:
        fid, count = self._of(request.fid), min(request.limit, self.msize - IO_HEADER)
        data: bytes | memoryview
        if isinstance(request, ninep.Readdir):
            if fid.entries is None:
                raise refusal(errno.ENOTDIR if fid.fd >= 0 else errno.EBADF)
            data = fid.entries.read(request.offset, count)
        elif fid.xattr is not None:
            data = fid.xattr.data[request.offset : request.offset + count]
        else:
            data = memoryview(bytearray(count))
            data = data[: os.preadv(self._open_fd(request.fid), [data], request.offset) if count else 0]
        return [ninep.io_head(kind, tag, len(data)), data]

    def _write(self, request: ninep.Write) -> bytes:
        fid = self._of(request.fid)
        self._tree.may_change()
        if fid.xattr is not None:
            return fid.xattr.write(request.offset, request.data).to_bytes(4, "little")
        return os.pwrite(self._open_fd(request.fid), request.data, request.offset).to_bytes(4, "little")

    def _lock(self, request: ninep.Lock) -> int:
        fd = self._open_fd(request.fid)
        try:
            fcntl.fcntl(fd, _SET_LOCK, _flock(request))
        except (BlockingIOError, PermissionError):
            return _BUSY  # the guest asks again, if it would wait
        return _TAKEN

    def _getlock(self, request: ninep.Getlock) -> bytes:
        held = fcntl.fcntl(self._open_fd(request.fid), _GET_LOCK, _flock(request))
        kind, _, start, length, process = _FLOCK.unpack(held)
        if kind == fcntl.F_UNLCK:
            start, length, process = request.start, request.length, request.process
        return _LOCK.pack(_LOCK_KINDS.index(kind), start, length, max(process, 0), len(request.client)) + request.client

    # -- names ------------------------------------------------------------------------------------------------------

    def _name_request(self, request: ninep.Request) -> bytes:
        tree = self._tree
        match request:
            case ninep.Mkdir() | ninep.Symlink() | ninep.Mknod():
                return self._make(request)
            case ninep.Link(folder, number, name):
                at = tree.place(self._node(folder), name)
                source = self._node(number)
                if source.is_folder:
                    raise refusal(errno.EPERM)
                there, known_as = tree.named(source)
                os.link(known_as, name, src_dir_fd=there, dst_dir_fd=at, follow_symlinks=False)
            case ninep.Unlinkat(number, name, flags):
                at = tree.place(self._node(number), name)
                (os.rmdir if flags & _REMOVE_FOLDER else os.unlink)(name, dir_fd=at)
            case ninep.Remove(number):
                self._remove(number)
            case ninep.Rename(number, folder, name):
                tree.move(*tree.entry(self._node(number)), self._node(folder), name)
            case ninep.Renameat(old, old_name, new, new_name):
                tree.move(self._node(old), old_name, self._node(new), new_name)
            case _:
                raise refusal(errno.EOPNOTSUPP)
        return b""

    def _make(self, request: ninep.Mkdir | ninep.Symlink | ninep.Mknod) -> bytes:
        fid, name = self._of(request.fid), request.name
        at = self._tree.place(self._node(request.fid), name)
        match request:
            case ninep.Mkdir():
                os.mkdir(name, stat.S_IMODE(request.mode), dir_fd=at)
            case ninep.Symlink():
                if len(request.target) > MAX_PATH:
                    raise refusal(errno.ENAMETOOLONG)
                os.symlink(request.target, name, dir_fd=at)
            case ninep.Mknod():
                if stat.S_IFMT(request.mode) not in {stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK}:
                    raise refusal(errno.EPERM)
                os.mknod(name, request.mode, dir_fd=at)
        self._tree.give(at, name, fid.uid, request.gid)
        return self._tree.qid(os.stat(name, dir_fd=at, follow_symlinks=False)).packed()

    def _remove(self, number: int) -> None:
        fid = self._of(number)
        try:
            folder, name = self._tree.entry(self._node(number))
            at = self._tree.place(folder, name)
            (os.rmdir if fid.node.is_folder else os.unlink)(name, dir_fd=at)
        finally:
            del self._fids[number]
            self._end(fid)


def _local(flags: int) -> int:
    """Return the flags of the protocol that we know as this host's."""
    access = flags & _ACCESS
    if access == _ACCESS:
        raise refusal(errno.EINVAL)
    return access | sum(ours for theirs, ours in _FLAGS if flags & theirs == theirs)


def _nanoseconds(seconds: int, nanoseconds: int) -> int:
    if nanoseconds >= 1_000_000_000:
        raise refusal(errno.EINVAL)
    return (seconds - (1 << 64) if seconds >> 63 else seconds) * 1_000_000_000 + nanoseconds


def _flock(request: ninep.Lock | ninep.Getlock) -> bytes:
    if request.kind >= len(_LOCK_KINDS) or max(request.start, request.length) > _FARTHEST:
        raise refusal(errno.EINVAL)
    return _FLOCK.pack(_LOCK_KINDS[request.kind], os.SEEK_SET, request.start, request.length, 0)
