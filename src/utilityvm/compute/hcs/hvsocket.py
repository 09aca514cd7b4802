"""Hvsockets: a guest's dials to the host, by the GUIDs of its partition and of the service."""

import asyncio
import selectors
import socket
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import final

from utilityvm.compute.hcs.ports import Sockets
from utilityvm.compute.hcs.streams import Stream
from utilityvm.guest.transport import BACKLOG, GuestStream, Listener
from utilityvm.kit.errors import ConnectionLost, Exhausted, HostError, Unsupported, UtilityVMError
from utilityvm.wire.services import service_id


@final
class Hypersockets:
    """A `ports.Sockets` of Windows' own. Python knows them from 3.12 on.

    Raises:
        Unsupported: this Python, or this host, has none.
    """

    def __init__(self) -> None:
        if not hasattr(socket, "AF_HYPERV"):
            version = ".".join(map(str, sys.version_info[:2]))
            raise Unsupported(f"hvsockets: Python {version} on {sys.platform} has no AF_HYPERV: Python 3.12 or newer on Windows is needed")

    def listen(self, runtime_id: str, service: str) -> socket.socket:
        """See `ports.Sockets.listen`."""
        if sys.platform != "win32":  # for who reads types
            raise Unsupported("hvsockets: not on this host")
        sock = socket.socket(socket.AF_HYPERV, socket.SOCK_STREAM, socket.HV_PROTOCOL_RAW)
        try:
            sock.bind((runtime_id, service))
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
        return sock


@final
class HvSockets:
    """Where one guest's dials arrive: a `guest.transport.GuestSockets`. `name` is the VM's, for errors."""

    def __init__(self, runtime_id: str, sockets: Sockets, name: str) -> None:
        self._runtime_id, self._sockets, self._name = runtime_id, sockets, name
        self._listeners: dict[int, _Listener] = {}
        self._unclosed: set[_Listener] = set()  # they may hold dials that nobody has accepted
        self._streams: set[Stream] = set()
        self._acceptor = _Acceptor(asyncio.get_running_loop(), name)
        self._over: UtilityVMError | None = None

    def listen(self, port: int, *, once: bool = False, programs: bool = False) -> Listener:  # noqa: ARG002 (Hyper-V knows no other dials)
        """See `guest.transport.GuestSockets.listen`. After the end every `accept` says that there will be no dial.

        Raises:
            HostError: Windows does not let us.
        """
        if port in self._listeners:
            raise Exhausted(f"{self._name}: guest port {port:#x} is listened to already")
        listener = _Listener(self, port, once=once)
        if self._over is not None:
            listener.fail(self._over)
            return listener
        try:
            sock = self._sockets.listen(self._runtime_id, service_id(port))
        except OSError as error:
            raise HostError(f"{self._name}: cannot listen for the guest's port {port:#x}: {error.strerror or error}") from error
        self._listeners[port] = listener
        self._unclosed.add(listener)
        self._acceptor.add(sock, listener.offer)
        listener.sock = sock
        return listener

    def end(self, reason: UtilityVMError) -> None:
        """There will be no more dials. Streams end by themselves. A second call does nothing."""
        self._over = self._over or reason
        for listener in list(self._listeners.values()):
            listener.fail(self._over)
            self.forget(listener)

    async def aclose(self) -> None:
        """End everything. A second call does nothing."""
        reason = ConnectionLost(f"{self._name}: the guest connection was closed")
        self.end(reason)
        for listener in list(self._unclosed):
            listener.close()
        for stream in list(self._streams):
            stream.fail(reason)
        await self._acceptor.aclose()

    async def stream(self, sock: socket.socket, port: int) -> GuestStream:
        """Make a stream of a dial."""
        stream = Stream(f"{self._name}: guest stream on port {port:#x}", self._streams.discard)
        self._streams.add(stream)
        await asyncio.get_running_loop().create_connection(lambda: stream, sock=sock)
        if self._over is not None and not self._acceptor.running:
            stream.fail(self._over)
        return stream

    def forget(self, listener: "_Listener") -> None:
        """Listen no more."""
        if self._listeners.get(listener.port) is listener:
            del self._listeners[listener.port]
        if listener.sock is not None:
            self._acceptor.remove(listener.sock)
            listener.sock = None

    def closed(self, listener: "_Listener") -> None:
        """Forget a listener that holds nothing any more."""
        self._unclosed.discard(listener)


@final
class _Listener:
    """A `Listener`; `once` ones end with their first dial."""

    def __init__(self, owner: HvSockets, port: int, *, once: bool) -> None:
        self._owner, self.port, self._once = owner, port, once
        self.sock: socket.socket | None = None
        self._waiting: deque[socket.socket] = deque()
        self._failure: UtilityVMError | None = None
        self._changed = asyncio.Event()

    async def accept(self) -> GuestStream:
        while not self._waiting:
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            self._changed.clear()
            await self._changed.wait()
        return await self._owner.stream(self._waiting.popleft(), self.port)

    def close(self) -> None:
        self.fail(ConnectionLost(f"guest port {self.port:#x} is no longer listened to"))
        for sock in self._waiting:
            sock.close()
        self._waiting.clear()
        self._owner.forget(self)
        self._owner.closed(self)

    def offer(self, sock: socket.socket) -> None:
        """Take a dial."""
        if self.sock is None or len(self._waiting) >= BACKLOG:
            sock.close()
            return
        self._waiting.append(sock)
        if self._once:
            self._owner.forget(self)
        self._changed.set()

    def fail(self, reason: UtilityVMError) -> None:
        self._failure = self._failure or reason
        self._changed.set()


@final
class _Acceptor:
    """Waits for dials on a thread of its own, from the first listener to the end.

    asyncio's own accept on Windows (AcceptEx) leaves room for addresses of 28 bytes, and those of hvsockets have 36.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop, self._name = loop, name
        self._orders: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._wake: socket.socket | None = None
        self._ended: asyncio.Future[None] = loop.create_future()
        self._closed = False

    @property
    def running(self) -> bool:
        return not self._closed

    def add(self, sock: socket.socket, arrived: Callable[[socket.socket], None]) -> None:
        """Call `arrived` in the loop with each dial to `sock`, which is ours from now on."""
        sock.setblocking(False)
        if self._thread is None:
            self._selector = selectors.DefaultSelector()
            self._wake, woken = socket.socketpair()
            woken.setblocking(False)
            self._wake.setblocking(False)
            self._selector.register(woken, selectors.EVENT_READ)
            self._thread = Thread(target=self._run, args=(woken,), name=f"hvsocket: {self._name}", daemon=True)
            self._thread.start()
        self._order(lambda: self._register(sock, arrived))

    def remove(self, sock: socket.socket) -> None:
        """Close `sock`: on the thread, which may be waiting on it."""
        self._order(lambda: self._unregister(sock))

    async def aclose(self) -> None:
        """End the thread, and with it what it waits on."""
        if self._thread is not None and not self._closed:
            self._closed = True
            self._order(None)
        self._closed = True
        if self._thread is not None:
            await asyncio.wait([self._ended])

    def _order(self, order: Callable[[], None] | None) -> None:
        self._orders.put(order)
        if self._wake is not None:
            with suppress(OSError):  # it has ended, or has not yet looked at what was ordered before
                self._wake.send(b"!")

    def _register(self, sock: socket.socket, arrived: Callable[[socket.socket], None]) -> None:
        self._selector.register(sock, selectors.EVENT_READ, arrived)

    def _unregister(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        sock.close()

    def _run(self, woken: socket.socket) -> None:
        try:
            while self._obey(woken):
                pass
        finally:
            for key in list(self._selector.get_map().values()):
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.close()
            self._selector.close()
            if self._wake is not None:
                self._wake.close()
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._ended.set_result, None)

    def _obey(self, woken: socket.socket) -> bool:
        """Wait once; carry out what was ordered and take what has come. Returns False for the end."""
        for key, _ in self._selector.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)  # noqa: S101 (nothing else is registered)
            if sock is woken:
                woken.recv(4096)
                while not self._orders.empty():
                    order = self._orders.get()
                    if order is None:
                        return False
                    order()
                return True  # what was ready may be gone now
            with suppress(OSError):  # it has left again
                dial, _ = sock.accept()
                self._pass_on(dial, key.data)
        return True

    def _pass_on(self, dial: socket.socket, arrived: Callable[[socket.socket], None]) -> None:
        dial.setblocking(False)
        try:
            self._loop.call_soon_threadsafe(arrived, dial)
        except RuntimeError:  # the loop has ended
            dial.close()
