"""The JSON law: Go's bytes out, our structs in."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilityvm import schema
from utilityvm.kit.errors import HostError, InvalidOptions, Unsupported
from utilityvm.schema import json
from utilityvm.schema.devices import Devices, IovSettings, Plan9, Scsi
from utilityvm.schema.document import Chipset, ComputeSystem, LinuxKernelDirect, Memory, Topology, VirtualMachine
from utilityvm.schema.hns import HNSEndpoint
from utilityvm.schema.metrics import CgroupMetrics
from utilityvm.schema.node import Answer, Node
from utilityvm.schema.properties import Properties
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.schema.results import Result, SystemExitStatus
from utilityvm.schema.schema1 import MappedVirtualDisk
from utilityvm.schema.service import ProcessorTopology
from utilityvm.schema.statistics import NO_MOMENT, Statistics

MODULES = [import_module(f"{schema.__name__}.{module.name}") for module in iter_modules(schema.__path__)]
STRUCTS = sorted(
    {
        kind
        for module in MODULES
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Node | Answer) and kind not in {Node, Answer}
    },
    key=lambda kind: f"{kind.__module__}.{kind.__name__}",
)
ALWAYS = {
    "Statistics": f'{{"Timestamp":"{NO_MOMENT}","ContainerStartTime":"{NO_MOMENT}"}}',
    "ProcessDetails": f'{{"CreateTimestamp":"{NO_MOMENT}"}}',
    "Namespace": '{"ID":""}',
    "ProcessConfig": '{"ConsoleSize":[0,0]}',
    "ResourceModificationRequestResponse": '{"ResourceType":"","Settings":null}',
    "MappedDir": '{"HostPath":"","ContainerPath":"","ReadOnly":false,"BandwidthMaximum":0,"IOPSMaximum":0,"CreateInUtilityVM":false}',
    "MappedVirtualDisk": '{"ContainerPath":""}',
    "schema1.MappedPipe": '{"HostPath":"","ContainerPipeName":""}',
}
"""Structs with members that are written even at their zero."""


def name_of(kind: type[msgspec.Struct]) -> str:
    return f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"


def documents(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Any document of a kind, every number within 64 bits, every text that is Unicode."""
    members = {name: _values(hint) for name, hint in get_type_hints(kind).items() if name in kind.__struct_fields__}
    return st.builds(kind, **members)


def _values(hint: Any) -> st.SearchStrategy[Any]:  # noqa: ANN401 (any type that a member may have)
    plain: dict[object, st.SearchStrategy[object]] = {
        int: st.integers(-(2**63), 2**64 - 1),
        bool: st.booleans(),
        str: st.text(),
        object: st.none() | st.dictionaries(st.text(), st.integers(0, 9), max_size=2),
    }
    arguments = get_args(hint)
    if hint in plain:
        return plain[hint]
    if get_origin(hint) is list:
        return st.lists(_values(arguments[0]), max_size=2)
    if get_origin(hint) is dict:
        return st.dictionaries(st.text(), _values(arguments[1]), max_size=2)
    if msgspec.UnsetType in arguments:
        return st.just(msgspec.UNSET) | _values(arguments[0])
    if type(None) in arguments:
        return st.none() | _values(arguments[0])
    return st.deferred(lambda: documents(hint))


@given(documents(ComputeSystem))
def test_a_document_that_is_encoded_and_decoded_is_the_same(written: ComputeSystem) -> None:
    assert json.decode(json.encode(written), ComputeSystem) == written


@pytest.mark.parametrize("kind", STRUCTS, ids=name_of)
def test_an_object_at_its_zero_is_written_as_an_empty_object(kind: type[Node]) -> None:
    assert json.encode(kind()) == ALWAYS.get(kind.__name__, ALWAYS.get(name_of(kind), "{}"))


@pytest.mark.parametrize("kind", STRUCTS, ids=name_of)
def test_every_member_has_a_name_given_by_hand(kind: type[Node]) -> None:
    for member in msgspec.structs.fields(kind):
        if kind.__module__ == CgroupMetrics.__module__ and member.name == member.encode_name:
            continue  # Linux's own names, which are spelled as ours
        assert member.encode_name != member.name
        assert member.encode_name.lower().endswith(member.name.replace("pid", "process_id").replace("_", ""))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_json_does_not_have_is_refused(number: float) -> None:
    with pytest.raises(InvalidOptions, match="^document: Out of range float values"):
        json.encode(ModifySettingRequest(settings={"Weight": number}))


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


def test_what_is_unset_is_not_written_and_its_zero_is() -> None:
    assert json.encode(IovSettings(offload_weight=0)) == '{"OffloadWeight":0}'
    assert json.decode('{"OffloadWeight":0}', IovSettings) == IovSettings(offload_weight=0) != IovSettings()


def test_what_was_told_in_a_shape_of_its_own_keeps_its_order() -> None:
    text = r'{"ID":"e","Policies":[{"Type":"ACL","Id":"a\u0026","N":1}]}'
    assert json.encode(json.decode(text, HNSEndpoint)) == text


def test_a_part_of_a_document_is_written_where_anything_may_stand() -> None:
    request = ModifySettingRequest(resource_path="p", settings=Memory(size_in_mb=2), guest_request={"b": 0, "a": MappedVirtualDisk()})
    assert json.encode(request) == ('{"ResourcePath":"p","Settings":{"SizeInMB":2},"GuestRequest":{"a":{"ContainerPath":""},"b":0}}')
    assert json.encode(ModifySettingRequest(settings=0)) == '{"Settings":0}'


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ('{"VirtualMachine":{"Devices":{"Sound":{}}}}', Unsupported, r"unknown field `Sound` - at `\$.VirtualMachine.Devices`"),
        ('{"Owner":7}', InvalidOptions, r"Expected `str`, got `int` - at `\$.Owner`"),
        ('{"Owner":', InvalidOptions, "document: Input data was truncated"),
        (b'{"Owner":"\xff"}', InvalidOptions, "document: "),
        ("\ud800", InvalidOptions, "document: "),
    ],
)
def test_a_document_that_we_do_not_understand_is_refused_with_its_place(text: str | bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        json.decode(text, ComputeSystem)


def test_an_answer_may_tell_more_than_we_know_and_null_is_not_told() -> None:
    text = (
        '{"Id":"a","State":null,"New":{"x":1},"Statistics":{"Uptime100ns":18446744073709551615,"Memory":null,"Timestamp":"2021-04-01T12:30:45.1Z"},'
        '"Memory":{"VirtualMachineMemory":{"AssignedMemory":262144,"Newer":true}},"GuestConnectionInfo":{"GuestDefinedCapabilities":{"b":1,"a":null}}}'
    )
    told = json.decode_answer(text, Properties)
    assert (told.id, told.state, told.process_list) == ("a", "", [])
    assert told.statistics == Statistics(uptime_100ns=2**64 - 1, timestamp="2021-04-01T12:30:45.1Z")
    assert told.memory is not None
    assert told.memory.virtual_machine_memory is not None
    assert told.memory.virtual_machine_memory.assigned_memory == 262144


def test_an_answer_of_null_tells_nothing() -> None:
    assert json.decode_answer("null", ProcessorTopology) == ProcessorTopology()


def test_a_failure_and_an_end_are_told_with_their_reasons() -> None:
    failure = json.decode_answer(
        '{"Error":-2143878909,"ErrorMessage":"m","ErrorEvents":[{"Message":"e","Provider":"p","EventId":12,"Flags":1,"Data":[]}]}', Result
    )
    assert (failure.error & 0xFFFFFFFF, failure.error_message) == (0x80370103, "m")
    assert [(event.message, event.event_id) for event in failure.error_events] == [("e", 12)]
    end = json.decode_answer('{"Status":0,"ExitType":"GracefulExit","Attribution":[{"WindowsCrash":{"DumpFile":"d"}}]}', SystemExitStatus)
    assert (end.status, end.exit_type) == (0, "GracefulExit")
    assert bytes(end.attribution[0].windows_crash) == b'{"DumpFile":"d"}'  # type: ignore[arg-type]
    assert end.attribution[0].worker_exit is msgspec.UNSET


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"LogicalProcessorCount":-1}', r"ProcessorTopology: Expected `int` >= 0 - at `\$.LogicalProcessorCount`"),
        ('{"LogicalProcessorCount":"2"}', r"Expected `int`, got `str`"),
        ("[]", "Expected `object`, got `array`"),
        ('{"', "truncated"),
        (b"\xff", "is no ProcessorTopology"),
        ("\ud800", "is no ProcessorTopology"),
    ],
)
def test_an_answer_that_makes_no_sense_is_the_host_s_error_with_its_place(text: str | bytes, message: str) -> None:
    with pytest.raises(HostError, match=message):
        json.decode_answer(text, ProcessorTopology)


def test_documents_have_a_json_schema_that_says_their_members_and_refuses_others() -> None:
    whole = json.json_schema(ComputeSystem)
    assert whole["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert whole["$ref"] == "#/$defs/ComputeSystem"
    assert whole["$defs"]["Memory"]["properties"]["SizeInMB"] == {"type": "integer", "default": 0}
    assert whole["$defs"]["VirtualMachine"]["additionalProperties"] is False
    assert whole["$defs"]["VirtualSmb"]["properties"]["Shares"]["items"] == {"$ref": "#/$defs/VirtualSmbShare"}
