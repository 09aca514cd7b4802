"""What the document of every VM has, whatever its guest."""

from typing import Final

from utilityvm.options.shared import Options
from utilityvm.schema.devices import HvSocket, HvSocketSystemConfig, StorageQoS
from utilityvm.schema.document import ComputeSystem, VirtualMachine
from utilityvm.schema.version import Version

ONLY_SYSTEM_AND_ADMINISTRATORS: Final = "D:P(A;;FA;;;SY)(A;;FA;;;BA)"


def whole(options: Options, machine: VirtualMachine) -> ComputeSystem:
    """Return the document of a machine, which ends with whoever has it."""
    return ComputeSystem(
        owner=options.owner,
        schema_version=Version(major=2, minor=1),
        virtual_machine=machine,
        should_terminate_on_last_handle_closed=True,
    )


def hv_socket() -> HvSocket:
    """Return the sockets between host and guest, for the system and its administrators only."""
    return HvSocket(hv_socket_config=HvSocketSystemConfig(default_bind_security_descriptor=ONLY_SYSTEM_AND_ADMINISTRATORS))


def storage_qos(options: Options) -> StorageQoS | None:
    """Return the limits of all disks together, if any is wanted."""
    iops, bandwidth = options.storage_qos_iops_maximum, options.storage_qos_bandwidth_maximum
    return StorageQoS(iops_maximum=iops, bandwidth_maximum=bandwidth) if iops > 0 or bandwidth > 0 else None
