"""The folders of the host that one machine's guest mounts over 9p: a jailed server for each, and the connections between it and the guest.

All arrive on one port. Which share a guest wants it says in its first requests, so they are answered here; then its connection is the
server's, and only bytes are moved.
"""

import asyncio
import errno
import logging
import os
import socket
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, final

from utilityvm.compute.plan9.flags import Flag
from utilityvm.compute.plan9.spec import PORT, ShareSpec, spec_of, wrong_plan9
from utilityvm.guest.transport import GuestSockets, GuestStream, Listener
from utilityvm.kit.aio import Scope, finish
from utilityvm.kit.child import Child, next_message
from utilityvm.kit.enclosure import Enclosure
from utilityvm.kit.errors import (
    ConnectionLost,
    DeadlineExceeded,
    Exhausted,
    Exists,
    HostError,
    InvalidOptions,
    NotFound,
    ProtocolError,
    Unsupported,
    UtilityVMError,
)
from utilityvm.kit.ids import VmId
from utilityvm.kit.trace import event
from utilityvm.schema.devices import Plan9Share
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.wire.ninep import Chosen, Greeting, failure

RESOURCE: Final = "VirtualMachine/Devices/Plan9/Shares"
"""The path under which a running machine's shares are changed."""

MAX_SHARES: Final = 64
"""Shares of one machine."""

MAX_CONNECTIONS: Final = 8
"""Connections to one share at a time; the guest's kernel makes one for each mount."""

MAX_GREETINGS: Final = 16
"""Connections of one machine that have not said at a time which share they are for; one more is ended."""

START: Final = 30.0
"""Seconds that a server may take to be ready."""

GREETING: Final = 60.0
"""Seconds that a guest may take to say which share it wants."""

_CLEANUP: Final = 5.0
_CHUNK: Final = 256 * 1024
_SAID_LINES: Final = 10
_ANSWER: Final = 4096  # bytes of a server's one message
_KINDS: Final = {kind.kind.value: kind for kind in (NotFound, Unsupported)}


@final
class Shares:
    """The shares of the machine `vm_id`, called `name` in errors; its guest dials on any of `sockets`."""

    def __init__(self, vm_id: VmId, name: str, sockets: Sequence[GuestSockets]) -> None:
        self._id, self._name, self._sockets = vm_id, name, sockets
        self._servers: dict[str, _Server] = {}
        self._listeners: list[Listener] = []
        self._scope = Scope(f"{name}:shares")
        self._greeting, self._closed = 0, False

    def unknown(self, names: Collection[str]) -> list[str]:
        """Name the shares that are served and not among those of these `names`, in words."""
        return [f"the share {name}, which is in no table of the VM" for name in self._servers if name not in names]

    async def modify(self, request: ModifySettingRequest) -> None:
        """Carry out a change of shares.

        Raises:
            InvalidOptions, Unsupported: the share, or the change, makes no sense or cannot be carried out; the text says what.
            Exists, NotFound, Exhausted: there is such a share already, there is none, or no more fit.
            HostError, DeadlineExceeded: the share cannot be served.
        """
        share = request.settings
        if not isinstance(share, Plan9Share):
            raise InvalidOptions(f"{self._name}: {request.resource_path}: Settings: must be a Plan9Share")
        match request.request_type:
            case "Add":
                await self.add(share)
            case "Remove":
                await self.remove(share.name)
            case other:
                raise Unsupported(f"{self._name}: {request.resource_path}: {other}: a share is added and removed, and not changed")

    async def add(self, share: Plan9Share) -> None:
        """Serve a share; it can be mounted when this returns. See `modify` for errors."""
        if problems := list(wrong_plan9(share, RESOURCE)):
            refuse = InvalidOptions if any(problem.rule == "invalid" for problem in problems) else Unsupported
            raise refuse(f"{self._name}: " + "; ".join(f"{problem.path}: {problem.message}" for problem in problems))
        if share.name in self._servers:
            raise Exists(f"{self._name}: share {share.name}: exists already")
        if len(self._servers) >= MAX_SHARES:
            raise Exhausted(f"{self._name}: share {share.name}: there are {MAX_SHARES} already")
        self._listen()
        server = self._servers[share.name] = _Server(
            self._id, f"{self._name}: share {share.name}", spec_of(share, ordinary=os.geteuid() != 0)
        )
        try:
            await server.start()
            self._must_be_open()
        except BaseException:
            self._servers.pop(share.name, None)
            await finish(server.aclose(), within=_CLEANUP)
            raise

    def _must_be_open(self) -> None:
        if self._closed:
            raise ConnectionLost(f"{self._name}: the machine was closed")

    async def remove(self, name: str) -> None:
        """End a share; whoever has it mounted gets errors. See `modify` for errors."""
        if (server := self._servers.pop(name, None)) is None:
            raise NotFound(f"{self._name}: share {name!r}: there is none")
        await finish(server.aclose(), within=_CLEANUP)

    async def aclose(self) -> None:
        """End all shares. A second call does nothing."""
        self._closed = True
        await self._scope.aclose()
        for listener in self._listeners:
            listener.close()
        servers, self._servers = list(self._servers.values()), {}
        for server in servers:
            await server.aclose()

    def _listen(self) -> None:
        if not self._listeners:
            self._listeners = [sockets.listen(PORT) for sockets in self._sockets]
            for listener in self._listeners:
                self._scope.start("accept", self._accept(listener))

    async def _accept(self, listener: Listener) -> None:
        with suppress(ConnectionLost, ProtocolError):  # the machine has ended
            while True:
                stream = await listener.accept()
                if self._greeting >= MAX_GREETINGS:
                    stream.close()
                else:
                    self._greeting += 1
                    self._scope.start("greet", self._greet(stream))

    async def _greet(self, stream: GuestStream) -> None:
        """Learn which share a connection is for and hand it over."""
        try:
            async with asyncio.timeout(GREETING):
                chosen = await _chosen(stream)
            if chosen is not None:
                await self._hand_over(stream, chosen)
        except (UtilityVMError, OSError, TimeoutError) as error:
            event("share.refused", level=logging.WARNING, vm=self._id, error=str(error))
            stream.close()
        except BaseException:
            stream.close()
            raise
        finally:
            self._greeting -= 1

    async def _hand_over(self, stream: GuestStream, chosen: Chosen) -> None:
        server = self._servers.get(chosen.aname.decode(errors="surrogateescape"))
        number = errno.ENOENT if server is None else server.connect(stream, chosen)
        if number:
            await stream.write(failure(chosen.tag, number))
            with suppress(TimeoutError):  # the guest ends the connection: ended by us, it would not look at the answer
                async with asyncio.timeout(GREETING):
                    while await stream.read(_CHUNK):
                        pass
            stream.close()


async def _chosen(stream: GuestStream) -> Chosen | None:
    """Answer a guest until it has said which share it wants; None when it has gone."""
    greeting = Greeting()
    while data := await stream.read(_CHUNK):
        for reply in greeting.feed(data):
            if isinstance(reply, Chosen):
                return reply
            await stream.write(reply)
    stream.close()
    return None


@final
class _Server:
    """The server of one share, and its connections."""

    def __init__(self, vm_id: VmId, name: str, spec: ShareSpec) -> None:
        self._id, self._name, self._spec = vm_id, name, spec
        self._child: Child | None = None
        self._control: socket.socket | None = None
        self._scope = Scope(name)
        self._connections = 0
        self._starting = False

    async def start(self) -> None:
        """Start it, and wait until it is ready.

        Raises:
            NotFound, Unsupported, HostError, DeadlineExceeded: it does not get ready; the text says why.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._control = ours
            ours.setblocking(False)
            self._child = Child(self._words(theirs.fileno()), pass_fds=[theirs.fileno()], enclosure=enclosure(self._spec.flags))
        self._starting = True
        try:
            async with asyncio.timeout(START):
                said = await next_message(ours, _ANSWER)
                if said == b"":
                    code = await self._child.wait()
                    raise HostError(f"{self._name}: its server ended with code {code}: {self._child.output.text(_SAID_LINES)}", hint=_HINT)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._name}: its server was not ready within {START:g} s") from error
        finally:
            self._starting = False
        if said != b"ready":
            kind, _, why = said.decode(errors="replace").partition("\n")
            raise _KINDS.get(kind, HostError)(f"{self._name}: {why}")
        self._scope.start("exit", self._watch(self._child))

    def connect(self, stream: GuestStream, chosen: Chosen) -> int:
        """Give a guest's connection to the server; return 0, or the errno that the guest is told."""
        if self._connections >= MAX_CONNECTIONS:
            return errno.EBUSY
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                assert self._control is not None  # noqa: S101 (there since the start)
                socket.send_fds(self._control, [chosen.msize.to_bytes(4, "little")], [theirs.fileno()])
            except OSError:  # it has ended, or does not listen
                ours.close()
                return errno.EIO
        ours.setblocking(False)
        self._connections += 1

        def over(_task: "asyncio.Task[None]") -> None:
            stream.close()
            ours.close()
            self._connections -= 1

        self._scope.start("relay", self._relay(stream, ours, chosen.rest)).add_done_callback(over)  # it may be cancelled before it begins
        return 0

    async def aclose(self) -> None:
        """End it and its connections, and wait until it is gone. A second call does nothing."""
        await self._scope.aclose()
        if self._child is not None:
            self._child.kill()
            await self._child.wait()
        if self._control is not None and not self._starting:  # else `start` still reads the child's end on it, and closes it
            self._control.close()

    def _words(self, control: int) -> list[str]:
        spec = self._spec
        program = [sys.executable, "-I", "-m", "utilityvm.compute.plan9.serve"]
        return [*program, str(control), self._id, spec.name, str(int(spec.flags)), spec.path, *spec.allowed]

    async def _watch(self, child: Child) -> None:
        code = await child.wait()
        said = child.output.text(_SAID_LINES)
        event("share.ended", level=logging.ERROR, vm=self._id, resource=self._spec.name, error=f"its server ended with code {code}: {said}")

    async def _relay(self, stream: GuestStream, sock: socket.socket, first: bytes) -> None:
        """Move bytes both ways until one of them ends; each waits while the other side does not take them."""
        scope = Scope(self._name)
        try:
            ways = [scope.start("in", _to_server(stream, sock, first)), scope.start("out", _to_guest(stream, sock))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await finish(scope.aclose(), within=_CLEANUP)


_HINT: Final = "shares need user (unless for root), mount, pid, ipc, network, uts and cgroup namespaces, and setpriv and unshare"


def enclosure(flags: Flag) -> Enclosure:
    """Return what the server is put into: namespaces of its own. Its root it makes itself, when it has loaded what it runs."""
    user = ("--user", "--map-root-user") if Flag.ORDINARY in flags else ()
    first = ["ulimit -c 0"]
    if user:
        first.append("{ echo 0 >/proc/sys/user/max_user_namespaces; } 2>/dev/null || :")  # where /proc/sys is read-only it has them all
    return Enclosure(setpriv=("--no-new-privs",), unshare=(*user, "--mount", "--ipc", "--net", "--uts", "--cgroup"), first=tuple(first))


@contextmanager
def _over() -> Iterator[None]:
    """One side is gone: so is the connection."""
    with suppress(ConnectionLost, ProtocolError, OSError):
        yield


async def _to_server(stream: GuestStream, sock: socket.socket, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    with _over():
        while data:
            await loop.sock_sendall(sock, data)
            data = await stream.read(_CHUNK)


async def _to_guest(stream: GuestStream, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with _over():
        while data := await loop.sock_recv(sock, _CHUNK):
            await stream.write(data)
