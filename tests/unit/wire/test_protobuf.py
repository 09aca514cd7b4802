"""Bytes that Google's own library writes for the same messages, and what it makes of others: compared with it, they stand here."""

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilityvm.kit.errors import ProtocolError
from utilityvm.wire.protobuf import Field, Message, decode, encode
from utilityvm.wire.ttrpc import KeyValue, Request, Response, Status


class Sizes(Message, frozen=True, kw_only=True):
    small: Annotated[int, Field(1, bits=32, signed=False)] = 0
    number: Annotated[int, Field(16, bits=32)] = 0
    large: Annotated[int, Field(3)] = 0


texts = st.text(max_size=8)
requests = st.builds(
    Request,
    service=texts,
    method=texts,
    payload=st.binary(max_size=8),
    timeout_nano=st.integers(-(2**63), 2**63 - 1),
    metadata=st.lists(st.builds(KeyValue, key=texts, value=texts), max_size=3).map(tuple),
)
responses = st.builds(
    Response,
    status=st.none() | st.builds(Status, code=st.integers(-(2**31), 2**31 - 1), message=texts),
    payload=st.binary(max_size=8),
)


@pytest.mark.parametrize(
    ("message", "written"),
    [
        (Request(), ""),
        (Request(service="ab", method="c", payload=b"\x00"), "0a0261621201631a0100"),
        (Request(timeout_nano=300, metadata=(KeyValue(key="k", value="v"), KeyValue())), "20ac022a060a016b1201762a00"),
        (Request(timeout_nano=-1), "20ffffffffffffffffff01"),
        (Response(), ""),
        (Response(status=Status()), "0a00"),
        (Response(status=Status(code=5, message="ü"), payload=b"p"), "0a0608051202c3bc120170"),
        (Sizes(small=2**32 - 1, number=-2, large=1), "08ffffffff0f18018001feffffffffffffffff01"),
    ],
)
def test_a_message_is_written_as_the_original_library_writes_it(message: Message, written: str) -> None:
    assert encode(message).hex() == written
    assert decode(bytes.fromhex(written), type(message)) == message


@given(requests | responses)
def test_what_was_written_is_read_as_it_was(message: Request | Response) -> None:
    assert decode(encode(message), type(message)) == message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("38050a0161", Request(service="a")),  # a number in field 7, which nobody knows
        ("3a01610a0161", Request(service="a")),  # bytes in it
        ("3901020304050607080a0161", Request(service="a")),  # eight bytes in it
        ("3d010203040a0161", Request(service="a")),  # four bytes in it
        ("08050a0161", Request(service="a")),  # a text that comes as a number
        ("2201612005", Request(timeout_nano=5)),  # a number that comes as a text
        ("0a01610a0162", Request(service="b")),  # a text that comes twice
        ("0a0208050a03120178", Response(status=Status(code=5, message="x"))),  # a message in two parts
        ("20808080808080808080ff", None),
    ],
)
def test_what_is_not_known_is_passed_over_and_what_comes_twice_counts_as_it_does_elsewhere(data: str, message: Message | None) -> None:
    if message is None:
        with pytest.raises(ProtocolError, match=r"^a number has more than 10 bytes$"):
            decode(bytes.fromhex(data), Request)
    else:
        assert decode(bytes.fromhex(data), type(message)) == message


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("08ffffffff1f", Sizes(small=2**32 - 1)),
        ("8001ffffffffffffffffff01", Sizes(number=-1)),
        ("8001ffffffff0f", Sizes(number=-1)),
        ("18ffffffffffffffff7f", Sizes(large=2**63 - 1)),
    ],
)
def test_of_a_number_that_is_too_long_its_lowest_bits_count(data: str, value: Sizes) -> None:
    assert decode(bytes.fromhex(data), Sizes) == value


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("0a05616263", "field 1 has 5 bytes, of which 3 are there"),
        ("0a", "a number ends before its last byte"),
        ("20ff", "a number ends before its last byte"),
        ("39010203", "field 7 has 8 bytes, of which 3 are there"),
        ("0b", "field 1 is of the wire type 3, which proto3 does not have"),
        ("0200", "a field has the number 0"),
        ("82808080807f00", "a field has the number"),
        ("0a01ff", "field service is no UTF-8"),
        ("2a030a01ff", "field key is no UTF-8"),
    ],
)
def test_what_is_no_message_is_refused_with_its_place(data: str, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        decode(bytes.fromhex(data), Request)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (Sizes(small=2**32), "field small: 4294967296 does not fit into 32 bits"),
        (Sizes(small=-1), "field small: -1 does not fit into 32 bits"),
        (Sizes(number=2**31), "field number: 2147483648 does not fit into 32 bits"),
        (Sizes(large=2**63), "field large: 9223372036854775808 does not fit into 64 bits"),
        (Request(service="\ud800"), "cannot be written as UTF-8"),
    ],
)
def test_what_does_not_fit_is_not_written(message: Message, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        encode(message)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    for kind in (Request, Response, Sizes):
        try:
            decode(data, kind)
        except ProtocolError:
            continue
