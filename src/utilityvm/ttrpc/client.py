"""The end that dials: unary calls and streams, each with a deadline if it is given one."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final, Self, TypeVar, final

from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, Exhausted, HostError, Unknown, UtilityVMError
from utilityvm.kit.named import Named
from utilityvm.ttrpc.codes import error_of
from utilityvm.ttrpc.inbox import Inbox, Inboxes
from utilityvm.ttrpc.link import Link
from utilityvm.wire.protobuf import Message, decode, encode
from utilityvm.wire.ttrpc import Code, Metadata, Request, Response, written
from utilityvm.wire.ttrpc_ends import Answered, Broken, ClientEnd, Finished, Said

R = TypeVar("R", bound=Message)

NO_METADATA: Final[Metadata] = MappingProxyType({})

_NANO: Final = 1_000_000_000


@final
class Client:
    """A connection to a server; `name` is whose, in errors. It ends with `aclose`, or with the server; `lost` says which and why."""

    def __init__(self, name: str) -> None:
        self._name, self._end = name, ClientEnd()
        self.link: Final = Link(name, self._take, self._lost)
        self.lost: asyncio.Future[ConnectionLost] = asyncio.get_running_loop().create_future()
        self._calls: dict[int, asyncio.Future[Response]] = {}
        self._inboxes = Inboxes(lambda held: self.link.hold(held=held), self._overrun)

    @classmethod
    async def dial(cls, named: Named, address: str, name: str) -> Self:
        """Connect to the server at an address.

        Raises:
            HostError: nobody serves there, or we may not.
        """
        client = cls(name)
        try:
            await named.dial(address, client.link)
        except (OSError, ValueError) as error:
            said = error.strerror or error if isinstance(error, OSError) else error
            raise HostError(f"{name}: cannot connect to {address}: {said}") from error
        return client

    async def call(
        self,
        service: str,
        method: str,
        argument: Message,
        answer: type[R],
        *,
        within: float | None = None,
        metadata: Mapping[str, tuple[str, ...]] = NO_METADATA,
    ) -> R:
        """Call and return the answer. `within` is in seconds (None: as long as the server takes), and is told to the server.

        A caller who is cancelled has the answer dropped: ttrpc has no word for it, so that the server does what it was asked.

        Raises:
            DeadlineExceeded: no answer in time.
            ConnectionLost: the connection has ended; `Unknown` when the call had been sent.
            ProtocolError: the argument is too large, or the answer cannot be read.
            UtilityVMError: the server refused, as `codes.error_of` says.
        """
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        stream, deadline = 0, _deadline(within)
        try:
            async with asyncio.timeout_at(deadline):
                async with self.link.turn():
                    stream, data = self._end.open(_request(service, method, argument, deadline, metadata))
                    self._calls[stream] = future
                    self.link.write(data)
                response = await future
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._name}: no answer to {service}.{method} within {within:g} s") from error
        finally:
            self._end.forget(stream)
            self._calls.pop(stream, None)
        return decode(response.payload, answer)

    async def open(
        self, service: str, method: str, argument: Message | None = None, *, metadata: Mapping[str, tuple[str, ...]] = NO_METADATA
    ) -> "ClientStream":
        """Call what is not unary. With an `argument` it is all that we send; without one our messages follow, until `finish`.

        Raises:
            ConnectionLost, ProtocolError: as `call`.
        """
        async with self.link.turn():
            request = _request(service, method, argument, None, metadata)
            stream, data = self._end.open(request, streaming=True, more=argument is None)
            inbox = self._inboxes.open(stream)
            result: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
            self._calls[stream] = result
            self.link.write(data)
        return ClientStream(
            inbox,
            result,
            send=lambda data: self._send(lambda: self._end.say(stream, data)),
            finish=lambda: self._send(lambda: self._end.finish(stream)),
            close=lambda: self._forget(stream),
        )

    async def aclose(self) -> None:
        """End the connection. Calls that wait get `Unknown`. A second call does nothing."""
        self.link.abort()
        if self.link.open:
            await asyncio.wait([self.lost])

    async def _send(self, make: Callable[[], bytes]) -> None:
        async with self.link.turn():
            self.link.write(make())

    def _forget(self, stream: int) -> None:
        self._end.forget(stream)
        self._inboxes.close(stream)
        self._calls.pop(stream, None)

    def _take(self, data: bytes) -> None:
        for event in self._end.feed(data):
            match event:
                case Answered(stream, response):
                    status = response.status
                    failed = error_of(status.code, status.message) if status is not None and status.code != Code.OK else None
                    self._settle(stream, failed or response)
                case Said(stream, message):
                    if (inbox := self._inboxes.find(stream)) is not None:
                        inbox.put(message)
                case Finished(stream):
                    self._settle(stream, Response())
                case Broken(stream, code, text):
                    self._settle(stream, error_of(code, f"{self._name}: {text}"))

    def _settle(self, stream: int, outcome: Response | UtilityVMError) -> None:
        """Give the outcome of a call to whoever waits: for it, or for messages before it."""
        call, inbox = self._calls.pop(stream, None), self._inboxes.find(stream)
        if call is not None and not call.done():
            if isinstance(outcome, UtilityVMError):
                call.set_exception(outcome)
                call.exception()  # nobody has to ask
            else:
                call.set_result(outcome)
        if inbox is not None:
            if isinstance(outcome, UtilityVMError):
                inbox.fail(outcome)
            else:
                inbox.finish()

    def _overrun(self, stream: int, error: Exhausted) -> None:
        self._end.forget(stream)
        self._settle(stream, error)
        self._inboxes.close(stream)

    def _lost(self, reason: ConnectionLost) -> None:
        for stream in list(self._calls):
            unknown = Unknown(f"the call was sent and may have happened: {reason.message}")
            unknown.__cause__ = reason
            self._settle(stream, unknown)
        self._inboxes.close_all(reason)
        if not self.lost.done():
            self.lost.set_result(reason)


@final
class ClientStream:
    """A call that is not unary. Use it as an async context: leaving it gives it up."""

    def __init__(
        self,
        inbox: Inbox,
        result: asyncio.Future[Response],
        *,
        send: Callable[[bytes], Awaitable[None]],
        finish: Callable[[], Awaitable[None]],
        close: Callable[[], None],
    ) -> None:
        self._inbox, self._result = inbox, result
        self._send, self._finish, self._close = send, finish, close

    async def send(self, message: Message) -> None:
        """Send a message, when the server takes something.

        Raises:
            ProtocolError: it is too large; or the stream is over, or `finish` was called.
            ConnectionLost: the connection has ended.
        """
        await self._send(encode(message))

    async def finish(self) -> None:
        """Say that no more comes of us.

        Raises:
            ProtocolError, ConnectionLost: as `send`.
        """
        await self._finish()

    async def receive(self, kind: type[R]) -> R | None:
        """Wait for the server's next message; None: there are no more.

        Raises:
            UtilityVMError: the call failed.
        """
        data = await self._inbox.get()
        return None if data is None else decode(data, kind)

    async def result(self, kind: type[R]) -> R:
        """Wait for the one answer to all that we sent. A call that the server answers by messages has an empty one.

        Raises:
            UtilityVMError: the call failed.
        """
        await asyncio.wait([self._result])
        return decode(self._result.result().payload, kind)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()


def _deadline(within: float | None) -> float | None:
    return None if within is None else asyncio.get_running_loop().time() + within


def _request(service: str, method: str, argument: Message | None, deadline: float | None, metadata: Metadata) -> Request:
    left = 0 if deadline is None else max(1, int((deadline - asyncio.get_running_loop().time()) * _NANO))
    payload = b"" if argument is None else encode(argument)
    return Request(service=service, method=method, payload=payload, timeout_nano=left, metadata=written(metadata))
