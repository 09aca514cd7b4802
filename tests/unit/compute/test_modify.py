"""A change in two halves: their order, and what is taken back."""

import asyncio
from collections.abc import Mapping

import msgspec
import pytest

from utilityvm.compute import modify as modify_module
from utilityvm.compute.modify import in_two_halves
from utilityvm.kit.errors import DeadlineExceeded, GuestError, HostError, InvalidOptions, UtilityVMError
from utilityvm.schema.guest_requests import GuestRequest, LCOWMappedVPCIDevice
from utilityvm.schema.requests import ModifySettingRequest

PATH = "VirtualMachine/Devices/Scsi/0/Attachments/0"
GUEST = {"ResourceType": "MappedVirtualDisk"}


class Both:
    """The two halves: what they were asked, in order, and with what they fail."""

    def __init__(self, **fails: UtilityVMError) -> None:
        self.asked: list[str] = []
        self.tells: Mapping[str, object] | None = None
        self.told: list[object] = []
        self._fails = fails

    async def host(self, request: ModifySettingRequest) -> Mapping[str, object] | None:
        assert request.guest_request is None
        await self._ask(f"host {request.request_type}")
        return self.tells

    async def guest(self, request: object) -> None:
        self.told.append(request)
        asked = msgspec.to_builtins(request)
        assert asked["ResourceType"] == GUEST["ResourceType"]
        await self._ask(f"guest {asked['RequestType']}")

    async def _ask(self, what: str) -> None:
        self.asked.append(what)
        await asyncio.sleep(0)
        if (failure := self._fails.get(what.replace(" ", "_")) or self._fails.get(what.partition(" ")[0])) is not None:
            raise failure

    async def modify(self, request_type: str, path: str = PATH, *, guest: bool = True) -> None:
        asked = GUEST | {"RequestType": request_type} if guest else None
        request = ModifySettingRequest(resource_path=path, request_type=request_type, guest_request=asked)
        await in_two_halves(request, self.host, self.guest, "vm x")


async def modify(both: Both, guest: object) -> Mapping[str, object] | None:
    request = ModifySettingRequest(resource_path=PATH, request_type="Add", guest_request=guest)
    return await in_two_halves(request, both.host, both.guest, "vm x")


def guest_error() -> GuestError:
    return GuestError("no such disk", call="ModifySettings", result=0x80004005)


@pytest.mark.parametrize(
    ("request_type", "asked"),
    [
        ("Add", ["host Add", "guest Add"]),
        ("Remove", ["guest Remove", "host Remove"]),
        ("Update", ["host Update", "guest Update"]),
        ("", ["host ", "guest "]),
    ],
)
async def test_each_request_has_its_order(request_type: str, asked: list[str]) -> None:
    both = Both()
    await both.modify(request_type)
    assert both.asked == asked


async def test_a_half_alone_is_carried_out_alone() -> None:
    both = Both()
    await both.modify("Add", guest=False)
    await both.modify("Add", path="")
    assert both.asked == ["host Add", "guest Add"]


async def test_what_the_guest_refuses_is_taken_back() -> None:
    both = Both(guest=guest_error())
    with pytest.raises(GuestError, match="^guest modify: no such disk$"):
        await both.modify("Add")
    assert both.asked == ["host Add", "guest Add", "host Remove"]


async def test_taking_back_may_fail_and_the_reason_stays(caplog: pytest.LogCaptureFixture) -> None:
    both = Both(guest=guest_error(), host_Remove=HostError("busy"))
    with pytest.raises(GuestError, match="no such disk"):
        await both.modify("Add")
    assert "busy" in caplog.text


async def test_what_the_host_refuses_never_reaches_the_guest() -> None:
    both = Both(host_Add=HostError("no"))
    with pytest.raises(HostError, match="^adding VM resources: no$"):
        await both.modify("Add")
    assert both.asked == ["host Add"]


async def test_a_removal_that_the_host_refuses_may_be_asked_for_again() -> None:
    both = Both(host_Remove=HostError("busy"))
    with pytest.raises(HostError, match="^removing VM resources: busy$"):
        await both.modify("Remove")
    with pytest.raises(HostError):
        await both.modify("Remove")
    assert both.asked == ["guest Remove", "host Remove"] * 2


async def test_a_cancelled_addition_is_taken_back() -> None:
    both = Both()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(both.modify("Add"))
        while both.asked[-1:] != ["guest Add"]:
            await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    assert both.asked == ["host Add", "guest Add", "guest Remove", "host Remove"]


async def test_nothing_of_the_host_is_added_beforehand() -> None:
    both = Both()
    with pytest.raises(InvalidOptions, match="PreAdd is for the guest alone"):
        await both.modify("PreAdd")
    assert both.asked == []


async def test_an_addition_that_only_the_host_makes_is_taken_back_when_its_caller_gives_up() -> None:
    both = Both()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(both.modify("Add", guest=False))
        while not both.asked:
            await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    assert both.asked == ["host Add", "host Remove"]


async def test_the_guest_is_told_what_the_host_says_of_its_half() -> None:
    both = Both()
    both.tells = {"Place": 64}
    asked = GUEST | {"RequestType": "Add"}
    of_structs = GuestRequest(request_type="Add", resource_type=GUEST["ResourceType"], settings=LCOWMappedVPCIDevice(vmbus_guid="g"))
    for guest in (asked, asked | {"Settings": {"VMBusGUID": "g"}}, of_structs):
        await modify(both, guest)
    assert both.told == [asked | {"Settings": {"Place": 64}}, *[asked | {"Settings": {"VMBusGUID": "g", "Place": 64}}] * 2]


async def test_what_the_host_says_is_passed_on_to_whoever_keeps_the_guest_connection() -> None:
    both = Both()
    both.tells = {"Place": 64}
    assert await modify(both, None) == {"Place": 64}
    assert both.told == []


@pytest.mark.parametrize("request_type", ["Add", "Remove", "Update"])
async def test_a_host_that_does_not_come_to_an_end_is_given_up_at_the_deadline(request_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modify_module, "HOST_TIMEOUT", 0.05)
    both, given_up = Both(), asyncio.Event()

    async def host(request: ModifySettingRequest) -> None:
        await both.host(request)
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    asked = GUEST | {"RequestType": request_type}
    request = ModifySettingRequest(resource_path=PATH, request_type=request_type, guest_request=asked)
    with pytest.raises(DeadlineExceeded, match=rf"vm x: {request_type} of {PATH}: the host was not done within 0\.05 s") as caught:
        await in_two_halves(request, host, both.guest, "vm x")
    assert given_up.is_set(), "it goes on behind our back"
    guest_first = request_type == "Remove"
    assert both.asked == (["guest Remove"] if guest_first else []) + [f"host {request_type}"]
    assert caught.value.half_done is guest_first


async def test_taking_back_is_given_up_at_the_deadline_too_and_the_reason_stays(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(modify_module, "HOST_TIMEOUT", 0.05)
    both = Both(guest=guest_error())

    async def host(request: ModifySettingRequest) -> None:
        await both.host(request)
        if request.request_type == "Remove":
            await asyncio.Event().wait()

    request = ModifySettingRequest(resource_path=PATH, request_type="Add", guest_request=GUEST | {"RequestType": "Add"})
    with pytest.raises(GuestError, match="no such disk") as caught:
        await in_two_halves(request, host, both.guest, "vm x")
    assert caught.value.half_done
    assert "the host was not done within 0.05 s" in caplog.text
