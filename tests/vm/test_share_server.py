"""The server of a share in its jail, and a client that does what no well-behaved kernel would do. As root and as an ordinary user."""

import asyncio
import errno
import os
import signal
import socket
import stat
import struct
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio
from tests.ninep import Client, Failed, Server

from utilityvm.compute.plan9.enclose import KEPT
from utilityvm.compute.plan9.flags import Flag
from utilityvm.compute.plan9.serve import MAX_CONNECTIONS
from utilityvm.compute.plan9.session import MAX_FIDS, Session
from utilityvm.compute.plan9.spec import ShareSpec
from utilityvm.compute.plan9.tree import MAX_NODES, Tree
from utilityvm.compute.qemu import plan9
from utilityvm.kit.errors import HostError
from utilityvm.kit.ids import VmId
from utilityvm.wire import ninep

ROOT = os.geteuid() == 0
SECRET = b"secret of the host\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What is shared; beside it lies a file that is not."""
    (tmp_path / "secret").write_bytes(SECRET)
    shared = tmp_path / "shared"
    (shared / "sub" / "deep").mkdir(parents=True)
    (shared / "file").write_text("shared\n")
    (shared / "sub" / "inner").write_text("inner\n")
    (shared / "absolute").symlink_to(tmp_path / "secret")
    (shared / "up").symlink_to("../secret")
    (shared / "outside").symlink_to("..")
    return shared


@pytest_asyncio.fixture
async def server(folder: Path) -> AsyncIterator[Server]:
    async with Server(folder) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Client:
    return server.connect()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mounts(server: Server) -> list[list[str]]:
    """Return the fields of the mounts that the server sees."""
    return [line.split() for line in Path(f"/proc/{server.pid}/mountinfo").read_text().splitlines()]


def status_of(server: Server) -> str:
    return Path(f"/proc/{server.pid}/status").read_text()


def refused(number: int, what: object, *args: object) -> None:
    assert callable(what)
    with pytest.raises(Failed) as caught:
        what(*args)
    assert caught.value.errno == number, caught.value


# -- the jail --------------------------------------------------------------------------------------------------------------


def test_the_servers_root_is_the_share_and_nothing_is_beside_it(server: Server, folder: Path) -> None:
    process = Path(f"/proc/{server.pid}")
    assert sorted(os.listdir(process / "root")) == sorted(os.listdir(folder))  # noqa: PTH208
    assert (process / "root").stat().st_ino == folder.stat().st_ino
    (fields,) = mounts(server)
    assert fields[4] == "/"
    assert {"nosuid", "nodev", "noexec"} <= set(fields[5].split(","))
    assert (process / "cwd").stat().st_ino == folder.stat().st_ino


def test_the_server_has_no_descriptor_of_anything_else(server: Server, client: Client) -> None:
    client.walk(client.attach(), b"sub", b"inner")
    opened = [os.readlink(f"/proc/{server.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{server.pid}/fd")]  # noqa: PTH115, PTH208
    assert {name.split(":")[0] for name in opened} <= {"/dev/null", "pipe", "socket", "/", "/sub", "/sub/inner"}


def test_the_server_has_namespaces_of_its_own_and_few_rights(server: Server) -> None:
    theirs = Path(f"/proc/{server.pid}/ns")
    own = [*(() if ROOT else ("user",)), "mnt", "pid", "ipc", "net", "uts", "cgroup"]
    assert [name for name in own if os.readlink(theirs / name) == os.readlink(f"/proc/self/ns/{name}")] == []  # noqa: PTH115
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{server.pid}/status").read_text().splitlines() if ":\t" in line)
    kept = sum(1 << number for number in KEPT)
    assert {name: int(status[name], 16) for name in status if name.startswith("Cap")} == {
        "CapInh": 0, "CapPrm": kept, "CapEff": kept, "CapBnd": kept, "CapAmb": 0
    }  # fmt: skip
    assert status["NoNewPrivs"] == "1"


async def test_what_is_no_folder_is_refused_by_name(folder: Path) -> None:
    for path, kind, why in ((folder / "none", b"not_found", "no such folder"), (folder / "file", b"not_found", "not a folder")):
        async with Server(path) as server:
            said, text = server.said.split(b"\n")
            assert said == kind
            assert text.decode() == f"{path}: {why}"


async def test_the_server_ends_when_its_owner_does(folder: Path) -> None:
    async with Server(folder) as server:
        server.control.close()
        assert await server.child.wait() == 0


# -- ways out --------------------------------------------------------------------------------------------------------------


def test_there_is_no_way_up(client: Client, folder: Path) -> None:
    root = client.attach()
    inode = folder.stat().st_ino
    for names in ([b".."], [b".."] * 16, [b"sub", b"..", b"..", b".."]):
        body = client.ask(ninep.Walk(root, client.fid(), tuple(names)))
        assert struct.unpack_from("<Q", body, len(body) - 8) == (inode,)
    for name in (b"../secret", b"/etc/passwd", b"sub/inner", b".", b"", b"sub\0", b"/"):
        refused(errno.EINVAL, client.walk, root, name)
        refused(errno.EINVAL, client.create, root, name)
        refused(errno.EINVAL, client.ask, ninep.Mkdir(root, name, 0o755, 0))
        refused(errno.EINVAL, client.ask, ninep.Unlinkat(root, name, 0))
        refused(errno.EINVAL, client.ask, ninep.Renameat(root, b"file", root, name))
        refused(errno.EINVAL, client.ask, ninep.Symlink(root, name, b"x", 0))
    for name in (b"..",):
        refused(errno.EINVAL, client.create, root, name)
        refused(errno.EINVAL, client.ask, ninep.Unlinkat(root, name, 0x200))
        refused(errno.EINVAL, client.ask, ninep.Renameat(root, name, root, b"x"))
    refused(errno.ENAMETOOLONG, client.walk, root, b"x" * 256)


def test_links_are_told_and_never_followed(client: Client, folder: Path) -> None:
    root = client.attach()
    for name, target in ((b"absolute", str(folder.parent / "secret").encode()), (b"up", b"../secret"), (b"outside", b"..")):
        link = client.walk(root, name)
        assert client.ask(ninep.Readlink(link))[2:] == target
        assert stat.S_ISLNK(client.attributes(link)[0])
        refused(errno.EOPNOTSUPP, client.ask, ninep.Lopen(link, 0))
        refused(errno.ENOTDIR, client.ask, ninep.Walk(link, client.fid(), (b"secret",)))
        refused(errno.EOPNOTSUPP, client.change, link, 1)
        refused(errno.EOPNOTSUPP, client.change, link, 8)
        client.change(link, 0x20 | 0x100, mtime=5)
        assert (folder / name.decode()).lstat().st_mtime == 5
    refused(errno.EOPNOTSUPP, client.create, root, b"absolute")
    assert (folder.parent / "secret").read_bytes() == SECRET


def test_a_folder_swapped_for_a_link_while_it_is_walked_leads_nowhere(client: Client, folder: Path) -> None:
    """A host's program exchanges a folder and a link to what must not be seen, as fast as it can."""
    (folder.parent / "private").mkdir()
    (folder.parent / "private" / "inner").write_bytes(SECRET)
    (folder / "link").symlink_to(folder.parent / "private")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for old, new in (("sub", "kept"), ("link", "sub"), ("sub", "link"), ("kept", "sub")):
                (folder / old).rename(folder / new)

    thread = threading.Thread(target=swap)
    thread.start()
    seen: set[str] = set()
    try:
        root, until = client.attach(), time.monotonic() + 2
        while time.monotonic() < until or not {"inner\n", "failed"} <= seen:
            assert time.monotonic() < until + 30, f"only {seen} came up"
            try:
                seen.add(client.content(root, b"sub", b"inner").decode())
            except Failed as error:
                seen.add("failed" if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ESTALE} else str(error))
    finally:
        stop.set()
        thread.join()
    assert seen == {"inner\n", "failed"}


def test_a_file_swapped_for_another_is_stale_and_not_mistaken(client: Client, folder: Path) -> None:
    root = client.attach()
    fid = client.walk(root, b"file")
    (folder / "other").write_text("other\n")
    (folder / "other").replace(folder / "file")
    refused(errno.ESTALE, client.ask, ninep.Lopen(fid, 0o1001))
    refused(errno.ESTALE, client.change, fid, 8)
    refused(errno.ESTALE, client.ask, ninep.Remove(fid))
    assert (folder / "file").read_text() == "other\n"
    assert client.content(root, b"file") == b"other\n"


def test_nothing_is_walked_out_of_the_share_by_moving_it(client: Client, folder: Path) -> None:
    """Folders are moved while fids stand for them: by the guest, and by the host out of the share."""
    root = client.attach()
    deep, sub = client.walk(root, b"sub", b"deep"), client.walk(root, b"sub")
    client.ask(ninep.Renameat(sub, b"deep", root, b"deep"))
    body = client.ask(ninep.Walk(deep, client.fid(), (b"..", b"..", b"..")))
    assert struct.unpack_from("<Q", body, len(body) - 8) == (folder.stat().st_ino,)
    (folder / "deep").rename(folder.parent / "moved")
    for names in ((b"..",), (b"..", b"..")):
        body = client.ask(ninep.Walk(deep, client.fid(), names))
        assert struct.unpack_from("<Q", body, len(body) - 8) == (folder.stat().st_ino,)
    refused(errno.ENOENT, client.walk, deep, b"secret")
    refused(errno.EINVAL, client.ask, ninep.Renameat(root, b"sub", sub, b"x"))


def test_there_is_no_proc_and_no_device(client: Client, server: Server, folder: Path) -> None:
    root = client.attach()
    for names in ((b"proc", b"self", b"root"), (b"dev", b"null"), (b"usr",), (b"lib",)):
        refused(errno.ENOENT, client.walk, root, *names)
    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        refused(errno.EPERM, client.ask, ninep.Mknod(root, b"device", kind | 0o666, 1, 3, 0))
    client.ask(ninep.Symlink(root, b"p", b"/proc/self/root", 0))
    refused(errno.ENOTDIR, client.ask, ninep.Walk(client.walk(root, b"p"), client.fid(), (b"x",)))
    if ROOT:
        os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        refused(errno.EOPNOTSUPP, client.open, root, b"null")
    os.mkfifo(folder / "pipe")
    refused(errno.EOPNOTSUPP, client.open, root, b"pipe")
    assert server.still_serves(client)


# -- what only a hostile guest says ----------------------------------------------------------------------------------------


def test_counts_are_bounded_whatever_is_asked_for(client: Client, folder: Path) -> None:
    (folder / "large").write_bytes(b"x" * 300_000)
    root = client.attach()
    large = client.open(root, b"large")
    assert len(client.read(large, 0xFFFF_FFFF)) == client.msize - ninep.IO_HEADER
    assert client.read(large, 10, 1 << 40) == b""
    refused(errno.EINVAL, client.read, large, 10, 1 << 63)
    listing = client.open(root)
    assert client.entries(listing, 0xFFFF_FFFF)
    refused(errno.EINVAL, client.entries, listing, 1, 0)
    assert client.entries(listing, 4096, 1 << 62) == []
    refused(errno.ENOSPC, client.ask, ninep.Xattrcreate(client.walk(root, b"file"), b"user.x", 1 << 40, 0))


def test_a_guest_has_so_many_fids_and_no_more(client: Client) -> None:
    root = client.attach()

    def walk_on() -> None:
        for _ in range(max(MAX_FIDS, MAX_NODES) + 10):
            client.walk(root, b"file")

    with pytest.raises(Failed) as caught:
        walk_on()
    assert caught.value.errno in {errno.ENFILE, errno.EMFILE}
    client.ask(ninep.Clunk(root))
    assert client.attach()


def test_fids_cannot_be_used_twice_or_after_their_end(client: Client) -> None:
    root = client.attach()
    fid = client.walk(root, b"file")
    refused(errno.EBADF, client.ask, ninep.Walk(root, fid, (b"file",)))
    refused(errno.EBADF, client.ask, ninep.Attach(fid, ninep.NO_FID, b"", b"share", 0))
    refused(errno.EBADF, client.read, fid)
    refused(errno.EBADF, client.write, fid, b"x")
    client.ask(ninep.Lopen(fid, 0))
    refused(errno.EBADF, client.ask, ninep.Lopen(fid, 0))
    refused(errno.EBADF, client.write, fid, b"x")
    refused(errno.ENOTDIR, client.entries, fid)
    client.ask(ninep.Clunk(fid))
    for request in (ninep.Clunk(fid), ninep.Getattr(fid, 0), ninep.Remove(fid), ninep.Lopen(fid, 0), ninep.Fsync(fid, 0)):
        refused(errno.EBADF, client.ask, request)
    assert client.raw(ninep.encode(3, ninep.Version(4096, ninep.VERSION))) is not None
    refused(errno.EBADF, client.ask, ninep.Clunk(root))


def test_another_share_is_not_attached_to(client: Client) -> None:
    refused(errno.ENOENT, client.attach, b"other")
    refused(errno.ENOENT, client.attach, b"")
    refused(errno.EOPNOTSUPP, client.ask, ninep.Attach(1, 5, b"", b"share", 0))


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<IBH", 6, 100, 0) + bytes(10),
        struct.pack("<IBH", 0xFFFF_FFFF, 100, 0),
        struct.pack("<IBH", 9, ninep.Type.CLUNK, 0) + bytes(2),
        struct.pack("<IBH", 20, ninep.Type.CLUNK, 0) + bytes(13),
        ninep.message(ninep.Type.WALK, 0, struct.pack("<IIH", 0, 1, 17)),
        ninep.message(ninep.Type.WRITE, 0, struct.pack("<IQI", 0, 0, 0xFFFF_FFFF)),
        ninep.encode(0, ninep.Version(10, ninep.VERSION)),
    ],
)
def test_what_is_no_message_ends_the_connection_and_nothing_else(server: Server, data: bytes) -> None:
    other = server.connect()
    assert server.connect().raw(data) is None
    assert server.still_serves(other)


def test_a_request_that_nobody_knows_is_refused(client: Client) -> None:
    answer = client.raw(ninep.message(99, 5, b"whatever"))
    assert answer == (ninep.RLERROR, errno.EOPNOTSUPP.to_bytes(4, "little"))


async def test_a_guest_that_does_not_read_keeps_only_itself_waiting(server: Server, folder: Path) -> None:
    (folder / "large").write_bytes(b"x" * 60_000)
    deaf = server.connect()
    fid = deaf.open(deaf.attach(), b"large")
    deaf.sock.settimeout(0.2)
    with suppress(TimeoutError):
        for _ in range(10_000):
            deaf.sock.sendall(ninep.encode(1, ninep.Read(fid, 0, 60_000)))
    assert server.still_serves(server.connect())


async def test_one_more_connection_than_there_may_be_is_closed(server: Server) -> None:
    clients = [server.connect() for _ in range(MAX_CONNECTIONS)]
    assert all(client.attach() for client in clients)
    assert server.connect().raw(ninep.encode(1, ninep.Flush(0))) is None
    clients[0].sock.close()
    assert clients[1].attach()
    assert server.connect().attach()


# -- what is shared, and what may be done ----------------------------------------------------------------------------------


async def test_read_only_is_the_servers_doing(folder: Path) -> None:
    async with Server(folder, Flag.READ_ONLY) as server:
        client = server.connect()
        root = client.attach()
        assert client.content(root, b"file") == b"shared\n"
        fid = client.walk(root, b"file")
        for request in (
            ninep.Lopen(fid, 1),
            ninep.Lopen(fid, 2),
            ninep.Lopen(fid, 0o1000),
            ninep.Lcreate(client.walk(root), b"new", 0o102, 0o644, 0),
            ninep.Lcreate(client.walk(root), b"file", 0, 0o644, 0),
            ninep.Setattr(fid, 1, 0o777, 0, 0, 0, 0, 0, 0, 0),
            ninep.Setattr(fid, 8, 0, 0, 0, 0, 0, 0, 0, 0),
            ninep.Mkdir(root, b"new", 0o755, 0),
            ninep.Symlink(root, b"new", b"x", 0),
            ninep.Mknod(root, b"new", stat.S_IFREG, 0, 0, 0),
            ninep.Link(root, fid, b"new"),
            ninep.Renameat(root, b"file", root, b"new"),
            ninep.Rename(fid, root, b"new"),
            ninep.Unlinkat(root, b"file", 0),
            ninep.Xattrcreate(fid, b"user.x", 1, 0),
            ninep.Remove(fid),
        ):
            refused(errno.EROFS, client.ask, request)
        assert "ro" in mounts(server)[0][5].split(",")
    assert names(folder) == ["absolute", "file", "outside", "sub", "up"]


async def test_a_restricted_share_has_the_named_files_and_no_others(folder: Path) -> None:
    async with Server(folder, Flag.RESTRICT, ["file", "later"]) as server:
        client = server.connect()
        root = client.attach()
        assert client.names(root) == {b"file"}
        fid = client.walk(root, b"file")
        refused(errno.ENOENT, client.walk, root, b"sub")
        refused(errno.EACCES, client.create, root, b"other")
        for request in (
            ninep.Mkdir(root, b"other", 0o755, 0),
            ninep.Link(root, fid, b"other"),
            ninep.Renameat(root, b"file", root, b"other"),
            ninep.Renameat(root, b"sub", root, b"later"),
            ninep.Unlinkat(root, b"sub", 0x200),
            ninep.Setattr(root, 1, 0o777, 0, 0, 0, 0, 0, 0, 0),
        ):
            refused(errno.EACCES, client.ask, request)
        client.create(root, b"later", b"new")
        assert client.names(root) == {b"file", b"later"}
    assert (folder / "later").read_text() == "new"


async def test_files_have_the_owners_that_the_guest_may_know(folder: Path) -> None:
    async with Server(folder) as server:
        client = server.connect()
        root = client.attach(uid=1000)
        fid = client.create(root, b"new", mode=0o640, gid=1001)
        client.ask(ninep.Mkdir(root, b"folder", 0o750, 1001))
        theirs = (1000, 1001) if ROOT else (0, 0)
        assert client.attributes(fid)[:3] == (stat.S_IFREG | 0o640, *theirs)
        assert client.attributes(client.walk(root, b"folder"))[1:3] == theirs
        host = (folder / "new").stat()
        assert (host.st_uid, host.st_gid) == (theirs if ROOT else (os.geteuid(), os.getegid()))
        if ROOT:
            client.change(fid, 2 | 4, uid=5, gid=6)
            assert client.attributes(fid)[1:3] == (5, 6)
        else:
            refused(errno.EPERM, lambda: client.change(fid, 2, uid=5))
            client.change(fid, 2 | 4)


@pytest.mark.skipif(not ROOT, reason="a server of an ordinary user is that user anyway")
async def test_a_server_that_is_the_shares_owner_has_none_of_roots_rights(folder: Path) -> None:
    for path in (folder, folder / "sub", folder / "file"):
        os.chown(path, 1234, 1235)
    (folder / "roots").write_bytes(SECRET)
    (folder / "roots").chmod(0o600)
    async with Server(folder, Flag.SQUASH) as server:
        client = server.connect()
        root = client.attach(uid=1000)
        assert client.attributes(client.walk(root, b"file"))[1:3] == (0, 0)
        assert client.attributes(client.walk(root, b"roots"))[1:3] == (65534, 65534)
        fid = client.create(root, b"new", gid=1000)
        assert client.attributes(fid)[1:3] == (0, 0)
        refused(errno.EACCES, client.open, root, b"roots")
        refused(errno.EPERM, lambda: client.change(fid, 2, uid=5))
        status = status_of(server)
        assert "CapEff:\t0000000000000000" in status
        assert "Uid:\t1234\t1234\t1234\t1234" in status
    assert ((folder / "new").stat().st_uid, (folder / "new").stat().st_gid) == (1234, 1235)


# -- a file system ---------------------------------------------------------------------------------------------------------


def test_files_are_made_written_and_changed(client: Client, folder: Path) -> None:
    root = client.attach()
    fid = client.create(root, b"new", b"hello", mode=0o600)
    client.change(fid, 8, size=2)
    client.change(fid, 1, mode=0o444)
    client.change(fid, 0x20 | 0x100, mtime=1_000_000_000)
    client.ask(ninep.Fsync(fid, 0))
    told = (folder / "new").stat()
    assert (told.st_size, stat.S_IMODE(told.st_mode), told.st_mtime) == (2, 0o444, 1_000_000_000)
    refused(errno.EEXIST, lambda: client.create(root, b"new", flags=0o302))
    again = client.walk(root)
    client.ask(ninep.Lcreate(again, b"file", 0o1102, 0o600, 0))
    assert (folder / "file").read_text() == ""
    client.ask(ninep.Symlink(root, b"link", b"new", 0))
    client.ask(ninep.Link(root, fid, b"hard"))
    assert (folder / "hard").stat().st_nlink == 2
    assert os.readlink(folder / "link") == "new"  # noqa: PTH115
    client.ask(ninep.Mknod(root, b"pipe", stat.S_IFIFO | 0o600, 0, 0, 0))
    assert stat.S_ISFIFO((folder / "pipe").stat().st_mode)


def test_a_file_keeps_its_fids_when_it_or_its_folder_is_moved(client: Client, folder: Path) -> None:
    root = client.attach()
    sub = client.walk(root, b"sub")
    inner, deep = client.walk(sub, b"inner"), client.walk(sub, b"deep")
    client.create(deep, b"file", b"1")
    far = client.walk(deep, b"file")
    client.ask(ninep.Renameat(sub, b"inner", root, b"outer"))
    client.ask(ninep.Rename(deep, root, b"moved"))
    client.ask(ninep.Lopen(inner, 0))
    client.ask(ninep.Lopen(far, 0))
    assert (client.read(inner), client.read(far)) == (b"inner\n", b"1")
    client.ask(ninep.Remove(far))
    assert sorted(path.name for path in folder.iterdir()) == ["absolute", "file", "moved", "outer", "outside", "sub", "up"]
    assert list((folder / "moved").iterdir()) == []
    refused(errno.EBUSY, client.ask, ninep.Remove(root))


def test_an_open_file_lives_on_when_it_is_removed(client: Client, folder: Path) -> None:
    root = client.attach()
    fid = client.open(root, b"file", flags=2)
    client.ask(ninep.Unlinkat(root, b"file", 0))
    assert client.read(fid) == b"shared\n"
    client.change(fid, 8, size=3)
    assert client.attributes(fid)[3] == 3
    assert not (folder / "file").exists()


def test_a_folder_of_many_is_read_in_pieces_and_from_any_place(client: Client, folder: Path) -> None:
    wanted = {f"name-{number}" for number in range(500)}
    for name in wanted:
        (folder / "sub" / "deep" / name).touch()
    root = client.attach()
    assert {name.decode() for name in client.names(root, b"sub", b"deep")} == wanted
    fid = client.open(root, b"sub", b"deep")
    first = client.entries(fid, 400)
    assert [entry.name for entry in first[:2]] == [b".", b".."]
    assert client.entries(fid, 400, first[2].offset)[0] == first[3]
    assert client.entries(fid, 400, 0) == first
    assert {entry.inode for entry in first[2:]} <= {path.stat().st_ino for path in (folder / "sub" / "deep").iterdir()}


def test_locks_of_two_connections_exclude_each_other(server: Server) -> None:
    one, two = server.connect(), server.connect()
    first, second = one.open(one.attach(), b"file", flags=2), two.open(two.attach(), b"file", flags=2)
    assert one.ask(ninep.Lock(first, 1, 0, 0, 10, 77, b"guest")) == b"\0"
    assert two.ask(ninep.Lock(second, 1, 1, 5, 0, 78, b"guest")) == b"\1"
    assert two.ask(ninep.Getlock(second, 1, 5, 0, 78, b"guest"))[0] == 1
    assert two.ask(ninep.Lock(second, 1, 0, 10, 0, 78, b"guest")) == b"\0"
    one.ask(ninep.Clunk(first))
    assert two.ask(ninep.Lock(second, 1, 0, 0, 0, 78, b"guest")) == b"\0"
    refused(errno.EINVAL, two.ask, ninep.Lock(second, 9, 0, 0, 0, 78, b"guest"))
    refused(errno.EINVAL, two.ask, ninep.Lock(second, 1, 0, 1 << 63, 0, 78, b"guest"))


def test_attributes_of_users_are_kept_and_others_refused(client: Client, folder: Path) -> None:
    try:
        os.setxattr(folder / "file", "user.probe", b"1")
    except OSError as error:
        pytest.fail(f"the folder for temporary files keeps no extended attributes: {error}")
    root = client.attach()
    fid = client.walk(root, b"file")
    client.ask(ninep.Xattrcreate(fid, b"user.new", 5, 0))
    assert client.write(fid, b"va") == 2
    assert client.write(fid, b"lue", 2) == 3
    refused(errno.EINVAL, client.write, fid, b"x", 5)
    client.ask(ninep.Clunk(fid))
    assert os.getxattr(folder / "file", "user.new") == b"value"
    fid, value = client.walk(root, b"file"), client.fid()
    assert client.ask(ninep.Xattrwalk(fid, value, b"user.new")) == (5).to_bytes(8, "little")
    assert client.read(value) == b"value"
    listed = client.fid()
    client.ask(ninep.Xattrwalk(fid, listed, b""))
    assert set(client.read(listed).split(b"\0")) == {b"user.probe", b"user.new", b""}
    refused(errno.ENODATA, client.ask, ninep.Xattrwalk(fid, client.fid(), b"security.capability"))
    refused(errno.EOPNOTSUPP, client.ask, ninep.Xattrcreate(fid, b"security.capability", 5, 0))
    refused(errno.EBADF, client.walk, value)


async def test_a_killed_server_ends_its_connections(folder: Path) -> None:
    async with Server(folder) as server:
        client = server.connect()
        root = client.attach()
        os.kill(server.pid, signal.SIGKILL)
        await server.child.wait()
        assert client.raw(ninep.encode(1, ninep.Clunk(root))) is None
        with pytest.raises(BrokenPipeError):
            socket.send_fds(server.control, [bytes(4)], [client.sock.fileno()])


@pytest.mark.skipif(not ROOT, reason="only root gives files to others")
async def test_a_file_that_cannot_be_given_to_its_owner_leaves_no_descriptor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # as file systems without owners do
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr("os.fchown", refuse)
    root = os.open(folder, os.O_PATH)
    session = Session(Tree(root), b"0", 65536)
    session._answer(0, 0, ninep.Attach(0, ninep.NO_FID, b"root", b"0", 0))
    session._answer(0, 0, ninep.Walk(0, 1, ()))
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 (numbers, not paths)
    with pytest.raises(PermissionError):
        session._answer(0, 0, ninep.Lcreate(1, b"new", os.O_RDWR, 0o644, 0))
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
    session.close()
    os.close(root)


async def test_a_server_that_is_ended_while_it_starts_is_not_waited_for(folder: Path) -> None:
    flags = Flag(0) if ROOT else Flag.ORDINARY
    server = plan9._Server(VmId("x"), "vm x: share s", ShareSpec("s", str(folder), flags, ()))
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:

        async def start() -> None:
            with pytest.raises(HostError, match="its server ended"):
                await server.start()

        group.create_task(start())
        await asyncio.sleep(0)
        await server.aclose()
    await server.aclose()
    near, far = socket.socketpair()  # one of them has the number that was waited for
    with near, far:
        for one, other in ((near, far), (far, near)):
            one.setblocking(False)
            asyncio.get_running_loop().call_later(0.05, other.send, b"heard")
            async with asyncio.timeout(10):
                assert await asyncio.get_running_loop().sock_recv(one, 10) == b"heard"
