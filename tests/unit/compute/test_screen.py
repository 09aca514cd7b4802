"""The screen's socket: whoever connects is handed to QEMU by its monitor, and the path goes with the machine."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.descriptors import none_left

from utilityvm.compute.qemu.lower import check
from utilityvm.compute.qemu.monitor import Monitor
from utilityvm.compute.qemu.screen import Screen, require_screen
from utilityvm.kit.aio import Scope
from utilityvm.kit.errors import Exists, Unsupported

from .test_lower import with_value

DEVICES = ("VirtualMachine", "Devices")


class Qemu:
    """QEMU's end of its monitor: takes descriptors, and refuses the clients of `refuses`."""

    def __init__(self, sock: socket.socket, refuses: frozenset[int]) -> None:
        self._sock, self._refuses, self.clients = sock, refuses, list[socket.socket]()

    def serve(self) -> None:
        self._sock.sendall(b'{"QMP": {}}\r\n')
        reader, kept = json.JSONDecoder(), ""
        names: dict[str, int] = {}
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._sock, 65536, 10)
            except ConnectionResetError:  # its last answer was not read
                return
            if not data:
                return
            kept += data.decode()
            while kept.strip():
                try:
                    command, end = reader.raw_decode(kept.lstrip())
                except json.JSONDecodeError:
                    break
                kept = kept.lstrip()[end:]
                answer: dict[str, object] = {"return": {}}
                if command["execute"] == "getfd":
                    names[command["arguments"]["fdname"]] = fds.pop()
                if command["execute"] == "add_client":
                    assert command["arguments"] == {"protocol": "vnc", "fdname": command["arguments"]["fdname"], "skipauth": True}
                    self.clients.append(socket.socket(fileno=names.pop(command["arguments"]["fdname"])))
                    if len(self.clients) in self._refuses:
                        answer = {"error": {"class": "GenericError", "desc": "no more"}}
                        self.clients[-1].close()
                    else:
                        self.clients[-1].sendall(f"screen {len(self.clients)}".encode())
                self._sock.sendall(json.dumps(answer | {"id": command["id"]}).encode() + b"\r\n")


@asynccontextmanager
async def shown(path: Path, refuses: frozenset[int] = frozenset()) -> AsyncIterator[tuple[Screen, Scope]]:
    """A screen at `path`, with its machine's tasks and QEMU's end."""
    ours, theirs = socket.socketpair()
    screen, scope = Screen(str(path), "vm x"), Scope("test")
    screen.open()
    with ours, theirs:
        qemu, monitor = Qemu(theirs, refuses), Monitor("vm x", ours)
        async with asyncio.timeout(10):
            serving = asyncio.get_running_loop().run_in_executor(None, qemu.serve)
            scope.start("monitor", monitor.run())
            scope.start("screen", screen.run(monitor))
            yield screen, scope
            await scope.aclose()
            ours.close()
            await serving
        for client in qemu.clients:
            client.close()
    screen.close()


async def test_each_who_connects_is_handed_to_qemu_and_one_that_it_refuses_harms_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "screen"
    async with shown(path, frozenset({2})) as (screen, _):
        assert path.stat().st_mode & 0o777 == 0o600
        for number, says in ((1, b"screen 1"), (2, b""), (3, b"screen 3")):
            reader, writer = await asyncio.open_unix_connection(path)
            assert await reader.read(100) == says, number
            writer.close()
            await writer.wait_closed()
    screen.close()
    assert not path.exists()
    assert "no more" in caplog.text


async def test_a_path_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Exists, match="the screen's socket cannot be made there"):
        Screen(str(tmp_path / "file"), "vm x").open()


def test_a_kernel_that_is_told_of_no_screen_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(b"\x7fELF" + bytes(60))
    with pytest.raises(Unsupported, match="vmlinux: an ELF kernel"):
        require_screen("/no/qemu", tmp_path / "vmlinux")


def test_a_qemu_without_a_screen_is_refused_in_its_words(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(bytes(60))
    qemu = tmp_path / "qemu"
    qemu.write_text('#!/bin/sh\necho "$0: VNC support is disabled" >&2; exit 1\n')
    qemu.chmod(0o755)
    with pytest.raises(Unsupported, match="VNC support is disabled"):
        require_screen(str(qemu), tmp_path / "kernel")
    qemu.write_text("#!/bin/sh\n")
    require_screen(str(qemu), tmp_path / "kernel")


@pytest.mark.parametrize(
    ("devices", "says"),
    [
        ({"VideoMonitor": {}}, "VideoMonitor.ConnectionOptions.NamedPipe: missing: the screen is seen by VNC"),
        ({"VideoMonitor": {"ConnectionOptions": {"NamedPipe": "x"}}}, "NamedPipe: 'x': on this host it is the absolute path"),
        ({"EnhancedModeVideo": {}}, "EnhancedModeVideo: is another way to see a VideoMonitor"),
    ],
)
def test_a_screen_that_nobody_could_see_is_refused(devices: dict[str, object], says: str) -> None:
    with pytest.raises(Unsupported) as caught:
        check(with_value(DEVICES, devices))
    assert says in caught.value.message


async def test_a_screen_that_is_closed_while_it_listens_deafens_no_socket_that_gets_its_number(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    screen, scope = Screen(str(tmp_path / "screen"), "vm x"), Scope("test")
    with ours, theirs:
        screen.open()
        assert screen._listener is not None
        number = screen._listener.fileno()
        scope.start("screen", screen.run(Monitor("vm x", ours)))
        await asyncio.sleep(0)
        screen.close()
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            assert near.fileno() == number
            asyncio.get_running_loop().call_later(0.05, far.send, b"heard")  # when it is already waited for
            async with asyncio.timeout(10):
                assert await asyncio.get_running_loop().sock_recv(near, 10) == b"heard"
            await scope.aclose()


async def test_a_client_for_whom_there_is_no_descriptor_waits_and_the_vm_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("utilityvm.compute.qemu.screen.ACCEPT_AGAIN", 0.01)
    path = tmp_path / "screen"
    async with shown(path) as (_, scope):
        with socket.socket(socket.AF_UNIX) as client:
            await asyncio.sleep(0)  # until it listens
            with none_left():
                client.connect(str(path))
                while "Too many open files" not in caplog.text:
                    await asyncio.sleep(0.001)
            client.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(client, 100) == b"screen 1"
            assert scope.failure is None
