"""The stand-in for Windows' host service, compiled and loaded as Windows' libraries are; sockets and pipes of this host."""

import asyncio
import ctypes
import json
import os
import shutil
import socket
import subprocess  # noqa: TID251 (the compiler)
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, Any, NamedTuple, cast

from utilityvm.compute.hcs._abi import Abi, Processes
from utilityvm.compute.hcs.calls import Hcs
from utilityvm.compute.hcs.service import HcsService
from utilityvm.compute.hcs.timeouts import Timeouts
from utilityvm.kit.named import ProtocolFactory
from utilityvm.testing.kernels import Then

ANSWER, SILENT, AT_ONCE, HOLD, WITH_HANDLE = 1, 2, 4, 8, 16
GUESTS = {Then.HANG: 0, Then.POWER_OFF: 1, Then.RESET: 2}

_loaded: list[Abi] = []  # a thread of the stand-in may call back until the process ends
_numbers = count()


class Counts(NamedTuple):
    """What is open or was done wrong; all zero when everything was closed once."""

    open: int
    wrong_closes: int
    texts: int
    wrong_frees: int
    wrong_uses: int


NOTHING = Counts(0, 0, 0, 0, 0)


@cache
def compiled() -> Path:
    library = Path(mkdtemp(prefix="uvm-standin-")) / "standin.so"
    source = Path(__file__).with_name("standin.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", library, source], check=True)  # noqa: S607
    return library


class StandIn:
    """One host service, with nothing in it."""

    def __init__(self, folder: Path) -> None:
        path = folder / f"standin-{next(_numbers)}.so"  # another file is loaded once more, with state of its own
        shutil.copy(compiled(), path)
        self.library = ctypes.CDLL(str(path), use_errno=True)  # by which Windows' GetLastError is played
        self.library.standin_calls.restype = ctypes.c_char_p
        self.abi, self.processes = Abi(lambda _name: self.library), Processes(lambda _name: self.library)
        _loaded.append(self.abi)
        self.sockets, self.pipes = UnixSockets(), Descriptors(folder)

    def service(self, **timeouts: float) -> HcsService:
        return HcsService(Hcs(self.abi), self.sockets, self.pipes, self.processes, timeouts=Timeouts(**timeouts), environ={})

    def script(self, name: str, hresult: int = 0, result: str = "", how: int = ANSWER) -> None:
        self.library.standin_script(name.encode(), ctypes.c_uint32(hresult), result.encode(), how)

    def guest(self, then: Then) -> None:
        self.library.standin_guest(GUESTS[then])

    def notify(self, kind: int, status: int = 0, data: str = "", *, of_process: bool = False, forced: bool = False) -> None:
        self.library.standin_notify(of_process, kind, ctypes.c_uint32(status), data.encode(), forced)

    def host_process(self, pid: int, file: str, domain: str = "", name: str = "", working_set: int = 0) -> None:
        """Let there be a process of the host."""
        self.library.standin_host_process(pid, file.encode(), domain.encode(), name.encode(), ctypes.c_uint64(working_set))

    def settle(self) -> None:
        """Wait until every notification has reached the callback."""
        self.library.standin_settle()

    async def held(self, calls: int = 1) -> None:
        """Wait until so many calls are held."""
        await asyncio.to_thread(self.library.standin_wait_held, calls)

    @asynccontextmanager
    async def notifying(self, kind: int, *, of_process: bool = False) -> AsyncIterator[None]:
        """Within it the service's thread has a notification in its hand, right before it calls."""
        with self.holding_notes():
            self.notify(kind, of_process=of_process)
            await self.noted()
            yield

    @contextmanager
    def holding_notes(self) -> Iterator[None]:
        """Within it the service's thread stops with each notification, right before it calls."""
        self.library.standin_hold_notes(1)
        try:
            yield
        finally:
            self.library.standin_hold_notes(0)

    async def noted(self) -> None:
        """Wait until it has stopped with one."""
        await asyncio.to_thread(self.library.standin_wait_note)

    async def called(self, name: str) -> None:
        """Wait until a function has been called."""
        await asyncio.to_thread(self.library.standin_wait_call, name.encode())

    async def closed(self) -> None:
        """Wait until no handle is open."""
        await asyncio.to_thread(self.library.standin_wait_closed)

    def release(self) -> None:
        self.library.standin_release()

    @property
    def counts(self) -> Counts:
        numbers = (ctypes.c_int * 5)()
        self.library.standin_counts(numbers)
        return Counts(*numbers)

    @property
    def calls(self) -> list[tuple[str, ...]]:
        """Every call: its name, and its first two texts."""
        told = self.library.standin_calls().decode()
        return [tuple(call.split("\x1f")) for call in told.split("\x1e")[:-1]]

    @property
    def names(self) -> list[str]:
        return [call[0] for call in self.calls]

    def document(self, name: str = "HcsCreateComputeSystem") -> Any:  # noqa: ANN401 (JSON)
        """The document that the newest call of this name was given."""
        call = next(call for call in reversed(self.calls) if call[0] == name)
        return json.loads(call[2] or call[1])

    def end_of(self, pid: int, which: int) -> int:
        """The other end of a process's stream."""
        end: int = self.library.standin_process_end(pid, which)
        return end

    def exit(self, pid: int, code: int) -> None:
        self.library.standin_process_exit(pid, code)


class UnixSockets:
    """Hvsockets as sockets in a folder, by their addresses."""

    def __init__(self) -> None:
        self._folder = Path(mkdtemp(prefix="hv-", dir="/tmp"))
        self.asked: list[tuple[str, str]] = []
        self.fails: OSError | None = None

    def path(self, runtime_id: str, service_id: str) -> str:
        return str(self._folder / f"{runtime_id[-4:]}-{service_id[:8]}")

    def listen(self, runtime_id: str, service_id: str) -> socket.socket:
        self.asked.append((runtime_id, service_id))
        if self.fails is not None:
            raise self.fails
        path = self.path(runtime_id, service_id)
        Path(path).unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.bind(path)
            sock.listen()
        except OSError:
            sock.close()
            raise
        return sock


class Descriptors:
    """Pipe handles as descriptors, named pipes as sockets in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.fails: OSError | None = None

    def path(self, name: str) -> str:
        return str(self._folder / name.rsplit("\\", 1)[-1][:40])

    async def read(self, handle: int, protocol: asyncio.Protocol) -> asyncio.BaseTransport:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, self._file(handle, "rb"))
        return transport

    async def write(self, handle: int, protocol: asyncio.BaseProtocol) -> asyncio.BaseTransport:
        transport, _ = await asyncio.get_running_loop().connect_write_pipe(lambda: protocol, self._file(handle, "wb"))
        return transport

    async def serve(self, name: str, factory: ProtocolFactory) -> asyncio.Server:
        return await asyncio.get_running_loop().create_unix_server(factory, self.path(name))

    async def dial(self, name: str, protocol: asyncio.Protocol) -> asyncio.BaseTransport:
        transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: protocol, self.path(name))
        return transport

    def close(self, handle: int) -> None:
        os.close(handle)

    def _file(self, handle: int, mode: str) -> IO[bytes]:
        if self.fails is not None:
            os.close(handle)
            raise self.fails
        return cast("IO[bytes]", os.fdopen(handle, mode, 0))


def standin(folder: Path) -> Iterator[StandIn]:
    """A fixture's body: everything that was opened is closed once at the end."""
    made = StandIn(folder)
    yield made
    made.settle()
    assert made.counts == NOTHING
