"""Rules of hvsocket services: a disabled one's port refuses dials, the rest is recorded."""

import pytest

from utilityvm.compute.qemu.lower import check
from utilityvm.compute.qemu.services import Services, rules_of
from utilityvm.kit.errors import InvalidOptions, NotFound, Unsupported
from utilityvm.schema.devices import HvSocketServiceConfig
from utilityvm.schema.document import ComputeSystem
from utilityvm.schema.requests import ModifySettingRequest

from .test_lower import with_value

PORT_80 = "00000050-facb-11e6-bd58-64006a7986d3"
BRIDGE = "40000000-FACB-11E6-BD58-64006A7986D3"
OTHER = "acef5661-84a1-4e44-856b-6245e69f4620"
TABLE = ("VirtualMachine", "Devices", "HvSocket", "HvSocketConfig", "ServiceTable")
OFF = HvSocketServiceConfig(disabled=True, bind_security_descriptor="D:P")


def request(service: str, how: str, rule: object = None) -> ModifySettingRequest:
    return ModifySettingRequest(resource_path="/".join((*TABLE, service)), request_type=how, settings=rule)


def services(document: ComputeSystem | None = None) -> tuple[Services, list[tuple[int, bool]]]:
    told: list[tuple[int, bool]] = []
    return Services(
        rules_of((document or ComputeSystem()).virtual_machine), lambda port, allowed: told.append((port, allowed)), "vm x"
    ), told


def test_a_disabled_service_refuses_dials_until_its_rule_says_otherwise_or_is_gone() -> None:
    of, told = services()
    assert of.modify(request(PORT_80, "Update", OFF))
    assert of.modify(request(PORT_80.upper(), "Update", HvSocketServiceConfig(connect_security_descriptor="D:P")))
    assert of.modify(request(PORT_80, "Update", OFF))
    assert of.modify(request(PORT_80, "Remove"))
    assert told == [(80, False), (80, True), (80, False), (80, True)]


def test_an_update_to_nothing_but_disabled_removes_the_rule() -> None:
    of, told = services()
    of.modify(request(PORT_80, "Update", OFF))
    of.modify(request(PORT_80, "Update", {"Disabled": True}))
    assert told == [(80, False), (80, True)]
    with pytest.raises(NotFound, match="there are no rules for it"):
        of.modify(request(PORT_80, "Remove"))


def test_rules_of_the_document_hold_from_the_start() -> None:
    of, told = services(with_value(TABLE, {PORT_80: {"Disabled": True}, OTHER: {"Disabled": True}}))
    assert told == [(80, False)]
    assert of.modify(request(OTHER, "Remove"))
    assert told == [(80, False)]


def test_what_the_vm_itself_needs_cannot_be_disabled() -> None:
    of, told = services()
    with pytest.raises(Unsupported, match="needs port 0x40000000, for the guest's agent"):
        of.modify(request(BRIDGE, "Update", OFF))
    with pytest.raises(Unsupported, match=r'ServiceTable\["40000000-facb.*needs port 0x40000000'):
        check(with_value(TABLE, {BRIDGE: {"Disabled": True}}))
    assert of.modify(request(BRIDGE, "Update", HvSocketServiceConfig(bind_security_descriptor="D:P")))
    assert told == [(0x4000_0000, True)]


@pytest.mark.parametrize(
    ("service", "how", "rule", "error", "says"),
    [
        ("80", "Update", OFF, InvalidOptions, "'80' is no service, which is a GUID"),
        (PORT_80, "Add", OFF, Unsupported, "'Add': only Update and Remove"),
        (PORT_80, "Update", {"AllowWildcardBinds": True}, Unsupported, "AllowWildcardBinds: who listens here"),
        (PORT_80, "Update", {"Disabled": "yes"}, InvalidOptions, "Settings"),
    ],
)
def test_what_is_refused_changes_nothing(service: str, how: str, rule: object, error: type[Exception], says: str) -> None:
    of, told = services()
    with pytest.raises(error, match=says):
        of.modify(request(service, how, rule))
    assert told == []


def test_other_requests_are_others_business() -> None:
    of, _ = services()
    assert not of.modify(ModifySettingRequest(resource_path="VirtualMachine/Devices/Scsi/0/Attachments/0", request_type="Add"))
