"""What is asked of Windows itself for sockets, pipes and libraries: the calls as Python documents them, since no Windows is here."""

import asyncio
import ctypes
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from utilityvm.compute.hcs import _abi, hvsocket, pipes
from utilityvm.compute.hcs.hvsocket import Hypersockets
from utilityvm.compute.hcs.pipes import NamedPipes
from utilityvm.guest.transport import BACKLOG

WINDOWS = SimpleNamespace(platform="win32", version_info=sys.version_info)


class Socket:
    """Records what is done to it; binding to `taken` fails."""

    taken = ("r", "taken")
    made: list["Socket"] = []  # noqa: RUF012 (emptied by each test)

    def __init__(self, *kind: int) -> None:
        self.done: list[object] = [kind]
        Socket.made.append(self)

    def bind(self, address: tuple[str, str]) -> None:
        if address == self.taken:
            raise OSError(10048, "address in use")
        self.done.append(address)

    def listen(self, backlog: int) -> None:
        self.done.append(backlog)

    def close(self) -> None:
        self.done.append("closed")


def test_a_hvsocket_is_bound_to_the_guests_and_the_services_ids_and_closed_if_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    Socket.made.clear()
    monkeypatch.setattr(hvsocket, "sys", WINDOWS)
    monkeypatch.setattr(hvsocket, "socket", SimpleNamespace(AF_HYPERV=34, SOCK_STREAM=1, HV_PROTOCOL_RAW=1, socket=Socket))
    sockets = Hypersockets()
    sockets.listen("r", "s")
    with pytest.raises(OSError, match="address in use"):
        sockets.listen(*Socket.taken)
    assert [sock.done for sock in Socket.made] == [[(34, 1, 1), ("r", "s"), BACKLOG], [(34, 1, 1), "closed"]]


class Server:
    closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
async def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What the event loop of Windows is asked for, by a loop that is taken for one."""
    loop, asked = asyncio.get_running_loop(), list[tuple[object, ...]]()

    def answering(name: str, answer: Callable[[Any], Any]) -> Callable[..., Any]:
        async def call(factory: Callable[[], asyncio.Protocol], what: object) -> Any:  # noqa: ANN401 (asyncio's own types)
            asked.append((name, what))
            return answer(factory)

        return call

    monkeypatch.setattr(pipes, "sys", WINDOWS)
    monkeypatch.setattr(asyncio, "ProactorEventLoop", type(loop), raising=False)
    windows_utils = ModuleType("asyncio.windows_utils")
    windows_utils.PipeHandle = lambda handle: SimpleNamespace(handle=handle, close=lambda: asked.append(("close", handle)))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "asyncio.windows_utils", windows_utils)
    monkeypatch.setattr(asyncio, "windows_utils", windows_utils, raising=False)
    for name in ("create_pipe_connection", "connect_read_pipe", "connect_write_pipe"):
        monkeypatch.setattr(loop, name, answering(name, lambda factory: ("transport", factory())), raising=False)
    monkeypatch.setattr(loop, "start_serving_pipe", answering("start_serving_pipe", lambda _: [server]), raising=False)
    asked.append((server := Server(),))
    return asked


async def test_pipes_are_served_dialled_and_taken_over_by_the_loop_of_windows(asked: list[tuple[object, ...]]) -> None:
    named, protocol, server = NamedPipes(), asyncio.Protocol(), asked.pop()[0]
    served = await named.serve("p", asyncio.Protocol)
    served.close()
    served.close()
    assert isinstance(server, Server)
    assert server.closed == 1
    transports: list[Any] = [await named.dial("q", protocol), await named.read(3, protocol), await named.write(4, protocol)]
    assert transports == ["transport"] * 3
    named.close(5)
    plain = [(name, getattr(what, "handle", what)) for name, what in asked]
    assert plain == [
        ("start_serving_pipe", "p"),
        ("create_pipe_connection", "q"),
        ("connect_read_pipe", 3),
        ("connect_write_pipe", 4),
        ("close", 5),
    ]


def test_libraries_are_taken_from_windows_own_folder_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(_abi, "sys", WINDOWS)
    monkeypatch.setattr(ctypes, "WinDLL", lambda name, **how: loaded.append((name, how)), raising=False)
    _abi.find_dll("vmcompute.dll")
    assert loaded == [("vmcompute.dll", {"use_last_error": True, "winmode": 0x800})]
