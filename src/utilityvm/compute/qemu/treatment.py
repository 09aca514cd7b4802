"""What the QEMU driver does with each field of a document. Pure.

A field that is not in `TREATMENT` is refused by its path, so a field that is added to the schema is refused until somebody
decides about it. In paths ``[*]`` stands for any key of a map or place in a list.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Treatment(StrEnum):
    """What becomes of a field that is present."""

    CARRIED = "carried"
    """It is part of the machine, or its one possible value is how the machine always is."""
    RECORDED = "recorded"
    """It stays in the document; there is nothing that QEMU could do about it, for the reason beside it."""


_C, _R = Treatment.CARRIED, Treatment.RECORDED
_VM: Final = "$.VirtualMachine"
_MEMORY: Final = f"{_VM}.ComputeTopology.Memory"
_PROCESSOR: Final = f"{_VM}.ComputeTopology.Processor"
_DEVICES: Final = f"{_VM}.Devices"
_SOCKETS: Final = f"{_DEVICES}.HvSocket.HvSocketConfig"

TREATMENT: Final[Mapping[str, Treatment]] = MappingProxyType(
    {
        "$.Owner": _R,  # a label
        "$.SchemaVersion": _C,
        "$.SchemaVersion.Major": _C,
        "$.SchemaVersion.Minor": _R,  # minor versions only add fields, and a field that we do not know is refused by itself
        "$.ShouldTerminateOnLastHandleClosed": _C,
        _VM: _C,
        f"{_VM}.StopOnReset": _C,
        f"{_VM}.Chipset": _C,
        f"{_VM}.Chipset.LinuxKernelDirect": _C,
        f"{_VM}.Chipset.LinuxKernelDirect.KernelFilePath": _C,
        f"{_VM}.Chipset.LinuxKernelDirect.InitRdPath": _C,
        f"{_VM}.Chipset.LinuxKernelDirect.KernelCmdLine": _C,
        f"{_VM}.ComputeTopology": _C,
        _MEMORY: _C,
        f"{_MEMORY}.SizeInMB": _C,
        f"{_MEMORY}.AllowOvercommit": _C,
        f"{_MEMORY}.EnableDeferredCommit": _C,
        f"{_MEMORY}.EnableColdDiscardHint": _C,
        f"{_MEMORY}.LowMmioGapInMB": _C,
        f"{_MEMORY}.HighMmioGapInMB": _C,
        _PROCESSOR: _C,
        f"{_PROCESSOR}.Count": _C,
        f"{_PROCESSOR}.Limit": _C,
        f"{_PROCESSOR}.Weight": _C,
        f"{_PROCESSOR}.CpuGroup": _C,
        f"{_PROCESSOR}.CpuGroup.Id": _C,
        f"{_VM}.RestoreState": _C,
        f"{_VM}.RestoreState.TemplateSystemId": _C,
        f"{_VM}.GuestConnection": _C,
        f"{_VM}.GuestConnection.UseVsock": _R,  # the driver keeps the connection, and the machine is the same; what it cannot be is refused
        f"{_VM}.GuestConnection.UseConnectedSuspend": _R,  # a paused guest's connection always stays
        f"{_VM}.StorageQoS": _C,
        f"{_VM}.StorageQoS.IopsMaximum": _C,
        f"{_VM}.StorageQoS.BandwidthMaximum": _C,
        _DEVICES: _C,
        f"{_DEVICES}.ComPorts": _C,
        f"{_DEVICES}.ComPorts[*]": _C,
        f"{_DEVICES}.ComPorts[*].NamedPipe": _C,
        f"{_DEVICES}.Keyboard": _C,  # the machine always has one
        f"{_DEVICES}.VideoMonitor": _C,
        f"{_DEVICES}.VideoMonitor.ConnectionOptions": _C,
        f"{_DEVICES}.VideoMonitor.ConnectionOptions.NamedPipe": _C,
        f"{_DEVICES}.EnhancedModeVideo": _R,  # a session by RDP, which a Linux guest does not have: VNC shows the one screen
        f"{_DEVICES}.Scsi": _C,
        f"{_DEVICES}.Scsi[*]": _C,
        f"{_DEVICES}.Scsi[*].Attachments": _C,
        f"{_DEVICES}.Scsi[*].Attachments[*]": _C,
        f"{_DEVICES}.Scsi[*].Attachments[*].Type": _C,
        f"{_DEVICES}.Scsi[*].Attachments[*].Path": _C,
        f"{_DEVICES}.Scsi[*].Attachments[*].ReadOnly": _C,
        f"{_DEVICES}.VirtualPMem": _C,
        f"{_DEVICES}.VirtualPMem.Devices": _C,
        f"{_DEVICES}.VirtualPMem.Devices[*]": _C,
        f"{_DEVICES}.VirtualPMem.Devices[*].HostPath": _C,
        f"{_DEVICES}.VirtualPMem.Devices[*].ReadOnly": _C,
        f"{_DEVICES}.VirtualPMem.Devices[*].ImageFormat": _R,  # the file's name says it, as a disk's does
        f"{_DEVICES}.VirtualPMem.MaximumCount": _R,  # a bound on what may be attached; places and addresses are kept for so many
        f"{_DEVICES}.VirtualPMem.MaximumSizeBytes": _R,  # likewise
        f"{_DEVICES}.NetworkAdapters": _C,
        f"{_DEVICES}.NetworkAdapters[*]": _C,
        f"{_DEVICES}.NetworkAdapters[*].EndpointId": _C,
        f"{_DEVICES}.NetworkAdapters[*].MacAddress": _C,
        f"{_DEVICES}.Plan9": _C,  # 9p is spoken over the guest's sockets, which are always there
        f"{_DEVICES}.Plan9.Shares": _C,  # each is checked as a whole (`plan9.spec`)
        f"{_DEVICES}.VirtualPci": _C,
        f"{_DEVICES}.VirtualPci[*]": _C,
        f"{_DEVICES}.VirtualPci[*].Functions": _C,  # each is checked as a whole (`assign`)
        f"{_DEVICES}.HvSocket": _C,
        _SOCKETS: _C,
        f"{_SOCKETS}.DefaultBindSecurityDescriptor": _R,  # only the owner's process has the guest's sockets; there is nobody to tell apart
        f"{_SOCKETS}.DefaultConnectSecurityDescriptor": _R,  # likewise
        f"{_SOCKETS}.ServiceTable": _C,
        f"{_SOCKETS}.ServiceTable[*]": _C,  # a service that is no port's stays recorded: a Linux guest cannot dial it
        f"{_SOCKETS}.ServiceTable[*].BindSecurityDescriptor": _R,  # likewise
        f"{_SOCKETS}.ServiceTable[*].ConnectSecurityDescriptor": _R,  # likewise
        f"{_SOCKETS}.ServiceTable[*].Disabled": _C,
    }
)

LACKS: Final[Mapping[str, str]] = MappingProxyType(
    {
        f"{_VM}.Chipset.Uefi": "boot by firmware is not carried out by the QEMU driver yet; use LinuxKernelDirect",
        f"{_MEMORY}.EnableHotHint": "has no meaning for Linux guests on QEMU",
        f"{_MEMORY}.HighMmioBaseInMB": "QEMU places this gap itself",
        f"{_DEVICES}.NetworkAdapters[*].IovSettings": "what a host's network card does for a guest, QEMU's adapters do not",
        f"{_SOCKETS}.ServiceTable[*].AllowWildcardBinds": "who listens here listens for one VM",
        f"{_DEVICES}.VideoMonitor.HorizontalResolution": "the guest chooses the size of its screen",
        f"{_DEVICES}.VideoMonitor.VerticalResolution": "the guest chooses the size of its screen",
        f"{_DEVICES}.VideoMonitor.ConnectionOptions.AccessSids": "who may connect is decided by the socket's mode: its owner's user",
        f"{_DEVICES}.VirtualSmb": "is for Windows guests, which need the driver for Windows' Host Compute Service",
        f"{_VM}.RestoreState.SaveStateFilePath": "only a template is gone on from, TemplateSystemId",
        f"{_VM}.RegistryChanges": "is for Windows guests, which need the driver for Windows' Host Compute Service",
    }
)
"""What is said of a refused field where "not carried out by the QEMU driver yet" would not be the truth or not enough."""

NOT_YET: Final = "not carried out by the QEMU driver yet"
