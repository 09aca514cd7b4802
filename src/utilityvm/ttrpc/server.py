"""The end that is dialled: services of methods, each call in a task of its own."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar, final

import msgspec

from utilityvm.kit.aio import Scope
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, Exhausted, HostError, InvalidOptions, ProtocolError, UtilityVMError
from utilityvm.kit.named import Named, Served, peer_uid
from utilityvm.kit.trace import event
from utilityvm.ttrpc.codes import status_of
from utilityvm.ttrpc.inbox import Inbox, Inboxes
from utilityvm.ttrpc.link import Link
from utilityvm.wire.protobuf import Message, decode, encode
from utilityvm.wire.ttrpc import Code, Metadata, Response, Status, read
from utilityvm.wire.ttrpc_ends import Broken, Called, Finished, Reply, Said, ServerEnd

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

MAX_CONNECTIONS: Final = 256
"""Connections that a server has at a time; one more is ended at once."""

_NANO: Final = 1_000_000_000


class Unary(msgspec.Struct, Generic[Q, R], frozen=True):
    """A method with one request and one answer."""

    request: type[Q]
    handler: Callable[[Q, Metadata], Awaitable[R]]


class Streaming(msgspec.Struct, Generic[Q, R], frozen=True):
    """Any other method. Its handler reads the client's messages and sends its own; what it returns, if not None, is the answer to all."""

    request: type[Q]
    handler: "Callable[[ServerStream[Q], Metadata], Awaitable[R | None]]"


Service = Mapping[str, Unary[Any, Any] | Streaming[Any, Any]]
"""Methods by their names."""


@final
class ServerStream(Generic[Q]):
    """The client's messages of a call that is not unary, and where to send ours."""

    def __init__(self, kind: type[Q], inbox: Inbox, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._kind, self._inbox, self._send = kind, inbox, send

    async def receive(self) -> Q | None:
        """Wait for the client's next message; None: it sends no more.

        Raises:
            InvalidOptions: it is no such message.
            Exhausted: messages waited too long.
        """
        data = await self._inbox.get()
        return None if data is None else _argument(data, self._kind)

    async def send(self, message: Message) -> None:
        """Send a message, when the client takes something.

        Raises:
            ProtocolError: it is too large.
            ConnectionLost: the client is gone.
        """
        await self._send(encode(message))


@final
class Server:
    """Serves `services`, by their names. `name` is whose it is, in errors; only `users` may connect, where the system says who does."""

    def __init__(self, name: str, services: Mapping[str, Service], *, users: frozenset[int] | None = None) -> None:
        self.name, self.services, self.users = name, services, users
        self.scope: Final = Scope(name)
        self.closing = False
        self.changed: Final = asyncio.Event()
        self._connections: set[_Connection] = set()
        self._served: list[Served] = []

    async def serve(self, named: Named, address: str) -> None:
        """Let clients connect at an address until the server is closed.

        Raises:
            HostError, Exists: it is taken, or may not be used.
        """
        try:
            self._served.append(await named.serve(address, lambda: _Connection(self).link))
        except (OSError, ValueError) as error:
            said = error.strerror or error if isinstance(error, OSError) else error
            raise HostError(f"{self.name}: failed to listen on {address}: {said}") from error

    async def aclose(self, within: float = 0.0) -> None:
        """Take no more calls, let those that run end for so many seconds, and end the rest. A second call does nothing."""
        self.closing = True
        while self._served:
            self._served.pop().close()
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._until(lambda: not any(connection.calls for connection in self._connections))
        for connection in list(self._connections):
            connection.link.abort()
        await self.scope.aclose()
        await self._until(lambda: not self._connections)

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self.changed.clear()
            await self.changed.wait()

    def admit(self, connection: "_Connection") -> bool:
        """Take a connection, or say that it may not be."""
        uid = peer_uid(connection.link.transport)
        why = ""
        if self.users is not None and uid is not None and uid not in self.users:
            why = f"user {uid} may not connect"
        elif self.closing or len(self._connections) >= MAX_CONNECTIONS:
            why = "there are too many connections" if not self.closing else "it is being closed"
        if why:
            event("ttrpc.refused", level=logging.WARNING, message=f"{self.name}: a connection was ended: {why}")
            return False
        self._connections.add(connection)
        return True

    def forget(self, connection: "_Connection") -> None:
        """Have one connection less. A second call does nothing."""
        self._connections.discard(connection)
        self.changed.set()


@final
class _Connection:
    """One client."""

    def __init__(self, server: Server) -> None:
        self._server, self._end = server, ServerEnd()
        self.calls: dict[int, asyncio.Task[None]] = {}
        self.link: Final = Link(server.name, self._take, self._lost, self._made)
        self._inboxes = Inboxes(lambda held: self.link.hold(held=held), self._overrun)

    def _made(self) -> None:
        if not self._server.admit(self):
            self.link.abort()

    def _lost(self, reason: ConnectionLost) -> None:
        for task in self.calls.values():
            task.cancel()
        self._inboxes.close_all(reason)
        self._server.forget(self)

    def _take(self, data: bytes) -> None:
        for seen in self._end.feed(data):
            match seen:
                case Called():
                    self._begin(seen)
                case Said(stream, message):
                    if (inbox := self._inboxes.find(stream)) is not None:
                        inbox.put(message)
                case Finished(stream):
                    if (inbox := self._inboxes.find(stream)) is not None:
                        inbox.finish()
                case Broken(stream):
                    self._give_up(stream)
                case Reply(reply):
                    self.link.write(reply)

    def _give_up(self, stream: int) -> None:
        if (task := self.calls.get(stream)) is not None:
            task.cancel()

    def _overrun(self, stream: int, error: Exhausted) -> None:
        self.link.write(self._end.answer(stream, Response(status=status_of(error))))
        self._inboxes.close(stream)
        self._give_up(stream)

    def _begin(self, called: Called) -> None:
        """Run a call; what its client says is kept from now on."""
        stream, request = called.stream, called.request
        if called.streaming:
            inbox = self._inboxes.open(stream)
            if request.payload or not called.more:
                inbox.put(request.payload)
            if not called.more:
                inbox.finish()
        task = self.calls[stream] = self._server.scope.start(f"{request.service}.{request.method}", self._run(called))
        task.add_done_callback(lambda _: self._done(stream))

    def _done(self, stream: int) -> None:
        self._inboxes.close(stream)
        del self.calls[stream]
        self._server.changed.set()

    async def _run(self, called: Called) -> None:
        response = await self._outcome(called)
        with suppress(ConnectionLost):  # nobody is there to be answered
            async with self.link.turn():
                self.link.write(self._bytes(called.stream, response))

    def _bytes(self, stream: int, response: Response | None) -> bytes:
        if response is None:
            return self._end.finish(stream)
        try:
            return self._end.answer(stream, response)
        except ProtocolError as error:
            return self._end.answer(stream, Response(status=Status(code=Code.RESOURCE_EXHAUSTED, message=error.message)))

    async def _outcome(self, called: Called) -> Response | None:
        """Return the answer to a call, None when its messages were the answer."""
        method, nanoseconds = f"{called.request.service}.{called.request.method}", called.request.timeout_nano
        deadline = asyncio.timeout(max(0.0, nanoseconds / _NANO) if nanoseconds else None)
        try:
            async with deadline:
                return await self._handle(called)
        except UtilityVMError as error:
            return Response(status=status_of(error))
        except Exception as error:  # noqa: BLE001 (a mistake of ours ends a call and not the server)
            if deadline.expired():
                return Response(status=status_of(DeadlineExceeded(f"{method}: not done in the time that the caller gave")))
            event("ttrpc.failed", level=logging.ERROR, message=f"{method}: {error!r}")
            return Response(status=Status(code=Code.INTERNAL, message=repr(error)))

    async def _handle(self, called: Called) -> Response | None:
        request = called.request
        method = self._server.services.get(request.service, {}).get(request.method)
        if self._server.closing:
            return Response(status=Status(code=Code.UNAVAILABLE, message=f"{self._server.name} takes no more calls"))
        if method is None:
            return Response(
                status=Status(code=Code.UNIMPLEMENTED, message=f"{self._server.name} has no {request.service}.{request.method}")
            )
        if called.streaming is isinstance(method, Unary):
            said = "is a unary call" if isinstance(method, Unary) else "is no unary call"
            return Response(status=Status(code=Code.INVALID_ARGUMENT, message=f"{request.service}.{request.method} {said}"))
        metadata = read(request.metadata)
        if isinstance(method, Unary):
            return Response(payload=encode(await method.handler(_argument(request.payload, method.request), metadata)))
        inbox = self._inboxes.find(called.stream)
        assert inbox is not None  # noqa: S101 (opened with the call)
        answer = await method.handler(ServerStream(method.request, inbox, lambda data: self._say(called.stream, data)), metadata)
        return None if answer is None else Response(payload=encode(answer))

    async def _say(self, stream: int, data: bytes) -> None:
        async with self.link.turn():
            self.link.write(self._end.say(stream, data))


def _argument(data: bytes, kind: type[Q]) -> Q:
    try:
        return decode(data, kind)
    except ProtocolError as error:
        raise InvalidOptions(f"{kind.__name__}: the message cannot be read: {error.message}") from error
