"""The host's end of the guest connection as a state machine: listening ports, streams, credit, transport reset.

protocol/SPEC.md sections 3 and 4. Bytes in (`receive`), events out; calls in, bytes out (`to_send`). The guest is hostile:
what it can make this object hold is bounded by `MAX_STREAMS` x `WINDOW`, and whatever else it sends is `ProtocolError`.
"""

from collections.abc import Iterator
from typing import Final, NewType, final

import msgspec

from utilityvm.kit.errors import Exhausted, ProtocolError
from utilityvm.wire.packets import (
    GUEST_CID,
    HOST_CID,
    MAX_PAYLOAD,
    NONCE_BYTES,
    ONCE,
    PROGRAMS,
    SHUT_BOTH,
    SHUT_RECEIVE,
    SHUT_SEND,
    Control,
    Op,
    Packet,
    PacketReader,
    encode,
)

MAX_STREAMS: Final = 1024
"""Streams that one VM may have open at a time."""

WINDOW: Final = 512 * 1024
"""Receive buffer of one stream, in bytes: what the guest may send before our reader has taken any."""

MAX_DISCARD: Final = 64 * 1024 * 1024
"""Bytes that may come before the guest answers a transport reset."""

LAZY_PACKETS: Final = 64
"""Packets that can wait for company; when there are more, they are urgent."""

RESET: Final = "reset by the guest"
REDIALLED: Final = "the guest dialled its port pair a second time"
OVERRUN: Final = f"the guest sent more than the {WINDOW} bytes that it had room for"
AFTER_THE_END: Final = "the guest sent more after it had said that it sends no more"

_WRAP: Final = 1 << 32

StreamId = NewType("StreamId", tuple[int, int])
"""The pair (guest's port, our port) that names a stream."""


class Ready(msgspec.Struct, frozen=True):
    """The guest has answered the transport reset; streams may come."""


class Opened(msgspec.Struct, frozen=True):
    """The guest has dialled `port`, on which we listen."""

    stream: StreamId
    port: int


class Received(msgspec.Struct, frozen=True):
    """Bytes for the stream's reader, who reports them with `taken` once they are used."""

    stream: StreamId
    data: bytes


class PeerShut(msgspec.Struct, frozen=True):
    """The guest will send no more (`sends` false), or take no more (`receives` false)."""

    stream: StreamId
    sends: bool
    receives: bool


class Credit(msgspec.Struct, frozen=True):
    """There is room again for `send`."""

    stream: StreamId


class Quiet(msgspec.Struct, frozen=True):
    """The guest has said its last word until it is spoken to again, as it was asked to."""


class Ended(msgspec.Struct, frozen=True):
    """The stream is forgotten: because of `why`, or, when that is empty, in order: both sides had said that they send no more."""

    stream: StreamId
    why: str = ""


Event = Ready | Opened | Received | PeerShut | Credit | Ended | Quiet


class _Stream(msgspec.Struct):
    peer_alloc: int
    peer_taken: int
    sent: int = 0
    received: int = 0
    taken: int = 0
    told: int = 0  # the `taken` that the peer knows of
    shut: int = 0  # bits that we have sent
    peer_shut: int = 0
    starved: bool = False  # a writer wants credit

    def room(self) -> int:
        return max(0, self.peer_alloc - (self.sent - self.peer_taken) % _WRAP)


@final
class HostSocket:
    """All streams between the host and one guest. Begins with a transport reset that carries `nonce` (16 random bytes)."""

    def __init__(self, nonce: bytes) -> None:
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"nonce of {len(nonce)} bytes, expected {NONCE_BYTES}")
        self._ack = encode(Packet(Control.RESET_ACK, payload=nonce), src_cid=GUEST_CID, dst_cid=HOST_CID)
        self._before_ack: bytearray | None = bytearray()
        self._discarded = 0
        self._reader = PacketReader()
        self._streams: dict[StreamId, _Stream] = {}
        self._listening: dict[int, int] = {}  # the flags that the guest was told, by port
        self._disabled: set[int] = set()
        self._out: list[bytes] = [encode(Packet(Control.RESET, payload=nonce))]
        self._hurry = True
        self._silent = False
        self._asked = 0  # times that the guest was asked for silence and has not answered

    # -- bytes ------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> Iterator[Event]:
        """Take bytes from the guest and give what they mean, up to where the guest broke the protocol if it did.

        Raises:
            ProtocolError: it did; the connection must be ended.
        """
        if self._before_ack is not None:
            rest = self._discard(self._before_ack, data)
            if rest is None:
                return
            yield Ready()
            data = rest
        for packet in self._reader.feed(data):
            if isinstance(packet.op, Control):
                yield from self._control(packet.op)
                continue
            events: list[Event] = []
            self._stream_packet(packet, packet.op, events)
            yield from events

    def to_send(self) -> list[bytes]:
        """Return what must be written to the guest, in order, and forget it."""
        if self._silent:
            return []
        out, self._out, self._hurry = self._out, [], False
        return out

    @property
    def urgent(self) -> bool:
        """Whether there is something to send for which the guest waits.

        The rest waits for company: each write wakes the guest, which costs it more than what it reads. A listening port is followed by
        the call that names it as a rule, an accepted dial by the next call, and the end of a stream by nothing for which anybody waits.
        """
        return not self._silent and (self._hurry or len(self._out) > LAZY_PACKETS)

    @property
    def waiting(self) -> bool:
        """Whether there is something to send."""
        return bool(self._out) and not self._silent

    @property
    def ready(self) -> bool:
        """Whether the guest has answered the transport reset."""
        return self._before_ack is None

    # -- calls ------------------------------------------------------------------------------------------------------

    def quiesce(self) -> list[bytes]:
        """Ask the guest for silence and keep it ourselves: return all that must be written before it. `Quiet` follows, or `speak`."""
        self._out.append(encode(Packet(Control.QUIESCE)))
        self._asked += 1
        out = self.to_send()
        self._silent = True
        return out

    def speak(self) -> None:
        """Go on: whatever comes to the guest next ends its silence, so that something does."""
        self._silent, self._hurry = False, True
        self._out.append(encode(Packet(Control.UNLISTEN)))

    def listen(self, port: int, *, once: bool = False, programs: bool = False) -> None:
        """Accept dials to `port` and tell the guest so; with `once` only the first, with `programs` also those of its programs by AF_VSOCK.

        Raises:
            Exhausted: the port is listened to already.
        """
        if port in self._listening:
            raise Exhausted(f"guest port {port:#x} is listened to already")
        self._listening[port] = (ONCE if once else 0) | (PROGRAMS if programs else 0)
        self._tell(port)

    def unlisten(self, port: int) -> None:
        """Accept no more dials to `port`; nothing happens when none were accepted."""
        if self._listening.pop(port, None) is not None:
            self._tell(port)

    def disable(self, port: int) -> None:
        """Refuse dials to `port`, whoever listens, until `enable`; streams that were made stay."""
        if port in self._listening and port not in self._disabled:
            self._out.append(encode(Packet(Control.UNLISTEN, dst_port=port)))
        self._disabled.add(port)

    def enable(self, port: int) -> None:
        """Accept dials to `port` again, if anybody listens."""
        if port in self._disabled:
            self._disabled.remove(port)
            if port in self._listening:
                self._tell(port)

    def send(self, stream: StreamId, data: memoryview) -> int:
        """Send as much of `data` as the guest has room for and return how many bytes that was.

        When it is less than all, a `Credit` event follows. A stream that has ended takes nothing.
        """
        state = self._streams.get(stream)
        if state is None or state.shut & SHUT_SEND or state.peer_shut & SHUT_RECEIVE:
            return 0
        done = min(len(data), state.room())
        for at in range(0, done, MAX_PAYLOAD):
            piece = bytes(data[at : min(done, at + MAX_PAYLOAD)])
            self._emit(stream, state, Op.RW, payload=piece)
        state.sent = (state.sent + done) % _WRAP
        state.starved = done < len(data)
        return done

    def taken(self, stream: StreamId, count: int) -> None:
        """Say that the stream's reader has used `count` bytes: the guest may send as many more."""
        state = self._streams.get(stream)
        if state is None:
            return
        state.taken = (state.taken + count) % _WRAP
        known = WINDOW - (state.received - state.told) % _WRAP
        if state.taken != state.told and known < WINDOW // 2 and not state.peer_shut & SHUT_SEND:
            self._emit(stream, state, Op.CREDIT_UPDATE)

    def shut_send(self, stream: StreamId) -> None:
        """Send no more on this stream: the guest's reader sees the end."""
        self._shut(stream, SHUT_SEND)

    def close(self, stream: StreamId) -> bool:
        """Send and take no more; what the guest has sent meanwhile is dropped. True: the stream is forgotten, and no event follows."""
        state = self._streams.get(stream)
        if state is not None and state.peer_shut & SHUT_SEND and (state.peer_shut & SHUT_RECEIVE or state.sent == state.peer_taken):
            del self._streams[stream]  # nothing that anybody takes is under way, so a reset loses nothing, and it takes no answer
            self._answer_rst(stream, lazily=True)
            return True
        self._shut(stream, SHUT_BOTH)
        return False

    def reset(self, stream: StreamId) -> None:
        """End the stream at once; no event follows."""
        if self._streams.pop(stream, None) is not None:
            self._answer_rst(stream)

    # -- from the guest ---------------------------------------------------------------------------------------------

    def _discard(self, kept: bytearray, data: bytes) -> bytes | None:
        """Look for the answer to the transport reset; return what follows it."""
        kept += data
        at = kept.find(self._ack)
        if at >= 0:
            self._before_ack = None
            return bytes(kept[at + len(self._ack) :])
        drop = max(0, len(kept) - len(self._ack) + 1)
        self._discarded += drop
        del kept[:drop]
        if self._discarded > MAX_DISCARD:
            raise ProtocolError(f"guest connection: no answer to the transport reset in {MAX_DISCARD} bytes")
        return None

    def _control(self, op: Control) -> Iterator[Event]:
        """Take the one control packet that a guest may send once the transport was reset: an answer, which may come late."""
        if op is not Control.QUIESCED or not self._asked:
            raise _misplaced(op)
        self._asked -= 1
        if self._silent and not self._asked:
            yield Quiet()

    def _stream_packet(self, packet: Packet, op: Op, events: list[Event]) -> None:
        stream = StreamId((packet.src_port, packet.dst_port))
        state = self._streams.get(stream)
        if op is Op.REQUEST:
            self._request(stream, state, packet, events)
        elif state is None:
            if op is not Op.RST:
                self._answer_rst(stream)
        elif op is Op.RST:
            del self._streams[stream]
            orderly = state.shut == SHUT_BOTH or state.shut & state.peer_shut & SHUT_SEND
            events.append(Ended(stream, "" if orderly else RESET))
        elif op is Op.RESPONSE:
            raise ProtocolError(f"guest connection: RESPONSE on {stream}, which the guest dialled")
        else:
            self._on_stream(stream, state, packet, events)

    def _request(self, stream: StreamId, state: _Stream | None, packet: Packet, events: list[Event]) -> None:
        port = packet.dst_port
        if state is not None:
            del self._streams[stream]
            events.append(Ended(stream, REDIALLED))
        if state is not None or port not in self._listening or port in self._disabled or len(self._streams) >= MAX_STREAMS:
            self._answer_rst(stream)
            return
        if self._listening[port] & ONCE:
            del self._listening[port]
        state = self._streams[stream] = _Stream(packet.buf_alloc, packet.fwd_cnt)
        self._emit(stream, state, Op.RESPONSE, lazily=True)
        events.append(Opened(stream, port))

    def _on_stream(self, stream: StreamId, state: _Stream, packet: Packet, events: list[Event]) -> None:
        state.peer_alloc, state.peer_taken = packet.buf_alloc, packet.fwd_cnt
        if packet.op is Op.RW:
            unread = (state.received - state.taken) % _WRAP + len(packet.payload)
            if unread > WINDOW or state.peer_shut & SHUT_SEND:
                self.reset(stream)
                events.append(Ended(stream, OVERRUN if unread > WINDOW else AFTER_THE_END))
                return
            state.received = (state.received + len(packet.payload)) % _WRAP
            if not state.shut & SHUT_RECEIVE:
                events.append(Received(stream, packet.payload))
        elif packet.op is Op.CREDIT_REQUEST:
            self._emit(stream, state, Op.CREDIT_UPDATE)
        elif packet.op is Op.SHUTDOWN:
            state.peer_shut |= packet.flags & SHUT_BOTH
            sends, receives = not state.peer_shut & SHUT_SEND, not state.peer_shut & SHUT_RECEIVE
            events.append(PeerShut(stream, sends=sends, receives=receives))
            if state.shut & SHUT_SEND and not sends:
                del self._streams[stream]
                self._answer_rst(stream, lazily=True)
                events.append(Ended(stream))
                return
        if state.starved and state.room():
            state.starved = False
            events.append(Credit(stream))

    # -- to the guest -----------------------------------------------------------------------------------------------

    def _tell(self, port: int) -> None:
        """Say whether `port` is listened to, lazily, unless it is disabled: then the guest knows of no listener."""
        if port in self._disabled:
            return
        flags = self._listening.get(port)
        packet = Packet(Control.UNLISTEN, dst_port=port) if flags is None else Packet(Control.LISTEN, dst_port=port, flags=flags)
        self._out.append(encode(packet))

    def _shut(self, stream: StreamId, bits: int) -> None:
        state = self._streams.get(stream)
        if state is not None and state.shut | bits != state.shut:
            state.shut |= bits
            self._emit(stream, state, Op.SHUTDOWN, flags=state.shut)

    def _emit(self, stream: StreamId, state: _Stream, op: Op, *, payload: bytes = b"", flags: int = 0, lazily: bool = False) -> None:
        state.told = state.taken
        self._hurry = self._hurry or not lazily
        theirs, ours = stream
        self._out.append(encode(Packet(op, ours, theirs, payload, flags, WINDOW, state.taken)))

    def _answer_rst(self, stream: StreamId, *, lazily: bool = False) -> None:
        self._hurry = self._hurry or not lazily
        theirs, ours = stream
        self._out.append(encode(Packet(Op.RST, ours, theirs)))


def _misplaced(op: Control) -> ProtocolError:
    """Say what is wrong with a control packet of the guest, which may send none once the transport was reset."""
    why = "without a question" if op in {Control.QUIESCED, Control.RESET_ACK} else "is the host's to send"
    return ProtocolError(f"guest connection: {op.name} {why}")
