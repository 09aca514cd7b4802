"""The JSON law: Go's bytes out, our structs in."""

from typing import get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilityvm.kit.errors import InvalidOptions, Unsupported
from utilityvm.schema import document, json
from utilityvm.schema.document import (
    Chipset,
    ComputeSystem,
    Devices,
    LinuxKernelDirect,
    Memory,
    Node,
    Plan9,
    Scsi,
    Topology,
    VirtualMachine,
)

NODES = sorted(
    (kind for kind in vars(document).values() if isinstance(kind, type) and issubclass(kind, Node) and kind is not Node),
    key=lambda kind: kind.__name__,
)


def documents(kind: type[Node]) -> st.SearchStrategy[Node]:
    """Any document of a kind, every number within 64 bits, every text that is Unicode."""
    members = {name: _values(hint) for name, hint in get_type_hints(kind).items() if name in kind.__struct_fields__}
    return st.builds(kind, **members)


def _values(hint: object) -> st.SearchStrategy[object]:
    plain: dict[object, st.SearchStrategy[object]] = {
        int: st.integers(0, 2**64 - 1),
        bool: st.booleans(),
        str: st.text(),
        list[str]: st.lists(st.text(), max_size=3),
    }
    if hint in plain:
        return plain[hint]
    inner = next(part for part in get_args(hint) if isinstance(part, type) and issubclass(part, Node))
    if type(None) in get_args(hint):
        return st.none() | st.deferred(lambda: documents(inner))
    if str in get_args(hint):
        return st.dictionaries(st.text(), st.deferred(lambda: documents(inner)), max_size=2)
    return st.lists(st.deferred(lambda: documents(inner)), max_size=2)


@given(documents(ComputeSystem))
def test_a_document_that_is_encoded_and_decoded_is_the_same(written: ComputeSystem) -> None:
    assert json.decode(json.encode(written), ComputeSystem) == written


@pytest.mark.parametrize("kind", NODES, ids=lambda kind: kind.__name__)
def test_an_object_at_its_zero_is_written_as_an_empty_object(kind: type[Node]) -> None:
    assert json.encode(kind()) == "{}"


@pytest.mark.parametrize("kind", NODES, ids=lambda kind: kind.__name__)
def test_every_member_has_a_name_given_by_hand(kind: type[Node]) -> None:
    for member in msgspec.structs.fields(kind):
        assert member.encode_name != member.name
        assert member.encode_name.lower() == member.name.replace("_", "")


def test_members_stand_in_go_s_order_and_present_objects_are_written() -> None:
    machine = VirtualMachine(
        stop_on_reset=True,
        chipset=Chipset(),
        compute_topology=Topology(memory=Memory(low_mmio_gap_in_mb=1, size_in_mb=2)),
        devices=Devices(plan9=Plan9(), scsi={"10": Scsi(), "1": Scsi(), "2": Scsi()}),
    )
    assert json.encode(ComputeSystem(virtual_machine=machine, owner="o")) == (
        '{"Owner":"o","VirtualMachine":{"StopOnReset":true,"Chipset":{},'
        '"ComputeTopology":{"Memory":{"SizeInMB":2,"LowMmioGapInMB":1}},'
        '"Devices":{"Scsi":{"1":{},"10":{},"2":{}},"Plan9":{}}}}'
    )


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a & b < c > d", r"a \u0026 b \u003c c \u003e d"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ('"\\', r"\"\\"),
        ("\n\r\t", r"\n\r\t"),
        ("\x00\x01\x1f", r"\u0000\u0001\u001f"),
        ("\b\f", r"\u0008\u000c"),
        ("\x7f\x85", "\x7f\x85"),
        (r"\b\u0026", r"\\b\\u0026"),
        ("\\\b\\&", r"\\\u0008\\\u0026"),
        ("容器-ü-😀", "容器-ü-😀"),
        (b"/a\xff\xfe".decode(errors="surrogateescape"), r"/a\ufffd\ufffd"),
        ("\ufffd", "\ufffd"),
    ],
)
def test_text_is_escaped_as_go_escapes_it(text: str, written: str) -> None:
    assert json.encode(LinuxKernelDirect(kernel_cmd_line=text)) == f'{{"KernelCmdLine":"{written}"}}'


def test_keys_are_escaped_like_values_and_sorted() -> None:
    assert json.encode({"b": 1, "a&": [True, None]}) == r'{"a\u0026":[true,null],"b":1}'


def test_numbers_reach_64_bits_unsigned() -> None:
    text = '{"SizeInMB":18446744073709551615}'
    assert json.encode(json.decode(text, Memory)) == text


def test_bytes_are_decoded_too() -> None:
    assert json.decode(b'{"SizeInMB":2}', Memory) == Memory(size_in_mb=2)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ('{"VirtualMachine":{"Devices":{"VirtualSmb":{}}}}', Unsupported, r"unknown field `VirtualSmb` - at `\$.VirtualMachine.Devices`"),
        ('{"Owner":7}', InvalidOptions, r"Expected `str`, got `int` - at `\$.Owner`"),
        ('{"Owner":', InvalidOptions, "document: Input data was truncated"),
        (b'{"Owner":"\xff"}', InvalidOptions, "document: "),
        ("\ud800", InvalidOptions, "document: "),
    ],
)
def test_a_document_that_we_do_not_understand_is_refused_with_its_place(text: str | bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        json.decode(text, ComputeSystem)
