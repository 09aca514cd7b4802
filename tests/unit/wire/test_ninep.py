"""Messages of 9P2000.L, and the beginning of a connection."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from utilityvm.kit.errors import ProtocolError
from utilityvm.wire import ninep
from utilityvm.wire.ninep import HEADER, MAX_MSIZE, MAX_WALK, Chosen, Greeting, Message, MessageReader

_U = {"B": 0xFF, "H": 0xFFFF, "I": 0xFFFF_FFFF, "Q": 0xFFFF_FFFF_FFFF_FFFF}
_TEXT = st.binary(max_size=40)


def _values(letter: str) -> st.SearchStrategy[object]:
    match letter:
        case "s":
            return _TEXT
        case "n":
            return st.lists(_TEXT, max_size=MAX_WALK).map(tuple)
        case "d":
            return st.binary(max_size=200).map(memoryview)
    return st.integers(0, _U[letter])


requests = st.sampled_from(list(ninep._LAYOUTS.values())).flatmap(
    lambda known: st.tuples(*map(_values, known[1])).map(lambda values: known[0](*values))
)


def read(data: bytes, limit: int = 4096, cuts: int = 4096) -> list[Message]:
    """Cut a stream into messages, fed in pieces of at most `cuts` bytes."""
    reader, found = MessageReader(limit), []
    while data:
        space = reader.space()
        size = min(len(space), len(data), cuts)
        space[:size] = data[:size]
        reader.filled(size)
        data = data[size:]
        while (message := reader.next()) is not None:
            found.append(Message(message.kind, message.tag, memoryview(bytes(message.body))))
    return found


@pytest.mark.parametrize("kind", ninep._LAYOUTS)
def test_each_request_is_decoded_as_it_was_encoded(kind: ninep.Type) -> None:
    make, letters = ninep._LAYOUTS[kind]
    samples: dict[str, object] = {"s": b"name", "n": (b"a", b"b"), "d": memoryview(b"data")}
    said = make(*(samples.get(letter, 7) for letter in letters))
    (message,) = read(ninep.encode(3, said))
    assert (message.kind, message.tag, ninep.decode(message)) == (kind, 3, said)


@given(st.lists(requests, max_size=5), st.integers(1, 50))
def test_what_is_encoded_is_decoded_however_it_is_cut(said: list[ninep.Request], cuts: int) -> None:
    stream = b"".join(ninep.encode(tag, request) for tag, request in enumerate(said))
    found = read(stream, cuts=cuts)
    assert [message.tag for message in found] == list(range(len(said)))
    assert [ninep.decode(message) for message in found] == said


@given(requests, st.data())
def test_a_message_that_is_shorter_or_longer_than_its_type_says_is_refused(said: ninep.Request, data: st.DataObject) -> None:
    (message,) = read(ninep.encode(0, said))
    end = data.draw(st.integers(0, len(message.body) - 1))
    for body in (bytes(message.body[:end]), bytes(message.body) + b"\0"):
        with pytest.raises(ProtocolError):
            ninep.decode(replace(message, body=memoryview(body)))


@pytest.mark.parametrize("size", [0, HEADER - 1, 4097, 0xFFFF_FFFF])
def test_a_message_is_no_shorter_than_its_head_and_no_longer_than_agreed(size: int) -> None:
    with pytest.raises(ProtocolError, match=f"a message of {size} bytes"):
        read(struct.pack("<IBH", size, 100, 0))


def test_a_message_of_exactly_the_limit_is_read() -> None:
    (message,) = read(ninep.message(200, 1, bytes(4096 - HEADER)))
    assert (message.kind, len(message.body)) == (200, 4096 - HEADER)


def test_more_names_than_a_walk_may_have_are_refused_before_they_are_read() -> None:
    with pytest.raises(ProtocolError, match="17 names: at most 16"):
        ninep.decode(Message(ninep.Type.WALK, 0, memoryview(struct.pack("<IIH", 0, 1, 17))))


def test_a_type_that_is_none_is_not_read() -> None:
    with pytest.raises(NotImplementedError, match="9p: type 99"):
        ninep.decode(Message(99, 0, memoryview(b"")))


def test_data_and_strings_that_are_not_all_there_are_refused() -> None:
    for kind, body in (
        (ninep.Type.WRITE, struct.pack("<IQI", 0, 0, 5) + b"1234"),
        (ninep.Type.XATTRWALK, struct.pack("<IIH", 0, 1, 5) + b"1234"),
    ):
        with pytest.raises(ProtocolError, match="ends in its middle"):
            ninep.decode(Message(kind, 0, memoryview(body)))


def test_answers_are_as_long_as_they_say() -> None:
    for made in (
        ninep.answer(ninep.Type.CLUNK, 1),
        ninep.failure(1, 5),
        ninep.io_head(ninep.Type.READ, 1, 3) + b"abc",
        ninep.answer(ninep.Type.GETATTR, 1, ninep.attributes(ninep.Qid(0, 5), range(14))),
    ):
        assert int.from_bytes(made[:4], "little") == len(made)
    assert len(ninep.attributes(ninep.Qid(0, 5), range(14))) == 153
    assert len(ninep.Qid(0, 5).packed()) == 13
    assert len(ninep.entry(ninep.Qid(0, 5), 1, 8, b"name")) == 28


# -- the beginning of a connection ---------------------------------------------------------------------------------------


VERSION = ninep.encode(0xFFFF, ninep.Version(65536, ninep.VERSION))
ATTACH = ninep.encode(1, ninep.Attach(0, ninep.NO_FID, b"root", b"0", 0))


def greet(data: bytes, cuts: int = 10_000) -> list[bytes | Chosen]:
    greeting, found = Greeting(), []
    for at in range(0, len(data), cuts):
        for reply in list(greeting.feed(data[at : at + cuts])):
            found.append(reply)
            if isinstance(reply, Chosen):
                rest = reply.rest + data[at + cuts :]
                return [*found[:-1], replace(reply, rest=rest)]
    return found


@given(st.integers(1, 60), st.binary(max_size=20_000))
def test_a_guest_agrees_and_chooses_and_nothing_that_follows_is_lost(cuts: int, rest: bytes) -> None:
    agreed, chosen = greet(VERSION + ATTACH + rest, cuts)
    assert agreed == ninep.answer(100, 0xFFFF, (65536).to_bytes(4, "little") + b"\x08\x009P2000.L")
    assert chosen == Chosen(b"0", 1, 65536, ATTACH + rest)


def test_more_than_a_buffer_of_beginnings_is_answered_in_turn() -> None:
    assert len(greet(VERSION * 1000)) == 1000


def test_a_limit_is_no_larger_than_ours() -> None:
    (agreed,) = greet(ninep.encode(0, ninep.Version(0xFFFF_FFFF, ninep.VERSION)))
    assert isinstance(agreed, bytes)
    assert int.from_bytes(agreed[7:11], "little") == MAX_MSIZE


def test_another_version_is_unknown_and_nothing_can_be_attached_to() -> None:
    (agreed,) = greet(ninep.encode(0, ninep.Version(8192, b"9P2000.u")))
    assert isinstance(agreed, bytes)
    assert agreed.endswith(b"\x07\x00unknown")
    with pytest.raises(ProtocolError):
        greet(ninep.encode(0, ninep.Version(8192, b"9P2000.u")) + ATTACH)


def test_who_asks_how_to_prove_himself_is_told_that_nobody_need() -> None:
    _, refused, chosen = greet(VERSION + ninep.encode(2, ninep.Auth(1, b"root", b"0", 0)) + ATTACH)
    assert refused == ninep.failure(2, 95)
    assert isinstance(chosen, Chosen)


@pytest.mark.parametrize(
    "data",
    [ATTACH, ninep.encode(0, ninep.Version(4095, ninep.VERSION)), VERSION + ninep.encode(0, ninep.Clunk(0)), b"GET / HTTP/1.1\r\n\r\n"],
)
def test_what_does_not_begin_as_it_must_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        greet(data)
