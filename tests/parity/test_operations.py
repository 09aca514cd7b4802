"""Vectors of our own for bugs that the repository's do not show, and what holds the deviations of operations to their bugs.

What the original does in them is what its source says (the ledger of its bugs), by the model of its table of disks; that this model
is the original without any fix is shown by the recorded vectors.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.parity.compare import compare
from tests.parity.operations import OPERATIONS, SAVE, OperationsVector, expected, run
from tests.parity.operations_deviations import OPERATION_DEVIATIONS, operations_expectation
from tests.parity.scsi_model import OPS, replayed
from tests.parity.vectors import read_folder
from utilityvm.wire import gcs

VECTORS = read_folder(Path(__file__).parent / "vectors")["vm_operations"]
RECORDED = [item for item in VECTORS if isinstance(item, OperationsVector)]
Json = dict[str, Any]
REFUSED = '{"Result":-2147467259,"ActivityId":"00000000-0000-0000-0000-000000000000","ErrorMessage":"no such disk","ErrorRecords":null}'
AGREED = "{}"
CONTEXT = '"ocsc":{"TraceID":"000102030405060708090a0b0c0d0e0f","SpanID":"a001020304050607","TraceOptions":1}'
NULL = "00000000-0000-0000-0000-000000000000"
DISK = {"host_path": "C:\\golden\\disks\\a.vhd", "uvm_path": "/run/a", "read_only": False, "guest_options": None, "vm_access": 0}
OTHER = DISK | {"host_path": "C:\\golden\\disks\\b.vhd", "uvm_path": "/run/b"}


def base(name: str) -> OperationsVector:
    return next(vector for vector in RECORDED if vector.name == name)


class Steps:
    """Operations and what came of them, written as the vectors are."""

    def __init__(self, of: str) -> None:
        self._input = base(of).input
        self._steps: list[Json] = []
        self._frames = 0

    def step(self, op: str, args: Mapping[str, Any], *, calls: list[Json] | None = None, **outcome: object) -> "Steps":
        asked: list[tuple[str, str]] = outcome.pop("asked", [])  # type: ignore[assignment]
        frames = []
        for request, answer in asked:
            self._frames += 1
            body = f'{{"ContainerId":"{NULL}","ActivityId":"{NULL}",{CONTEXT},"Request":{request}}}'
            frames.append(frame("host->guest", gcs.MODIFY.word, self._frames, body, 17))
            frames.append(frame("guest->host", gcs.response_type(gcs.MODIFY.word), self._frames, answer, 16))
        made: list[Json] = outcome.pop("made", [])  # type: ignore[assignment]
        made = [*made, *({"call": "HcsModifyComputeSystem", "json": call} for call in calls or [])]
        self._steps.append({"op": op, "args": dict(args), "calls": made, "guest_frames": frames} | outcome)
        return self

    def vector(self, name: str) -> OperationsVector:
        text = json.dumps({"name": name, "input": self._input, "steps": self._steps}, separators=(",", ":"))
        return msgspec.json.decode(text, type=OperationsVector)


def frame(direction: str, word: int, number: int, body: str, header: int) -> Json:
    return {"dir": direction, "type": word, "type_name": "", "id": number, "size": len(body) + header, "payload": json.loads(body)}


def modify(kind: str, lun: int, **settings: object) -> Json:
    path = f"VirtualMachine/Devices/Scsi/0/Attachments/{lun}"
    return {"ResourcePath": path, "RequestType": kind} | ({"Settings": settings} if settings else {})


def disk(kind: str, path: str, lun: int = 0) -> str:
    place = f',"Lun":{lun}' if lun else ""
    return f'{{"RequestType":"{kind}","ResourceType":"MappedVirtualDisk","Settings":{{"MountPath":"{path}"{place}}}}}'


def guest_refuses() -> OperationsVector:
    """Bug 8: the guest refuses a disk, which stays in the table; the next call finds it, and the next disk does not get its place."""
    a = {"Type": "VirtualDisk", "Path": DISK["host_path"]}
    b = {"Type": "VirtualDisk", "Path": OTHER["host_path"]}
    said = "failed to modify UVM with new SCSI mount: guest modify: guest RPC failure: no such disk"
    result = {"controller": 0, "lun": 0, "uvm_path": "/run/a", "ref_count": 2}
    steps = Steps("win/lcow-scsi-gc")
    steps.step(
        "AddSCSI",
        DISK,
        calls=[modify("Add", 0, **a), modify("Remove", 0, **a)],
        asked=[(disk("Add", "/run/a"), REFUSED)],
        error=said,
    )
    steps.step(
        "AddSCSI",
        OTHER,
        calls=[modify("Add", 1, **b)],
        asked=[(disk("Add", "/run/b", 1), AGREED)],
        result={"controller": 0, "lun": 1, "uvm_path": "/run/b", "ref_count": 1},
    )
    steps.step("AddSCSI", DISK, result=result)
    steps.step("GetScsiUvmPath", {"host_path": DISK["host_path"]}, result="/run/a")
    return steps.vector("own/guest-refuses")


def guest_keeps() -> OperationsVector:
    """Bug 9: the guest does not give a disk up; the reference is gone, and the next removal counts below nothing and asks nobody."""
    a = {"Type": "VirtualDisk", "Path": DISK["host_path"]}
    path = {"host_path": DISK["host_path"]}
    vm_id = base("win/lcow-scsi-gc").input["options"]["ID"]
    said = f"failed to remove SCSI disk {DISK['host_path']} from container {vm_id}: guest modify: guest RPC failure: no such disk"
    steps = Steps("win/lcow-scsi-gc")
    added = {"controller": 0, "lun": 0, "uvm_path": "/run/a", "ref_count": 1}
    steps.step("AddSCSI", DISK, calls=[modify("Add", 0, **a)], asked=[(disk("Add", "/run/a"), AGREED)], result=added)
    steps.step("RemoveSCSI", path, asked=[(disk("Remove", "/run/a"), REFUSED)], error=said)
    steps.step("RemoveSCSI", path, result=None)
    return steps.vector("own/guest-keeps")


def host_keeps() -> OperationsVector:
    """Bug 9 again: the guest has given the disk up and the host has not; with us the host alone is asked again."""
    a = {"Type": "VirtualDisk", "Path": DISK["host_path"]}
    path = {"host_path": DISK["host_path"]}
    vm_id = base("win/lcow-scsi-gc").input["options"]["ID"]
    said = f"failed to remove SCSI disk {DISK['host_path']} from container {vm_id}: removing VM resources: busy"
    steps = Steps("win/lcow-scsi-gc")
    added = {"controller": 0, "lun": 0, "uvm_path": "/run/a", "ref_count": 1}
    steps.step("AddSCSI", DISK, calls=[modify("Add", 0, **a)], asked=[(disk("Add", "/run/a"), AGREED)], result=added)
    steps.step("RemoveSCSI", path, calls=[modify("Remove", 0)], asked=[(disk("Remove", "/run/a"), AGREED)], error=said)
    steps.step("RemoveSCSI", path, result=None)
    return steps.vector("own/host-keeps")


def host_refuses() -> OperationsVector:
    """Bug 8 again, with the host's refusal, and without a connection of the VM's own."""
    added = modify("Add", 0, Type="VirtualDisk", Path=DISK["host_path"])
    call = added | {"GuestRequest": json.loads(disk("Add", "/run/a"))}
    gone = modify("Remove", 0) | {"GuestRequest": json.loads(disk("Remove", "/run/a"))}
    steps = Steps("win/lcow-scsi-nogc")
    steps.step("AddSCSI", DISK, calls=[call], error="failed to modify UVM with new SCSI mount: no such file")
    steps.step("RemoveSCSI", {"host_path": DISK["host_path"]}, calls=[gone], result=None)
    return steps.vector("own/host-refuses")


def windows_disk() -> OperationsVector:
    """Bug 11: a disk that a Windows guest has not mounted; the scratch has the first place."""
    plain = DISK | {"uvm_path": ""}
    mounted = OTHER | {"uvm_path": "C:\\b"}
    asked = '{"RequestType":"Remove","ResourceType":"MappedVirtualDisk","Settings":{"Lun":1}}'
    add = '{"RequestType":"Add","ResourceType":"MappedVirtualDisk","Settings":{"ContainerPath":"C:\\\\b","Lun":2}}'
    steps = Steps("win/wcow-layers-gc")
    at = {"controller": 0, "uvm_path": "", "ref_count": 1}
    steps.step("AddSCSI", plain, calls=[modify("Add", 1, Type="VirtualDisk", Path=plain["host_path"])], result=at | {"lun": 1})
    steps.step(
        "AddSCSI",
        mounted,
        calls=[modify("Add", 2, Type="VirtualDisk", Path=mounted["host_path"])],
        asked=[(add, AGREED)],
        result=at | {"lun": 2, "uvm_path": "C:\\b"},
    )
    steps.step("RemoveSCSI", {"host_path": plain["host_path"]}, calls=[modify("Remove", 1)], asked=[(asked, AGREED)], result=None)
    gone = add.replace('"Add"', '"Remove"')
    steps.step("RemoveSCSI", {"host_path": mounted["host_path"]}, calls=[modify("Remove", 2)], asked=[(gone, AGREED)], result=None)
    return steps.vector("own/windows-disk")


def share_stays() -> OperationsVector:
    """An error with the request in it, in the notation of Go."""
    share = {"Name": "0", "AccessName": "0", "Path": "C:\\golden\\dir", "Port": 564, "Flags": 4}
    gone = {"Name": "0", "AccessName": "0", "Port": 564}
    mounted = {"MountPath": "/mnt/d", "Port": 564, "ShareName": "0"}
    shares = "VirtualMachine/Devices/Plan9/Shares"
    directory = {"ResourceType": "MappedDirectory", "Settings": mounted}
    vm_id = base("win/lcow-plan9-nogc").input["options"]["ID"]
    calls = [
        {"ResourcePath": shares, "RequestType": kind, "Settings": settings, "GuestRequest": {"RequestType": kind} | directory}
        for kind, settings in (("Add", share), ("Remove", gone))
    ]
    args = {"host_path": "C:\\golden\\dir", "uvm_path": "/mnt/d", "read_only": False, "restrict": False, "allowed_names": None}
    dump = "&{ResourcePath:VirtualMachine/Devices/Plan9/Shares RequestType:Remove Settings:{Name:0} GuestRequest:{}}"
    steps = Steps("win/lcow-plan9-nogc")
    steps.step("AddPlan9", args, calls=[calls[0]], result={"name": "0", "uvm_path": "/mnt/d"})
    steps.step("RemovePlan9", {"name": "0"}, calls=[calls[1]], error=f"failed to remove plan9 share 0 from {vm_id}: {dump}: in use")
    return steps.vector("own/share-stays")


def no_address() -> OperationsVector:
    """Bug 17: an endpoint without an address."""
    endpoint = {"ID": "ep-1", "MacAddress": "00-15-5D-00-00-01", "Namespace": {"ID": "ns-1"}}
    settings = '{"NamespaceID":"ns-1","ID":"nic-1","MacAddress":"00-15-5D-00-00-01","IPAddress":"<nil>"}'
    asked = f'{{"RequestType":"Add","ResourceType":"Network","Settings":{settings}}}'
    path = "VirtualMachine/Devices/NetworkAdapters/nic-1"
    call = {"ResourcePath": path, "RequestType": "Add", "Settings": {"EndpointId": "ep-1", "MacAddress": "00-15-5D-00-00-01"}}
    steps = Steps("win/lcow-network-gc")
    steps.step("addNIC", {"id": "nic-1", "endpoint": endpoint}, calls=[call], asked=[(asked, AGREED)], result=None)
    return steps.vector("own/no-address")


def not_saved() -> OperationsVector:
    """A template that the service does not save, first at the pause, then at the end, and at last does."""
    pause = {"call": "HcsPauseComputeSystem"}
    save = {"call": "HcsSaveComputeSystem", "json": {"SaveType": "AsTemplate"}}
    steps = Steps("win/wcow-save-template-gc")
    steps.step(SAVE, {}, made=[pause], error="error pausing the VM: busy")
    steps.step(SAVE, {}, made=[pause, save], error="error saving the VM: no room")
    steps.step(SAVE, {}, made=[pause, save], result=None)
    return steps.vector("own/not-saved")


def saved_unasked() -> OperationsVector:
    """A VM that was not made for it is saved all the same."""
    pause = {"call": "HcsPauseComputeSystem"}
    save = {"call": "HcsSaveComputeSystem", "json": {"SaveType": "AsTemplate"}}
    return Steps("win/wcow-layers-gc").step(SAVE, {}, made=[pause, save], result=None).vector("own/saved-unasked")


OWN = [
    not_saved(),
    saved_unasked(),
    guest_refuses(),
    guest_keeps(),
    host_keeps(),
    host_refuses(),
    windows_disk(),
    share_stays(),
    no_address(),
]
ALL = [*RECORDED, *OWN]


@pytest.mark.parametrize("vector", OWN, ids=lambda vector: vector.name)
def test_we_do_as_the_original_but_for_its_bugs(vector: OperationsVector) -> None:
    assert operations_expectation(vector)[1], "it shows no bug"
    assert compare(vector).differences == []


@pytest.mark.parametrize("vector", ALL, ids=lambda vector: vector.name)
def test_the_model_with_all_bugs_is_the_original(vector: OperationsVector) -> None:
    for number, outcome in replayed(vector, frozenset()).items():
        recorded = expected(vector)[number]
        assert (outcome.result, outcome.error, outcome.calls) == (recorded.result, recorded.error, recorded.calls)
        assert [(frame.size, frame.payload) for frame in outcome.frames] == [(frame.size, frame.payload) for frame in recorded.frames]


def test_the_model_is_held_to_recorded_disks() -> None:
    assert sum(step.op in OPS for vector in RECORDED for step in vector.steps) > 25


@pytest.mark.parametrize("name", OPERATION_DEVIATIONS)
def test_without_a_deviation_of_operations_its_vectors_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bitten = [vector for vector in ALL if name in operations_expectation(vector)[1]]
    assert bitten
    monkeypatch.delitem(OPERATION_DEVIATIONS, name)
    assert all(compare(vector).differences for vector in bitten)


@pytest.mark.parametrize("name", OPERATION_DEVIATIONS)
def test_a_deviation_of_operations_is_no_wider_than_its_bug(name: str) -> None:
    for vector in ALL:
        if OPERATION_DEVIATIONS[name].shows(vector):
            assert OPERATION_DEVIATIONS[name].ours(expected(vector), vector) != expected(vector)


def test_every_operation_of_the_vectors_is_played_and_gives_something() -> None:
    played = {step.op for vector in RECORDED for step in vector.steps}
    assert played - OPERATIONS.keys() == set()
    assert all(run(vector) for vector in RECORDED[:1])
