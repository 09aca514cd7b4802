import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilityvm.kit.errors import Exhausted, ProtocolError
from utilityvm.wire.packets import (
    GUEST_CID,
    HOST_CID,
    MAX_PAYLOAD,
    SHUT_BOTH,
    SHUT_RECEIVE,
    SHUT_SEND,
    Control,
    Op,
    Packet,
    PacketReader,
    encode,
)
from utilityvm.wire.vsock import (
    AFTER_THE_END,
    LAZY_PACKETS,
    MAX_STREAMS,
    OVERRUN,
    REDIALLED,
    RESET,
    WINDOW,
    Credit,
    Ended,
    Event,
    HostSocket,
    Opened,
    PeerShut,
    Quiet,
    Ready,
    Received,
    StreamId,
)

NONCE = bytes(range(16))
GUEST_PORT = 0x80000000
STREAM = StreamId((GUEST_PORT, 109))


def as_guest(*packets: Packet) -> bytes:
    return b"".join(encode(packet, src_cid=GUEST_CID, dst_cid=HOST_CID) for packet in packets)


def sent(host: HostSocket) -> list[Packet]:
    return list(PacketReader(src_cid=HOST_CID, dst_cid=GUEST_CID).feed(b"".join(host.to_send())))


def told(host: HostSocket, data: bytes) -> list[Event]:
    return list(host.receive(data))


def ready() -> HostSocket:
    host = HostSocket(NONCE)
    assert told(host, as_guest(Packet(Control.RESET_ACK, payload=NONCE))) == [Ready()]
    host.to_send()
    return host


def connected(*, alloc: int = 1 << 20) -> HostSocket:
    host = ready()
    host.listen(109)
    assert told(host, as_guest(Packet(Op.REQUEST, *STREAM, buf_alloc=alloc))) == [Opened(STREAM, 109)]
    host.to_send()
    return host


def rw(payload: bytes, *, fwd_cnt: int = 0, alloc: int = 1 << 20) -> bytes:
    return as_guest(Packet(Op.RW, *STREAM, payload, buf_alloc=alloc, fwd_cnt=fwd_cnt))


def test_the_host_begins_with_a_transport_reset() -> None:
    assert sent(HostSocket(NONCE)) == [Packet(Control.RESET, payload=NONCE)]


@given(st.binary(max_size=300), st.integers(1, 64))
def test_all_before_the_answer_to_the_reset_is_discarded(noise: bytes, step: int) -> None:
    host = HostSocket(NONCE)
    host.listen(109)
    stream = noise + as_guest(Packet(Control.RESET_ACK, payload=NONCE), Packet(Op.REQUEST, *STREAM, buf_alloc=10))
    events: list[Event] = []
    for at in range(0, len(stream), step):
        events += told(host, stream[at : at + step])
    assert events == [Ready(), Opened(STREAM, 109)]


def test_a_guest_that_never_answers_the_reset_is_given_up() -> None:
    host = HostSocket(NONCE)
    for _ in range(64):
        told(host, bytes(1 << 20))
    with pytest.raises(ProtocolError, match="no answer to the transport reset"):
        told(host, bytes(1 << 20))


def test_listening_is_told_to_the_guest_and_twice_is_refused() -> None:
    host = ready()
    host.listen(5)
    host.listen(6, once=True)
    host.listen(7, programs=True)
    host.listen(8, once=True, programs=True)
    host.unlisten(5)
    host.unlisten(5)
    assert sent(host) == [
        Packet(Control.LISTEN, dst_port=5),
        Packet(Control.LISTEN, dst_port=6, flags=1),
        Packet(Control.LISTEN, dst_port=7, flags=2),
        Packet(Control.LISTEN, dst_port=8, flags=3),
        Packet(Control.UNLISTEN, dst_port=5),
    ]
    with pytest.raises(Exhausted, match="0x6"):
        host.listen(6)


def test_a_disabled_port_is_unlistened_to_until_it_is_enabled_again() -> None:
    host = ready()
    host.disable(5)
    host.listen(5, once=True, programs=True)
    assert sent(host) == []
    assert told(host, as_guest(Packet(Op.REQUEST, 9, 5, buf_alloc=10))) == []
    assert [packet.op for packet in sent(host)] == [Op.RST]
    host.enable(5)
    host.enable(5)
    assert sent(host) == [Packet(Control.LISTEN, dst_port=5, flags=3)]
    host.disable(5)
    host.disable(5)
    assert sent(host) == [Packet(Control.UNLISTEN, dst_port=5)]
    host.unlisten(5)
    host.enable(5)
    assert sent(host) == []


def test_a_dial_to_a_port_that_nobody_listens_to_is_reset() -> None:
    host = ready()
    assert told(host, as_guest(Packet(Op.REQUEST, 1, 2, buf_alloc=1))) == []
    assert sent(host) == [Packet(Op.RST, 2, 1)]


def test_a_once_port_takes_one_dial() -> None:
    host = ready()
    host.listen(109, once=True)
    first, second = Packet(Op.REQUEST, 1, 109, buf_alloc=1), Packet(Op.REQUEST, 2, 109, buf_alloc=1)
    assert told(host, as_guest(first, second)) == [Opened(StreamId((1, 109)), 109)]
    assert [packet.op for packet in sent(host)] == [Control.LISTEN, Op.RESPONSE, Op.RST]
    host.unlisten(109)
    assert sent(host) == []


def test_a_second_dial_of_one_port_pair_ends_both() -> None:
    host = connected()
    assert told(host, as_guest(Packet(Op.REQUEST, *STREAM, buf_alloc=1))) == [Ended(STREAM, REDIALLED)]
    assert [packet.op for packet in sent(host)] == [Op.RST]


def test_dials_beyond_the_limit_are_reset() -> None:
    host = ready()
    host.listen(109)
    dials = [Packet(Op.REQUEST, port, 109, buf_alloc=1) for port in range(MAX_STREAMS + 5)]
    assert len(told(host, as_guest(*dials))) == MAX_STREAMS
    assert [packet.op for packet in sent(host)].count(Op.RST) == 5


def test_more_is_never_sent_than_the_guest_has_room_for() -> None:
    host = connected(alloc=100)
    assert host.send(STREAM, memoryview(bytes(150))) == 100
    assert host.send(STREAM, memoryview(bytes(50))) == 0
    update = Packet(Op.CREDIT_UPDATE, *STREAM, buf_alloc=100, fwd_cnt=30)
    assert told(host, as_guest(update)) == [Credit(STREAM)]
    assert host.send(STREAM, memoryview(bytes(50))) == 30
    assert sum(len(packet.payload) for packet in sent(host)) == 130


def test_a_guest_that_shrinks_its_buffer_gets_nothing_rather_than_a_negative_amount() -> None:
    host = connected(alloc=100)
    assert host.send(STREAM, memoryview(bytes(100))) == 100
    told(host, as_guest(Packet(Op.CREDIT_UPDATE, *STREAM, buf_alloc=10, fwd_cnt=0)))
    assert host.send(STREAM, memoryview(b"x")) == 0


@pytest.mark.parametrize("fwd_cnt", [0, 1, 2**31, 2**32 - 1])
def test_counters_wrap_and_lies_about_them_do_no_harm(fwd_cnt: int) -> None:
    host = connected(alloc=2**32 - 1)
    told(host, as_guest(Packet(Op.CREDIT_UPDATE, *STREAM, buf_alloc=2**32 - 1, fwd_cnt=fwd_cnt)))
    assert 0 <= host.send(STREAM, memoryview(bytes(1000))) <= 1000


def test_a_long_write_is_cut_into_packets() -> None:
    host = connected()
    assert host.send(STREAM, memoryview(bytes(200_000))) == 200_000
    assert [len(packet.payload) for packet in sent(host)] == [65_536, 65_536, 65_536, 3392]


def test_more_than_the_window_resets_the_stream() -> None:
    host = connected()
    chunk = rw(bytes(65_536))
    assert len(told(host, chunk * (WINDOW // 65_536))) == WINDOW // 65_536
    assert told(host, rw(b"x")) == [Ended(STREAM, OVERRUN)]
    assert sent(host)[-1].op is Op.RST


def test_credit_is_given_back_when_less_than_half_of_the_window_is_known_to_be_free() -> None:
    host = connected()
    told(host, rw(bytes(65_536)) * (WINDOW // 65_536 // 2 + 1))
    host.taken(STREAM, 1000)
    assert [(packet.op, packet.fwd_cnt) for packet in sent(host)] == [(Op.CREDIT_UPDATE, 1000)]


def test_a_credit_request_is_answered() -> None:
    host = connected()
    told(host, as_guest(Packet(Op.CREDIT_REQUEST, *STREAM, buf_alloc=1)))
    assert [packet.op for packet in sent(host)] == [Op.CREDIT_UPDATE]


def test_the_second_end_of_sending_frees_the_port_pair() -> None:
    host = connected()
    host.shut_send(STREAM)
    events = told(host, as_guest(Packet(Op.SHUTDOWN, *STREAM, flags=SHUT_SEND)))
    assert events == [PeerShut(STREAM, sends=False, receives=True), Ended(STREAM)]
    assert [packet.op for packet in sent(host)] == [Op.SHUTDOWN, Op.RST]


def test_the_guests_reset_after_both_ends_is_an_orderly_end() -> None:
    host = connected()
    host.send(STREAM, memoryview(b"under way"))
    told(host, as_guest(Packet(Op.SHUTDOWN, *STREAM, flags=SHUT_SEND, buf_alloc=100)))
    assert not host.close(STREAM)
    assert [packet.flags for packet in sent(host)] == [0, SHUT_BOTH]
    assert told(host, as_guest(Packet(Op.RST, *STREAM))) == [Ended(STREAM)]


def test_closing_after_the_guests_last_byte_with_nothing_under_way_is_a_reset_that_takes_no_answer() -> None:
    host = connected()
    told(host, as_guest(Packet(Op.SHUTDOWN, *STREAM, flags=SHUT_SEND, buf_alloc=100)))
    assert host.close(STREAM)
    assert [packet.op for packet in sent(host)] == [Op.RST]
    assert not host.close(STREAM)
    assert sent(host) == []


def test_a_reset_in_the_middle_is_not_orderly() -> None:
    assert told(connected(), as_guest(Packet(Op.RST, *STREAM))) == [Ended(STREAM, RESET)]


def test_a_guest_that_takes_no_more_gets_no_more() -> None:
    host = connected()
    assert told(host, as_guest(Packet(Op.SHUTDOWN, *STREAM, flags=SHUT_RECEIVE))) == [PeerShut(STREAM, sends=True, receives=False)]
    assert host.send(STREAM, memoryview(b"x")) == 0


def test_what_comes_after_the_host_has_closed_is_counted_and_not_told() -> None:
    host = connected()
    assert not host.close(STREAM)
    assert told(host, rw(b"late")) == []
    assert [packet.flags for packet in sent(host)] == [SHUT_BOTH]
    for sent_before in range(4, WINDOW, MAX_PAYLOAD):
        assert told(host, rw(bytes(min(MAX_PAYLOAD, WINDOW - sent_before)))) == []
    assert told(host, rw(b"x")) == [Ended(STREAM, OVERRUN)]


def test_data_after_the_end_of_sending_resets_the_stream() -> None:
    host = connected()
    told(host, as_guest(Packet(Op.SHUTDOWN, *STREAM, flags=SHUT_SEND)))
    assert told(host, rw(b"x")) == [Ended(STREAM, AFTER_THE_END)]


def test_a_packet_for_no_stream_is_reset_but_a_reset_is_not_answered() -> None:
    host = ready()
    assert told(host, rw(b"x") + as_guest(Packet(Op.RST, 1, 2))) == []
    assert [packet.op for packet in sent(host)] == [Op.RST]


def test_calls_on_a_stream_that_has_ended_do_nothing() -> None:
    host = connected()
    host.reset(STREAM)
    host.to_send()
    host.reset(STREAM)
    host.taken(STREAM, 5)
    host.shut_send(STREAM)
    host.close(STREAM)
    assert host.send(STREAM, memoryview(b"x")) == 0
    assert sent(host) == []


@pytest.mark.parametrize(
    "packet",
    [Packet(control, payload=bytes(16) if control in {Control.RESET, Control.RESET_ACK} else b"") for control in Control]
    + [Packet(Op.RESPONSE, *STREAM)],
)
def test_what_only_the_host_may_send_is_a_protocol_error(packet: Packet) -> None:
    answer = packet.op in {Control.RESET_ACK, Control.QUIESCED}
    why = "RESPONSE" if packet.op is Op.RESPONSE else f"{packet.op.name} {'without a question' if answer else 'is the host.s to send'}"
    with pytest.raises(ProtocolError, match=why):
        told(connected(), as_guest(packet))


def test_a_nonce_of_the_wrong_size_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="15 bytes"):
        HostSocket(bytes(15))


@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=30))
def test_what_is_received_is_what_was_sent(chunks: list[bytes]) -> None:
    host = connected()
    events = [event for chunk in chunks for event in told(host, rw(chunk)) if isinstance(event, Received)]
    assert b"".join(event.data for event in events) == b"".join(chunks)


def test_no_credit_is_given_back_while_more_than_half_of_the_window_is_known_to_be_free() -> None:
    host = connected()
    told(host, rw(bytes(65_536)))
    host.taken(STREAM, 65_536)
    assert sent(host) == []


# -- what may wait for company -------------------------------------------------------------------------------------------


def hurry(host: HostSocket) -> bool:
    assert host.waiting
    return host.urgent


def test_the_transport_reset_is_urgent_and_nothing_is_once_it_was_taken() -> None:
    host = HostSocket(NONCE)
    assert hurry(host)
    host.to_send()
    assert not host.urgent
    assert not host.waiting


def test_ports_answers_to_dials_and_ends_wait_for_company() -> None:
    host = ready()
    host.listen(109)
    host.listen(110)
    host.unlisten(110)
    assert not hurry(host)
    told(host, as_guest(Packet(Op.REQUEST, *STREAM, buf_alloc=100)))
    assert not hurry(host)
    host.to_send()
    told(host, as_guest(Packet(Op.SHUTDOWN, *STREAM, flags=SHUT_SEND, buf_alloc=100)))
    assert host.close(STREAM)
    assert not hurry(host)
    assert [packet.op for packet in sent(host)] == [Op.RST]


def test_bytes_credit_refusals_and_our_end_are_urgent_and_take_along_what_waits() -> None:
    host = connected()
    host.listen(110)
    host.send(STREAM, memoryview(b"x"))
    assert hurry(host)
    assert [packet.op for packet in sent(host)] == [Control.LISTEN, Op.RW]
    told(host, as_guest(Packet(Op.CREDIT_REQUEST, *STREAM, buf_alloc=100)))
    assert hurry(host)
    host.to_send()
    told(host, as_guest(Packet(Op.REQUEST, GUEST_PORT + 1, 9, buf_alloc=100)))
    assert hurry(host)
    host.to_send()
    host.shut_send(STREAM)
    assert hurry(host)


def test_many_packets_are_urgent_together() -> None:
    host = ready()
    for port in range(LAZY_PACKETS):
        host.listen(port)
    assert not hurry(host)
    host.listen(LAZY_PACKETS)
    assert hurry(host)


def test_silence_is_asked_for_behind_all_that_waits_and_kept_until_something_is_said() -> None:
    host = ready()
    host.listen(5)
    out = list(PacketReader(src_cid=HOST_CID, dst_cid=GUEST_CID).feed(b"".join(host.quiesce())))
    assert [packet.op for packet in out] == [Control.LISTEN, Control.QUIESCE]
    host.listen(6)
    assert sent(host) == []
    assert not host.urgent
    assert not host.waiting
    assert told(host, as_guest(Packet(Control.QUIESCED))) == [Quiet()]
    host.speak()
    assert host.urgent
    assert [packet.op for packet in sent(host)] == [Control.LISTEN, Control.UNLISTEN]


def test_an_answer_that_comes_after_the_silence_was_given_up_is_no_mistake_and_no_answer_to_the_next() -> None:
    host = ready()
    host.quiesce()
    host.speak()
    host.quiesce()
    assert told(host, as_guest(Packet(Control.QUIESCED))) == []
    assert told(host, as_guest(Packet(Control.QUIESCED))) == [Quiet()]
    with pytest.raises(ProtocolError, match="QUIESCED without a question"):
        told(host, as_guest(Packet(Control.QUIESCED)))


def test_a_guest_that_has_not_met_its_host_is_not_ready() -> None:
    assert not HostSocket(NONCE).ready
    assert ready().ready
