"""What is compared: our side of each kind of vector. The one place to change when another object is to be held to the vectors."""

import asyncio
import logging
import ntpath
import posixpath
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs

from utilityvm.kit.errors import HostError, UtilityVMError
from utilityvm.kit.ids import VmId
from utilityvm.kit.named import ProtocolFactory, Served
from utilityvm.network.endpoints import HostEndpoints
from utilityvm.options.defaults import (
    DefaultsFacts,
    default_options_lcow,
    default_options_wcow,
    default_processor_count,
    program_boot_files,
)
from utilityvm.options.go import from_go, to_go
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.paths import PathFlavour
from utilityvm.options.rules import problems
from utilityvm.options.wcow import OptionsWCOW
from utilityvm.plan.facts import Answered, Counted, Facts, Platform
from utilityvm.plan.lcow import LcowPlan
from utilityvm.plan.normalize import Adjusted, normalize_memory, normalize_processors
from utilityvm.plan.wcow import WcowPlan, paths_looked_at
from utilityvm.plan.windows import share_key
from utilityvm.schema import json
from utilityvm.testing.compute import FakeComputeService
from utilityvm.testing.files import FakeHostFiles
from utilityvm.vm.compose import create_planned, create_planned_wcow
from utilityvm.vm.node import Node
from utilityvm.vm.uvm import UtilityVM
from utilityvm.wire.gcs import BRIDGE_PORT, ENTROPY_PORT, LOG_PORT
from utilityvm.wire.services import WINDOWS_BRIDGE_PORT, service_id

UNIQUE = "123456789"
NORMALIZED_VM_ID = "b5fbd1a2-4f0b-4d0e-8c55-1f6d8f4e2a01"


@dataclass
class Observed:
    """What our side did; `result` is what a plain function returned, under the vector's name for it."""

    document: str | None = None
    error: str | None = None
    verify: str | None = None
    effects: list[dict[str, Any]] = field(default_factory=list)
    vm: dict[str, Any] | None = None
    result: dict[str, Any] = field(default_factory=dict)
    warnings: list[dict[str, Any]] = field(default_factory=list)


def run(case: Mapping[str, Any]) -> Observed:
    """Run the input of one vector."""
    return _KINDS[case["kind"]](case)


def present_paths(host: Mapping[str, Any]) -> frozenset[str]:
    """Return the files of a vector's host and every folder above them; a listed folder ends with a separator."""
    path = ntpath if host["path_flavour"] == "windows" else posixpath
    present: set[str] = set()
    for listed in host["files_present"]:
        here = listed.rstrip("\\/")
        while here not in present:
            present.add(here)
            here = path.dirname(here)
    return frozenset(present)


def _lcow(case: Mapping[str, Any]) -> Observed:
    options, facts, observed = from_go(case["options"], OptionsLCOW), facts_of(case["host"]), Observed()
    broken = problems(options, facts.build)
    observed.verify = broken[0].message if broken else None

    service, node = _service(case["host"]), _Node()
    try:
        with _warnings(observed.warnings):
            observed.document, observed.vm = asyncio.run(_create(options, facts, service, node))
    except UtilityVMError as error:
        observed.error = str(error)
    observed.effects = node.effects
    return observed


def _wcow(case: Mapping[str, Any]) -> Observed:
    options, host, observed = from_go(case["options"], OptionsWCOW), facts_of(case["host"]), Observed()
    looked_at = host.files_present & set(paths_looked_at(options, host.path_flavour))
    facts = structs.replace(host, files_present=looked_at)  # so that planning asks about nothing else
    broken = problems(options, facts.build)
    observed.verify = broken[0].message if broken else None

    files, node = FakeHostFiles(host.files_present), _Node()
    try:
        with _warnings(observed.warnings):
            observed.document, observed.vm = asyncio.run(_create_wcow(options, facts, _service(case["host"]), files, node))
    except UtilityVMError as error:
        observed.error = str(error)
    observed.effects = [_effect(host.path_flavour, what, told) for what, *told in files.asked] + node.effects
    return observed


def _effect(flavour: PathFlavour, what: str, told: list[str]) -> dict[str, Any]:
    """Return an effect as the vectors write it. The original draws a new name while it makes the folder, we draw it before."""
    if what == "make_folder" and told[0].endswith(UNIQUE):
        folder, name = (ntpath if flavour is PathFlavour.WINDOWS else posixpath).split(told[0])
        return {"op": "temp_dir", "dir": folder, "pattern": name.removesuffix(UNIQUE), "created": told[0]}
    return dict(zip(_EFFECTS[what], (_OPS[what], *told), strict=True))


_OPS = {"make_folder": "mkdir", "copy": "copy_file", "grant_access": "grant_vm_access", "remove": "remove"}
_EFFECTS = {
    "make_folder": ("op", "path"),
    "copy": ("op", "src", "dst"),
    "grant_access": ("op", "vm_id", "path"),
    "remove": ("op", "path"),
}


async def _create_wcow(
    options: OptionsWCOW, facts: Facts, service: FakeComputeService, files: FakeHostFiles, node: "_Node"
) -> tuple[str, dict[str, Any]]:
    with closing(node):
        async with await create_planned_wcow(
            options, VmId(options.id), facts, service, files, node=Node(node, lambda vm_id, system: HostEndpoints(vm_id, system.offer), str)
        ) as vm:
            return json.encode(service.documents[0]), _wcow_state(vm, service.machines[0].ports)


def _service(host: Mapping[str, Any]) -> FakeComputeService:
    return FakeComputeService(create_fails=HostError("the host refused it") if host.get("create_fails") else None)


class _Node:
    """Names of a host at which somebody answers whoever dials, as at those of the original's runs. `effects` are the dials."""

    def __init__(self) -> None:
        self.effects: list[dict[str, Any]] = []
        self._answering: list[socket.socket] = []

    def close(self) -> None:
        while self._answering:
            self._answering.pop().close()

    async def serve(self, name: str, factory: ProtocolFactory) -> Served:
        raise AssertionError(f"{name}: nothing serves before a VM runs: {factory}")

    async def dial(self, name: str, protocol: asyncio.Protocol) -> asyncio.BaseTransport:
        self.effects.append({"op": "dial_pipe", "path": name})
        ours, theirs = socket.socketpair()
        self._answering.append(theirs)
        transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: protocol, sock=ours)
        return transport


async def _create(options: OptionsLCOW, facts: Facts, service: FakeComputeService, node: _Node) -> tuple[str, dict[str, Any]]:
    """Create a VM on the fake compute service; return its document and its state."""
    with closing(node):
        async with await create_planned(
            options, VmId(options.id), facts, service, node=Node(node, lambda vm_id, system: HostEndpoints(vm_id, system.offer), str)
        ) as vm:
            return json.encode(service.documents[0]), _vm_state(vm, service.machines[0].ports)


@contextmanager
def _warnings(into: list[dict[str, Any]]) -> Iterator[None]:
    """Collect the warnings that planning logs, with the vectors' names for their fields."""

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            fields = dict(record.__dict__["fields"])
            into.append({"uvm-id": fields.pop("vm"), **fields})

    logger, collect = logging.getLogger("utilityvm.plan"), Collect()
    logger.addHandler(collect)
    try:
        yield
    finally:
        logger.removeHandler(collect)


def _vm_state(vm: UtilityVM, ports: list[int]) -> dict[str, Any]:
    """Return the state that the VM object of a Linux guest begins with, as the vectors write it."""
    assert isinstance(vm.plan, LcowPlan)
    root = vm.plan.vpmem_root
    return _any_state(vm, ports) | {
        "scsi_controller_count": vm.plan.scsi_controller_count,
        "vpmem_max_count": vm.plan.vpmem_max_count,
        "vpmem_max_size_bytes": vm.plan.vpmem_max_size_bytes,
        "template_id": "",
        "vsmb_counter": 0,
        "scsi_locations": [],
        "vpmem_devices": [{"device": 0, "host_path": root.host_path, "uvm_path": root.uvm_path, "ref_count": 1}] if root else [],
        "namespaces": [],
        "has_gcs_listener": BRIDGE_PORT in ports,
    }


def _wcow_state(vm: UtilityVM, ports: list[int]) -> dict[str, Any]:
    """Return the same of a Windows guest."""
    plan = vm.plan
    assert isinstance(plan, WcowPlan)
    return _any_state(vm, ports) | {
        "scsi_controller_count": plan.scsi_controller_count,
        "vpmem_max_count": 0,
        "vpmem_max_size_bytes": 0,
        "template_id": plan.template_id,
        "vsmb_counter": len(plan.shares),
        "scsi_locations": [
            structs.asdict(slot) | {"is_layer": False, "ref_count": 1} for slot in sorted(plan.slots, key=lambda s: (s.controller, s.lun))
        ],
        "vpmem_devices": [],
        "vsmb_dir_shares": _shares(plan, of_files=False),
        "vsmb_file_shares": _shares(plan, of_files=True),
        "namespaces": list(plan.namespaces),
        "has_gcs_listener": WINDOWS_BRIDGE_PORT in ports,
    }


def _shares(plan: WcowPlan, *, of_files: bool) -> dict[str, Any]:
    return {
        share_key(share.host_path, read_only=share.read_only): {
            "name": share.name,
            "host_path": share.host_path,
            "guest_path": share.guest_path,
            "ref_count": 1,
        }
        for share in plan.shares
        if share.of_files == of_files
    }


def _any_state(vm: UtilityVM, ports: list[int]) -> dict[str, Any]:
    return {
        "id": vm.id,
        "owner": vm.owner,
        "os": vm.os,
        "processor_count": vm.processor_count,
        "memory_mb": vm.plan.memory_size_in_mb,
        "physically_backed": vm.physically_backed,
        "devices_physically_backed": vm.devices_physically_backed,
        "is_template": vm.options.is_template,
        "is_clone": vm.options.is_clone,
        "listeners": [{"vm_id": vm.runtime_id, "service_id": service_id(port)} for port in ports],
        "has_entropy_listener": ENTROPY_PORT in ports,
        "has_output_listener": LOG_PORT in ports,
        "has_nc_proxy": vm._links.proxy is not None,
    }


def facts_of(host: Mapping[str, Any]) -> Facts:
    """Return a vector's host as planning reads it."""
    answer = host.get("service_properties")
    return Facts(
        platform=Platform.HYPERV,
        path_flavour=PathFlavour(host["path_flavour"]),
        build=host["build"],
        processors=Counted(logical_processors=host["logical_processors"]) if answer is None else Answered(service_properties=answer),
        files_present=present_paths(host),
        unique=UNIQUE,
    )


def _lcow_defaults(case: Mapping[str, Any]) -> Observed:
    return Observed(result={"options": to_go(default_options_lcow(case["id"], case["owner"], _defaults_facts(case["host"])))})


def _wcow_defaults(case: Mapping[str, Any]) -> Observed:
    return Observed(result={"options": to_go(default_options_wcow(case["id"], case["owner"], _defaults_facts(case["host"])))})


def _defaults_facts(host: Mapping[str, Any]) -> DefaultsFacts:
    flavour = PathFlavour(host["path_flavour"])
    return DefaultsFacts(
        path_flavour=flavour,
        build=host["build"],
        num_cpu=host["num_cpu"],
        argv0=host["argv0"],
        shared_boot_files=program_boot_files(flavour, host["program_files"]),
        log_level=host["log_level"],
        files_present=present_paths(host),
    )


def _normalize_memory(case: Mapping[str, Any]) -> Observed:
    warnings: list[Adjusted] = []
    assigned = normalize_memory(case["requested"], vm_id=NORMALIZED_VM_ID, warn=warnings.append)
    return _normalized("memory_mb", assigned, warnings)


def _normalize_processors(case: Mapping[str, Any]) -> Observed:
    warnings: list[Adjusted] = []
    assigned = normalize_processors(case["requested"], case["logical_processors"], vm_id=NORMALIZED_VM_ID, warn=warnings.append)
    return _normalized("processor_count", assigned, warnings)


def _normalized(name: str, assigned: int, warnings: list[Adjusted]) -> Observed:
    return Observed(result={name: assigned}, warnings=[{"message": warning.message, **warning.fields} for warning in warnings])


def _default_processors(case: Mapping[str, Any]) -> Observed:
    return Observed(result={"processor_count": default_processor_count(case["num_cpu"])})


_KINDS = {
    "lcow": _lcow,
    "wcow": _wcow,
    "lcow_defaults": _lcow_defaults,
    "wcow_defaults": _wcow_defaults,
    "normalize_memory": _normalize_memory,
    "normalize_processors": _normalize_processors,
    "default_processors": _default_processors,
}
