"""The original's SCSI table, written down again: what it does with its bugs, and with any of them fixed as the ledger says.

Without a fix it must give what was recorded; with all of them it is what we are held to.
"""

import json
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tests.parity.gcs import Outcome
from tests.parity.gcs_guest import Seen
from tests.parity.operations import MODIFY, OperationsVector, OperationVector, World
from utilityvm.kit.gojson import as_go
from utilityvm.kit.ids import NULL_GUID
from utilityvm.wire import gcs
from utilityvm.wire.frames import HEADER

BUGS: Final = frozenset({"bug-8", "bug-9", "bug-10", "bug-11"})
OPS: Final = frozenset({"AddSCSI", "AddSCSIPhysicalDisk", "RemoveSCSI", "GetScsiUvmPath"})
_CONTEXT: Final = {"TraceID": "000102030405060708090a0b0c0d0e0f", "SpanID": "a001020304050607", "TraceOptions": 1}
_NAMES: Final = ("type", "guest_path", "read_only", "options")

Json = dict[str, Any]


def text_of(value: object) -> str:
    """Return JSON as Go writes it."""
    return as_go(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _present(**members: Any) -> Json:  # noqa: ANN401 (JSON)
    return {name: value for name, value in members.items() if value or value == {}}


@dataclass
class _Disk:
    place: tuple[int, int]
    path: str
    mode: tuple[str, str, bool, tuple[str, ...]]
    references: int = 1
    half: bool = False


@dataclass
class _Done:
    calls: list[str] = field(default_factory=list)
    frames: list[Seen] = field(default_factory=list)
    error: str | None = None


class Model:
    """The table of one VM with these bugs `fixed`."""

    def __init__(self, vector: OperationsVector, fixed: AbstractSet[str]) -> None:
        self._fixed, self._world = fixed, World(vector)
        self._id, self._windows = vector.input["options"]["ID"], vector.input["kind"] == "wcow"
        self._connected = vector.input["guest_connected"]
        controllers = 1 if self._windows else vector.input["options"]["SCSIControllerCount"]
        self._usable = controllers if fixed else min(controllers, 1)
        self._disks: dict[str, _Disk] = {}
        self._own = {(0, 0)} if self._windows else set()

    def step(self, step: OperationVector) -> Outcome:
        """Return what an operation on disks does; the frames' ids are 0."""
        done, path = _Done(), step.args["host_path"]
        match step.op:
            case "GetScsiUvmPath":
                disk = self._disks.get(path)
                return Outcome(disk.mode[1] if disk else None, None if disk else "not attached")
            case "RemoveSCSI":
                self._remove(path, done)
                result = None
            case _:
                result = self._add(step, done)
        return Outcome(None if done.error else result, done.error, done.frames, calls=done.calls)

    def _add(self, step: OperationVector, done: _Done) -> object:
        args, path = step.args, step.args["host_path"]
        kind, access = ("VirtualDisk", args["vm_access"]) if step.op == "AddSCSI" else ("PassThru", 2)
        mode = (kind, args["uvm_path"], args["read_only"], tuple(args["guest_options"] or ()))
        disk = self._disks.get(path)
        if disk is not None and "bug-10" in self._fixed and disk.mode != mode:
            done.error = self._refusal(disk, mode)
            return None
        if not self._grant(path, access, done):
            return None
        if disk is not None:
            disk.references += 1
            return self._result(disk)
        return self._attach(path, mode, done)

    def _attach(self, path: str, mode: tuple[str, str, bool, tuple[str, ...]], done: _Done) -> object:
        taken = {disk.place for disk in self._disks.values()} | self._own
        controllers = max(self._usable, 4 if not self._fixed else 0)
        free = [(controller, lun) for controller in range(controllers) for lun in range(64) if (controller, lun) not in taken]
        disk = _Disk(free[0] if free else (4, 0), path, mode)
        self._disks[path] = disk
        if self._usable == 0:
            done.error = "no SCSI controllers configured for this utility VM"
        elif disk.place[0] >= self._usable:
            done.error = "too many SCSI attachments"
        else:
            self._modify("Add", disk, self._adding(disk), done)
            if done.error:
                done.error = f"failed to modify UVM with new SCSI mount: {done.error}"
        if done.error and ("bug-8" in self._fixed or not free):
            del self._disks[path]
        return self._result(disk)

    def _remove(self, path: str, done: _Done) -> None:
        if self._usable == 0:
            done.error = "no SCSI controllers configured for this utility VM"
            return
        disk = self._disks.get(path)
        if disk is None:
            done.error = "not attached"
            return
        disk.references = (disk.references - 1) % 2**32
        if disk.references > 0:
            return
        self._modify("Remove", disk, None if disk.half else self._removing(disk), done)
        if not done.error:
            del self._disks[path]
            return
        if "bug-9" in self._fixed:
            disk.references = 1
            disk.half = disk.half or "removing VM resources: " in done.error
        done.error = f"failed to remove SCSI disk {path} from container {self._id}: {done.error}"

    # -- requests ---------------------------------------------------------------------------------------------------

    def _adding(self, disk: _Disk) -> Json | None:
        _, guest_path, read_only, options = disk.mode
        if not guest_path:
            return None
        controller, lun = disk.place
        if self._windows:
            return _present(ContainerPath=guest_path, Lun=lun)
        return _present(MountPath=guest_path, Lun=lun, Controller=controller, ReadOnly=read_only, Options=list(options))

    def _removing(self, disk: _Disk) -> Json | None:
        controller, lun = disk.place
        if self._windows and disk.mode[1]:
            return _present(ContainerPath=disk.mode[1], Lun=lun)
        if self._windows and "bug-11" in self._fixed:
            return None
        return _present(MountPath=disk.mode[1], Lun=lun, Controller=controller)

    def _modify(self, request_type: str, disk: _Disk, guest: Json | None, done: _Done) -> None:
        controller, lun = disk.place
        kind, _, read_only, _ = disk.mode
        host: Json = {"ResourcePath": f"VirtualMachine/Devices/Scsi/{controller}/Attachments/{lun}", "RequestType": request_type}
        if request_type == "Add":
            host["Settings"] = _present(Type=kind, Path=disk.path, ReadOnly=read_only)
        asked = None if guest is None else {"RequestType": request_type, "ResourceType": "MappedVirtualDisk", "Settings": guest}
        if not self._connected:
            self._host(host if asked is None else host | {"GuestRequest": asked}, done, "")
        elif asked is None:
            self._host(host, done, "")
        elif request_type == "Add":
            if self._host(host, done, "adding VM resources: ") and not self._guest(asked, done):
                self._host(host | {"RequestType": "Remove"}, done, None)
        elif self._guest(asked, done):
            self._host(host, done, "removing VM resources: ")

    def _host(self, request: Json, done: _Done, failing: str | None) -> bool:
        text = text_of(request)
        done.calls.append(f"{MODIFY} {text}")
        refusal = self._world.refuses(MODIFY, text)
        if refusal is not None and failing is not None:
            done.error = failing + refusal
        return refusal is None

    def _guest(self, request: Json, done: _Done) -> bool:
        text = text_of({"ContainerId": NULL_GUID, "ActivityId": NULL_GUID, "ocsc": _CONTEXT, "Request": request})
        answer = self._world.answer(gcs.MODIFY.name, 0, text.encode()) or World.default_response
        done.frames.append(Seen("host->guest", gcs.MODIFY.word, 0, HEADER.size + len(text.encode()) + 1, text))
        done.frames.append(Seen("guest->host", gcs.response_type(gcs.MODIFY.word), 0, HEADER.size + len(answer.encode()), answer))
        said = json.loads(answer)
        if said.get("Result", 0) == 0:
            return True
        done.error = f"guest modify: guest RPC failure: {said.get('ErrorMessage', '')}"
        return False

    def _grant(self, path: str, access: int, done: _Done) -> bool:
        if access == 0:
            return True
        done.calls.append(f"GrantVmAccess {self._id} {path}" if access == 2 else f"GrantVmGroupAccess {path}")
        if (refusal := self._world.forbidden.get(path)) is not None:
            done.error = f"failed to grant VM access for SCSI mount: {refusal}"
        return refusal is None

    def _refusal(self, disk: _Disk, mode: tuple[str, str, bool, tuple[str, ...]]) -> str:
        pairs = zip(_NAMES, (*disk.mode[:3], sorted(disk.mode[3])), (*mode[:3], sorted(mode[3])), strict=True)
        other = ", ".join(f"{name} is {has!r}, not {asked!r}" for name, has, asked in pairs if has != asked)
        return f"vm {self._id}: {disk.path} is attached in another way: {other}"

    def _result(self, disk: _Disk) -> object:
        controller, lun = disk.place
        return {"controller": controller, "lun": lun, "uvm_path": disk.mode[1], "ref_count": disk.references}


def replayed(vector: OperationsVector, fixed: AbstractSet[str]) -> dict[int, Outcome]:
    """Return what each operation on disks does, by the number of the step."""
    model = Model(vector, fixed)
    return {number: model.step(step) for number, step in enumerate(vector.steps) if step.op in OPS}


def numbered(outcomes: list[Outcome]) -> list[Outcome]:
    """Return the same with frames that are numbered one after the other, from the request after the first."""
    ours, last = list[Outcome](), 0
    for outcome in outcomes:
        frames = list[Seen]()
        for frame in outcome.frames:
            last += frame.dir == "host->guest"
            frames.append(replace(frame, id=last))
        ours.append(replace(outcome, frames=frames))
    return ours
