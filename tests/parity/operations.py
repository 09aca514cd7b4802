"""The vectors of a running VM: our VM is created as the original was, and each operation is played on it, call by call and frame by frame.

The outside world answers as it did the original: what failed there fails here, whatever place of a controller the request names.
"""

import asyncio
import json
import re
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

import msgspec
from msgspec import structs

from tests.parity.gcs import FrameVector, Outcome, exporting
from tests.parity.gcs_guest import ScriptedGuest
from tests.parity.host_service import windows_service
from tests.parity.subject import facts_of, present_paths
from tests.unit.vm.fake import service
from utilityvm import DiskAccess, OptionsLCOW, OptionsWCOW
from utilityvm.devices import resources
from utilityvm.devices.nics import Nic, NicEffects
from utilityvm.devices.ports import Seen
from utilityvm.devices.scsi import Disk
from utilityvm.devices.vsmb import SmbShare
from utilityvm.guest.bridge import Bridge
from utilityvm.guest.client import GuestClient
from utilityvm.guest.connection import GuestConnection
from utilityvm.kit.errors import HostError, NotFound, UtilityVMError
from utilityvm.kit.ids import VmId
from utilityvm.options.go import from_go
from utilityvm.plan.wcow import paths_looked_at
from utilityvm.schema import json as schema_json
from utilityvm.schema.container import Layer
from utilityvm.schema.devices import HvSocketServiceConfig, IovSettings, NetworkAdapter
from utilityvm.schema.hns import HNSEndpoint
from utilityvm.schema.requests import ModifySettingRequest, ProcessorLimits
from utilityvm.testing.files import FakeHostFiles
from utilityvm.vm.compose import create_planned, create_planned_wcow
from utilityvm.vm.uvm import UtilityVM

Json = dict[str, Any]

MODIFY: Final = "HcsModifyComputeSystem"
SAVE: Final = "SaveAsTemplate"
PLACES: Final = ("Lun", "Controller", "DeviceNumber", "MountPath", "VMBusGUID")
"""Members that say where a thing is put, which may be elsewhere with us."""

_WRAPPED: Final = re.compile(
    r"failed to (?:modify UVM with new SCSI mount|remove SCSI disk .* from container \S+|remove VPMEM .* from utility VM \S+"
    r"|remove (?:plan9|vsmb) share .* from \S+: &\{.*\}): |uvm::AddVPMEM: failed to modify utility VM configuration: ",
    re.DOTALL,
)
_ACCESS: Final = (DiskAccess.NONE, DiskAccess.GROUP, DiskAccess.INDIVIDUAL)
_GRANT: Final = "failed to grant VM access for SCSI mount: "
_SAVING: Final = {"HcsPauseComputeSystem": "error pausing the VM: ", "HcsSaveComputeSystem": "error saving the VM: "}


class CallVector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call of the host service; `json` keeps the very bytes."""

    call: str
    json: msgspec.Raw = msgspec.Raw(b"")
    vm_id: str = ""
    path: str = ""
    options: str = ""

    def text(self) -> str:
        """The call as one line."""
        return " ".join(filter(None, (self.call, self.vm_id, self.path, self.options, bytes(self.json).decode())))


class OperationVector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An operation and what came of it."""

    op: str
    args: Json
    calls: list[CallVector] = []
    guest_frames: list[FrameVector] = []
    result: Any = None
    error: str | None = None


class OperationsVector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A VM and what was done with it."""

    name: str
    input: Json
    steps: list[OperationVector]


def expected(vector: OperationsVector) -> list[Outcome]:
    """Return what the original did."""
    return [
        Outcome(step.result, step.error, [frame.seen() for frame in step.guest_frames], calls=[call.text() for call in step.calls])
        for step in vector.steps
    ]


def run(vector: OperationsVector) -> list[Outcome]:
    """Return what we do."""
    with exporting(sampled=True):
        return asyncio.run(_Player(vector).play())


def placeless(text: str) -> str:
    """Return a request's text without the place that it names."""
    text = re.sub(r'"(?:Lun|Controller|DeviceNumber)":\d+,?', "", text)
    text = re.sub(r'"VMBusGUID":"[^"]*"', "", text)
    text = re.sub(r'("ResourcePath":"[^"]*/(?:Attachments|VirtualPci|VirtualPMem/Devices)/)[^"]*', r"\1", text)
    return re.sub(r"/run/layers/p\d+", "", text).replace(",}", "}")


class World:
    """How host and guest answered the original, in the order of the same requests."""

    first_pid: Final = 100
    default_response: Final = "{}"

    def __init__(self, vector: OperationsVector) -> None:
        self._guest, self._host = defaultdict[str, deque[str]](deque), defaultdict[str, deque[str | None]](deque)
        self.forbidden: dict[str, str] = {}
        self._windows = vector.input["kind"] == "wcow"
        for step in vector.steps:
            asked = {frame.id: bytes(frame.payload).decode() for frame in step.guest_frames if frame.dir == "host->guest"}
            for frame in step.guest_frames:
                if frame.dir == "guest->host":
                    self._guest[placeless(asked[frame.id])].append(bytes(frame.payload).decode())
            if (step.error or "").startswith(_GRANT):
                self.forbidden[step.args["host_path"]] = (step.error or "").removeprefix(_GRANT)
            modified = [bytes(call.json).decode() for call in step.calls if call.call == MODIFY]
            for number, text in enumerate(modified):
                self._host[placeless(text)].append(_failure(step, text, last=number == len(modified) - 1))
            for called in step.calls:
                if (doing := _SAVING.get(called.call)) is not None:
                    self._host[called.call].append((step.error or "").partition(doing)[2] or None)

    def answer(self, name: str, number: int, body: bytes = b"") -> str | None:  # noqa: ARG002 (the answers of a script)
        """Return the guest's answer to a request."""
        if name == "NegotiateProtocol":
            able = dict.fromkeys(("NamespaceAddRequestSupported", "SignalProcessSupported", "DumpStacksSupported"), True)
            guest = {"RuntimeOsType": "windows" if self._windows else "linux"}
            guest["GuestDefinedCapabilities"] = able | {"DeleteContainerStateSupported": True}  # type: ignore[assignment]
            return json.dumps({"Version": 4, "Capabilities": guest})
        answers = self._guest[placeless(body.decode().rstrip("\n"))]
        return answers.popleft() if answers else None

    def refuses(self, call: str, text: str) -> str | None:
        """Return why the host refuses a call, None when it does not."""
        answers = self._host[placeless(text) if call == MODIFY else call]
        return answers.popleft() if answers else None


def _failure(step: OperationVector, text: str, *, last: bool) -> str | None:
    """Return why this request of a step failed, None when it was not at fault."""
    if step.error is None:
        return None
    kind = json.loads(text).get("RequestType", "")
    for half, request_type in (("adding VM resources: ", "Add"), ("removing VM resources: ", "Remove")):
        if half in step.error:
            return step.error.partition(half)[2] if kind == request_type else None
    return _WRAPPED.sub("", step.error) if last and "guest modify: " not in step.error else None


class _Player:
    def __init__(self, vector: OperationsVector) -> None:
        self._vector, self._host = vector, vector.input["host"]
        self._world = World(vector)
        self._files = FakeHostFiles(present_paths(self._host))
        self._listed = {path.rstrip("\\/") for path in self._host["files_present"] if path[-1] not in "\\/"}
        self._calls: list[str] = []
        self._guids: set[str] = set()

    async def play(self) -> list[Outcome]:
        async with await self._created() as vm:
            self._vm = vm
            await vm.close_gcs_connection()
            await vm.start()
            guest = await self._connected(vm) if self._vector.input["guest_connected"] else None
            outcomes = [await self._step(step, guest) for step in self._vector.steps]
            if vm._guest is not None:
                await vm._guest.aclose()
                vm._guest = None
        return outcomes

    async def _created(self) -> UtilityVM:
        options, facts = self._vector.input["options"], facts_of(self._host)
        if self._vector.input["kind"] == "lcow":
            of, _ = service()
            vm = await create_planned(from_go(options, OptionsLCOW), VmId(options["ID"]), facts, of, None, self, self._look)
            of.machines[0].modify = self._modify  # type: ignore[method-assign]
            return vm
        wish = from_go(options, OptionsWCOW)
        looked_at = facts.files_present & set(paths_looked_at(wish, facts.path_flavour))
        facts = structs.replace(facts, files_present=looked_at)
        return await create_planned_wcow(wish, VmId(options["ID"]), facts, windows_service(self._called), self, self._look)

    async def _connected(self, vm: UtilityVM) -> ScriptedGuest:
        """The guest's end of a bridge that was agreed on before the first step."""
        guest = ScriptedGuest(self._world)
        client = GuestClient(Bridge(guest, f"vm {vm.id}"))
        await client.connect(cold_start=False)
        vm._guest = GuestConnection(client, guest, f"vm {vm.id}", None)
        return guest

    async def _step(self, step: OperationVector, guest: ScriptedGuest | None) -> Outcome:
        before, self._calls = len(guest.frames) if guest else 0, []
        result, error = None, None
        try:
            result = await OPERATIONS[step.op](self, step.args)
        except UtilityVMError as failure:
            error = failure.message
        frames = guest.frames[before:] if guest else []
        self._guids |= {device.vmbus_guid for device in self._vm.vpci.devices}
        shown = [replace(frame, payload=self._hidden(frame.payload)) for frame in frames]
        return Outcome(self._hide(result), error, shown, calls=[self._hidden(call) for call in self._calls])

    def _hidden(self, text: str) -> str:
        for guid in self._guids:
            text = text.replace(guid, "$VMBUS_GUID")
        return text

    def _hide(self, result: object) -> object:
        return json.loads(self._hidden(json.dumps(result)))

    # -- the host ---------------------------------------------------------------------------------------------------

    async def _modify(self, request: ModifySettingRequest) -> None:
        await asyncio.sleep(0)
        self._called(MODIFY, schema_json.encode(request))

    def _called(self, name: str, text: str) -> None:
        self._calls.append(f"{name} {text}".rstrip())
        if (refusal := self._world.refuses(name, text)) is not None:
            raise HostError(refusal)

    async def make_folder(self, path: str) -> None:
        await self._files.make_folder(path)

    async def copy(self, source: str, target: str) -> None:
        await self._files.copy(source, target)

    async def remove(self, path: str) -> None:
        await self._files.remove(path)

    async def grant_access(self, vm_id: VmId, path: str) -> None:
        self._granted(f"GrantVmAccess {vm_id} {path}", path)

    async def grant_group_access(self, path: str) -> None:
        self._granted(f"GrantVmGroupAccess {path}", path)

    def _granted(self, call: str, path: str) -> None:
        self._calls.append(call)
        if (refusal := self._world.forbidden.get(path)) is not None:
            raise HostError(refusal)

    def _look(self, path: str) -> Seen:
        """Say what a path is, in the words of the vectors' hosts."""
        flavour, bare = self._host["path_flavour"], path.rstrip("\\/")
        if bare not in self._files.present:
            said = f"CreateFile {path}: The system cannot find the file specified." if flavour == "windows" else ""
            raise NotFound(said or f"stat {path}: no such file or directory")
        return Seen(folder=bare not in self._listed, size=1, identity=path)

    # -- SCSI disks -------------------------------------------------------------------------------------------------

    async def add_scsi(self, args: Json) -> object:
        access, options = _ACCESS[args["vm_access"]], args["guest_options"] or ()
        return _disk(
            await self._vm.scsi.add(args["host_path"], args["uvm_path"], read_only=args["read_only"], options=options, access=access)
        )

    async def add_physical_disk(self, args: Json) -> object:
        path, options = args["host_path"], args["guest_options"] or ()
        return _disk(await self._vm.scsi.add_physical_disk(path, args["uvm_path"], read_only=args["read_only"], options=options))

    async def remove_scsi(self, args: Json) -> None:
        await self._vm.scsi.remove(args["host_path"])

    async def scsi_path(self, args: Json) -> object:
        return self._vm.scsi.guest_path(args["host_path"])

    # -- persistent memory, layers ----------------------------------------------------------------------------------

    async def add_vpmem(self, args: Json) -> object:
        return (await self._vm.vpmem.add(args["host_path"])).guest_path

    async def remove_vpmem(self, args: Json) -> None:
        await self._vm.vpmem.remove(args["host_path"])

    async def combine_lcow(self, args: Json) -> None:
        await self._vm.layers.combine_lcow(args["layer_paths"] or (), args["scratch_path"], args["rootfs_path"])

    async def combine_wcow(self, args: Json) -> None:
        layers = [schema_json.decode(json.dumps(layer), Layer) for layer in args["layers"] or ()]
        await self._vm.layers.combine_wcow(layers, args["container_root_path"])

    async def remove_combined(self, args: Json) -> None:
        await self._vm.layers.remove_combined(args["rootfs_path"])

    # -- shares -----------------------------------------------------------------------------------------------------

    async def add_plan9(self, args: Json) -> object:
        names = (args["allowed_names"] or ()) if args["restrict"] else None
        share = await self._vm.plan9.add(args["host_path"], args["uvm_path"], read_only=args["read_only"], allowed_names=names)
        return {"name": share.name, "uvm_path": share.guest_path}

    async def remove_plan9(self, args: Json) -> None:
        (share,) = [share for share in self._vm.plan9.shares if share.name == args["name"]]
        await self._vm.plan9.remove(share)

    async def add_vsmb(self, args: Json) -> object:
        assert args["options"] == "DefaultVSMBOptions"
        return _share(await self._vm.vsmb.add(args["host_path"], self._vm.vsmb.default_options(read_only=args["read_only"])))

    async def remove_vsmb(self, args: Json) -> None:
        await self._vm.vsmb.remove(args["host_path"], read_only=args["read_only"])

    async def vsmb_path(self, args: Json) -> object:
        return self._vm.vsmb.guest_path(args["host_path"], read_only=args["read_only"])

    async def share(self, args: Json) -> None:
        await self._vm.share(args["host_path"], args["uvm_path"], read_only=args["read_only"])

    # -- devices of the host, pipes ---------------------------------------------------------------------------------

    async def assign(self, args: Json) -> object:
        device = await self._vm.vpci.assign(args["device_id"])
        return {"vmbus_guid": device.vmbus_guid, "ref_count": device.references}

    async def remove_device(self, args: Json) -> None:
        await self._vm.vpci.remove(args["device_id"])

    async def add_pipe(self, args: Json) -> None:
        await self._vm.pipes.add(args["host_path"])

    async def remove_pipe(self, args: Json) -> None:
        await self._vm.pipes.remove(args["host_path"])

    # -- numbers and rules ------------------------------------------------------------------------------------------

    async def memory(self, args: Json) -> None:
        await self._vm.update_memory(args["size_in_bytes"])

    async def limits(self, args: Json) -> None:
        await self._vm.update_cpu_limits(msgspec.convert(args, ProcessorLimits))

    async def join_group(self, args: Json) -> None:
        await self._vm.set_cpu_group(args["id"])

    async def leave_group(self, _: Json) -> None:
        await self._vm.release_cpu_group()

    async def update_service(self, args: Json) -> None:
        rules = HvSocketServiceConfig(
            bind_security_descriptor=args["bind_sd"],
            connect_security_descriptor=args["connect_sd"],
            allow_wildcard_binds=args["allow_wildcard_binds"],
            disabled=args["disabled"],
        )
        await self._vm.update_hvsocket_service(args["sid"], rules)

    async def remove_service(self, args: Json) -> None:
        await self._vm.remove_hvsocket_service(args["sid"])

    async def tell_address(self, _: Json) -> None:
        """What `start` does once a Windows guest is connected, by the request that it sends."""
        if self._vm.os == "windows":
            await self._vm.modify(ModifySettingRequest(guest_request=resources.hvsocket_address(self._vm.runtime_id)))

    async def update_nic(self, args: Json) -> None:
        iov = IovSettings() if args["iov_settings_empty"] else None
        adapter = NetworkAdapter(endpoint_id=args["endpoint_id"], mac_address=args["mac_address"], iov_settings=iov)
        await self._vm.update_nic(args["id"], adapter)

    async def add_nic(self, args: Json) -> None:
        await NicEffects(self._vm._devices).attach(_nic(args))

    async def remove_nic(self, args: Json) -> None:
        await NicEffects(self._vm._devices).detach(_nic(args), from_guest=True)

    # -- the guest --------------------------------------------------------------------------------------------------

    async def dump_stacks(self, _: Json) -> object:
        return await self._vm.dump_stacks()

    async def delete_state(self, args: Json) -> None:
        await self._vm.delete_container_state(args["cid"])

    async def save(self, _: Json) -> None:
        await self._vm.save_as_template()


def _disk(disk: Disk) -> object:
    return {"controller": disk.controller, "lun": disk.lun, "uvm_path": disk.guest_path, "ref_count": disk.references}


def _nic(args: Json) -> Nic:
    endpoint = msgspec.convert(args["endpoint"], HNSEndpoint)
    assert endpoint.namespace is not None
    return Nic(args["id"], endpoint.namespace.id, endpoint)


def _share(share: SmbShare) -> object:
    return {
        "name": share.name,
        "guest_path": share.guest_path,
        "host_path": share.host_path,
        "ref_count": share.references,
        "allowed_files": list(share.allowed_files) or None,
    }


OPERATIONS: dict[str, Callable[[_Player, Json], Awaitable[object]]] = {
    "AddSCSI": _Player.add_scsi,
    "AddSCSIPhysicalDisk": _Player.add_physical_disk,
    "RemoveSCSI": _Player.remove_scsi,
    "GetScsiUvmPath": _Player.scsi_path,
    "AddVPMEM": _Player.add_vpmem,
    "RemoveVPMEM": _Player.remove_vpmem,
    "CombineLayersLCOW": _Player.combine_lcow,
    "CombineLayersWCOW": _Player.combine_wcow,
    "RemoveCombinedLayers": _Player.remove_combined,
    "AddPlan9": _Player.add_plan9,
    "RemovePlan9": _Player.remove_plan9,
    "AddVSMB": _Player.add_vsmb,
    "RemoveVSMB": _Player.remove_vsmb,
    "GetVSMBUvmPath": _Player.vsmb_path,
    "Share": _Player.share,
    "AssignDevice": _Player.assign,
    "RemoveDevice": _Player.remove_device,
    "AddPipe": _Player.add_pipe,
    "RemovePipe": _Player.remove_pipe,
    "UpdateMemory": _Player.memory,
    "UpdateCPULimits": _Player.limits,
    "SetCPUGroup": _Player.join_group,
    "ReleaseCPUGroup": _Player.leave_group,
    "UpdateHvSocketService": _Player.update_service,
    "RemoveHvSocketService": _Player.remove_service,
    "configureHvSocketForGCS": _Player.tell_address,
    "UpdateNIC": _Player.update_nic,
    "addNIC": _Player.add_nic,
    "removeNIC": _Player.remove_nic,
    "DumpStacks": _Player.dump_stacks,
    "DeleteContainerState": _Player.delete_state,
    SAVE: _Player.save,
}
