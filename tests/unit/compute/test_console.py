"""The console is kept, shown to one client, and never holds the machine up."""

import asyncio
import contextlib
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.descriptors import none_left

from utilityvm.compute.qemu.console import KEPT, SerialConsole
from utilityvm.kit.errors import Exists, HostError


class Rig:
    """A console and QEMU's end of its socket."""

    def __init__(self, console: SerialConsole, qemu: socket.socket) -> None:
        self.console, self.qemu = console, qemu

    async def says(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.qemu, data)

    async def shows(self, text: str) -> None:
        async with asyncio.timeout(5):
            while text not in self.console.tail(1000):
                await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def rig(path: Path | str = "") -> AsyncIterator[Rig]:
    console = SerialConsole(str(path))
    ours, qemu = socket.socketpair()
    qemu.setblocking(False)
    with ours, qemu:
        console.open(ours)
        try:
            yield Rig(console, qemu)
        finally:
            console.close()


async def test_the_last_lines_are_kept() -> None:
    async with rig() as it:
        await it.says(b"one\r\ntwo\r\n\r\nthree")
        await it.shows("three")
        assert it.console.tail(2) == "two\nthree"
        await it.says(b"x" * (KEPT + 10))
        await it.says(b"\nend")
        await it.shows("end")
        assert len(it.console.tail(1000)) == KEPT
        assert it.console.tail(1) == "end"


async def test_a_guest_that_never_stops_talking_leaves_the_loop_to_others() -> None:
    async with rig() as it:
        it.qemu.send(b"x" * 150_000)
        while not it.console._kept.data:
            await asyncio.sleep(0)
        assert len(it.console._kept.data) <= 65_536
        it.console.close()
        assert len(it.console._kept.data) == 150_000


async def test_what_could_steer_a_terminal_is_left_out() -> None:
    async with rig() as it:
        await it.says(b"\x1b[2Jred\x07\tgreen\xff \x9b31m\nend")
        await it.shows("end")
        assert it.console.tail(2).isprintable() is False  # the line break alone
        assert it.console.tail(2).splitlines() == ["[2Jred green\ufffd \ufffd31m", "end"]


async def test_closing_reads_what_is_left() -> None:
    async with rig() as it:
        it.qemu.send(b"last words")
        it.console.close()
        assert it.console.tail(1) == "last words"
        it.console.close()


async def test_the_end_of_qemu_is_no_error() -> None:
    async with rig() as it:
        it.qemu.send(b"last words")
        it.qemu.close()
        await it.shows("last words")


async def test_a_client_looks_on_and_types(tmp_path: Path) -> None:
    path = tmp_path / "console"
    async with rig(path) as it:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"typed")
        assert await asyncio.get_running_loop().sock_recv(it.qemu, 100) == b"typed"
        await it.says(b"login:")
        assert await reader.readexactly(6) == b"login:"
        writer.close()
        await writer.wait_closed()
        await it.says(b" still kept")
        await it.shows("login: still kept")
    assert not path.exists()


async def test_the_next_client_waits_for_the_first_to_leave(tmp_path: Path) -> None:
    path = tmp_path / "console"
    async with rig(path) as it:
        _, first = await asyncio.open_unix_connection(path)
        first.write(b"1")
        assert await asyncio.get_running_loop().sock_recv(it.qemu, 100) == b"1"
        reader, second = await asyncio.open_unix_connection(path)
        second.write(b"2")
        first.close()
        assert await asyncio.get_running_loop().sock_recv(it.qemu, 100) == b"2"
        await it.says(b"hello")
        assert await reader.readexactly(5) == b"hello"
        second.close()
        await second.wait_closed()


async def test_a_client_that_never_reads_loses_the_oldest_and_holds_nothing_up(tmp_path: Path) -> None:
    path = tmp_path / "console"
    async with rig(path) as it:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.send(b"here")
            assert await asyncio.get_running_loop().sock_recv(it.qemu, 100) == b"here"
            lines = b"".join(b"%09d\n" % number for number in range(200_000))
            async with asyncio.timeout(20):
                await it.says(lines)
                await it.says(b"the end\n")
                await it.shows("the end")
            client.setblocking(False)
            got = bytearray()
            while not got.endswith(b"the end\n"):
                got += await asyncio.get_running_loop().sock_recv(client, 1 << 20)
            assert KEPT < len(got) < len(lines) // 2
            assert lines.startswith(got[:1000])


async def test_a_guest_that_takes_no_input_stops_the_one_who_types(tmp_path: Path) -> None:
    path = tmp_path / "console"
    async with rig(path) as it:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.setblocking(False)
            sent = b"".join(b"%09d\n" % number for number in range(200_000))
            got = bytearray()
            async with asyncio.timeout(20), asyncio.TaskGroup() as group:
                group.create_task(asyncio.get_running_loop().sock_sendall(client, sent))
                while len(got) < len(sent):
                    got += await asyncio.get_running_loop().sock_recv(it.qemu, 100_000)
            assert got == sent


async def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "console"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with rig(path):
        _, writer = await asyncio.open_unix_connection(path)
        writer.close()
        await writer.wait_closed()


async def test_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "console"
    async with rig(path):
        with pytest.raises(Exists, match=r"console: another process listens there"):
            async with rig(path):
                pass
        assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "folder", "link to nowhere"])
async def test_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "console"
    match kind:
        case "file":
            path.touch()
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to("nowhere")
    with pytest.raises(Exists, match=r"not a socket"):
        async with rig(path):
            pass
    assert path.is_symlink() or path.exists()


@pytest.mark.parametrize("name", ["missing/console", "x" * 120])
async def test_a_path_that_cannot_be_is_a_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(HostError, match=r"cannot be the console's socket"):
        async with rig(tmp_path / name):
            pass


async def test_a_path_that_another_took_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "console"
    async with rig(path):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            (tmp_path / "keep-the-inode").touch()
            other.bind(str(path))
    assert path.is_socket()


async def test_a_client_for_whom_there_is_no_descriptor_waits_and_nothing_turns_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utilityvm.compute.qemu.console.ACCEPT_AGAIN", 0.05)
    path, failed = tmp_path / "console", list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
    async with rig(path) as it:
        with socket.socket(socket.AF_UNIX) as client, none_left():
            client.connect(str(path))
            client.setblocking(False)
            await asyncio.sleep(0.2)
            assert it.console._bridge is not None
            assert it.console._bridge._client is None
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.send(b"typed")
            async with asyncio.timeout(10):
                assert await asyncio.get_running_loop().sock_recv(it.qemu, 100) == b"typed"
    assert failed == []
