"""Processes and containers of a VM that another host has made, before it was saved: how the one that goes on from it takes them over."""

import logging

from utilityvm.containers.container import Container
from utilityvm.containers.table import Containers
from utilityvm.guest.connection import GuestConnection
from utilityvm.guest.process import Process
from utilityvm.kit.errors import Unsupported
from utilityvm.kit.ids import VmId
from utilityvm.kit.trace import span
from utilityvm.wire.detached import DetachedProcess


async def processes(guest: GuestConnection | None, vm_id: VmId) -> tuple[DetachedProcess, ...]:
    """See `UtilityVM.detached_processes`."""
    return tuple(await _connected(guest, vm_id).detached_processes())


async def attach(guest: GuestConnection | None, vm_id: VmId, pid: int, *, stdin: bool, stdout: bool, stderr: bool) -> Process:
    """See `UtilityVM.attach_process`."""
    with span("process.attach", level=logging.DEBUG, vm=vm_id, pid=pid):
        return await _connected(guest, vm_id).attach_process(pid, stdin=stdin, stdout=stdout, stderr=stderr)


async def container(guest: GuestConnection | None, vm_id: VmId, containers: Containers, container_id: str) -> Container:
    """See `UtilityVM.clone_container`."""
    if guest is None:
        raise Unsupported(f"vm {vm_id}: clone container cannot work without external GCS connection")
    with span("container.clone", level=logging.DEBUG, vm=vm_id, container=container_id):
        return await containers.clone(container_id, guest)


def _connected(guest: GuestConnection | None, vm_id: VmId) -> GuestConnection:
    if guest is None:
        raise Unsupported(f"vm {vm_id}: processes are attached by a guest connection of the VM's own, and it has none")
    return guest
