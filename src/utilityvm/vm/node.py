"""What a VM's host has for a network that a proxy sets up: where proxies and agents listen, and which endpoints there are."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from utilityvm.compute.ports import Machine
from utilityvm.kit.ids import VmId, new_guid
from utilityvm.kit.named import Named, UnixSockets

if TYPE_CHECKING:
    from utilityvm.compute.hcs.service import HcsService
    from utilityvm.vm.compute_agent import Endpoints  # what few VMs need


class Node(msgspec.Struct, frozen=True):
    """Connections by name, the endpoints for a VM's machine, and the name at which a VM's agent listens."""

    named: Named
    endpoints: "Callable[[VmId, Machine], Endpoints]"
    agent: Callable[[VmId], str]


def _unix_endpoints(vm_id: VmId, machine: Machine) -> "Endpoints":
    from utilityvm.network.endpoints import HostEndpoints  # noqa: PLC0415 (as above)

    return HostEndpoints(vm_id, machine.offer)


UNIX: Final = Node(UnixSockets(), _unix_endpoints, lambda vm_id: f"@computeagent-{vm_id[:40]}-{new_guid()}")
"""A host of Unix; an agent's name goes with its process, however it ends, and nobody can take it before: it ends in a GUID."""


def windows(service: "HcsService") -> Node:
    """Return a Windows host, by its compute service."""
    return Node(service.pipes, lambda _vm_id, _machine: service.endpoints, lambda vm_id: rf"\\.\pipe\computeagent-{vm_id}")
