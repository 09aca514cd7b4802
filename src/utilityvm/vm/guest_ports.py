"""The ports of a VM that its guest dials: what is done on those that the VM needs, and which are left to its owner."""

import logging
import os
from typing import Final

from utilityvm.guest.logs import OutputHandler
from utilityvm.guest.transport import GuestStream, Listener
from utilityvm.kit.errors import InvalidOptions
from utilityvm.kit.trace import event
from utilityvm.plan.lcow import LcowPlan
from utilityvm.plan.wcow import WcowPlan
from utilityvm.vm.failed_start import Phase
from utilityvm.wire import services
from utilityvm.wire.gcs import BRIDGE_PORT, ENTROPY_BYTES, ENTROPY_PORT, LOG_PORT

_LAST: Final = 0xFFFF_FFFE  # the one after it means any port


def check(port: object) -> None:
    """Refuse what is no port, or one that the VM itself needs.

    Raises:
        InvalidOptions: it says which ports may be had.
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= _LAST:
        raise InvalidOptions(f"port {port!r}: ports are numbers from 1 to {_LAST:#x}")
    if why := services.needed_for(port):
        hint = f"take another; ports below {services.AGENTS.start:#x} are free but for {', '.join(map(str, sorted(services.NEEDED)))}"
        raise InvalidOptions(f"port {port:#x} is for {why}", hint=hint)


def way_to_guest(plan: LcowPlan | WcowPlan) -> tuple[bool, int]:
    """Say whether the compute service keeps the guest connection, and on which port the guest's agent dials when it does not."""
    machine = plan.document.virtual_machine
    hosted = machine is not None and machine.guest_connection is not None
    return hosted, services.WINDOWS_BRIDGE_PORT if isinstance(plan, WcowPlan) else BRIDGE_PORT


async def feed_entropy(listeners: dict[int, Listener], phase: Phase) -> None:
    """Give the guest's kernel its seed, if it is expected to ask for it.

    Raises:
        ConnectionLost: the guest ended first.
    """
    if ENTROPY_PORT not in listeners:
        return
    phase.now = f"the guest to ask for entropy (port {ENTROPY_PORT})"
    stream = await accept_once(listeners, ENTROPY_PORT)
    await stream.write(os.urandom(ENTROPY_BYTES))
    await stream.write_eof()
    stream.close()


async def log_stream(listeners: dict[int, Listener], phase: Phase) -> GuestStream | None:
    """Wait for the guest's log stream, None when none is expected.

    Raises:
        ConnectionLost: the guest ended first.
    """
    if LOG_PORT not in listeners:
        return None
    phase.now = f"the guest's log stream (port {LOG_PORT})"
    return await accept_once(listeners, LOG_PORT)


async def hand_output(handler: OutputHandler, stream: GuestStream, vm_id: str) -> None:
    """Let the owner's handler read the guest's log stream; its failure is told and does not end the VM."""
    try:
        await handler(stream)
    except Exception as error:  # noqa: BLE001 (a caller's handler)
        event("vm.output.failed", level=logging.ERROR, vm=vm_id, error=repr(error))
    finally:
        stream.close()


async def accept_once(listeners: dict[int, Listener], port: int) -> GuestStream:
    """Take the one connection that is dialled to a port of `listeners`, which it leaves then.

    Raises:
        ConnectionLost: the guest ended first.
    """
    listener = listeners.pop(port)
    try:
        return await listener.accept()
    finally:
        listener.close()


def close_all(listeners: dict[int, Listener]) -> None:
    """Listen no more."""
    for listener in listeners.values():
        listener.close()
    listeners.clear()
