"""Where a VM's resources are: the paths by which they are changed, as HCS has them."""

from typing import Final

_DEVICES: Final = "VirtualMachine/Devices"

VSMB_SHARES: Final = f"{_DEVICES}/VirtualSmb/Shares"
PLAN9_SHARES: Final = f"{_DEVICES}/Plan9/Shares"


def scsi(controller: int, lun: int) -> str:
    """Return the path of a SCSI disk."""
    return f"{_DEVICES}/Scsi/{controller}/Attachments/{lun}"


def vpmem(slot: int) -> str:
    """Return the path of a persistent memory device."""
    return f"{_DEVICES}/VirtualPMem/Devices/{slot}"


def vpci(guid: str) -> str:
    """Return the path of an assigned PCI device, by the GUID of its place on the bus."""
    return f"{_DEVICES}/VirtualPci/{guid}"


def pipe(host_path: str) -> str:
    """Return the path of a named pipe that containers share with the host."""
    return f"{_DEVICES}/MappedPipes/{host_path}"


def adapter(nic_id: str) -> str:
    """Return the path of a network adapter."""
    return f"{_DEVICES}/NetworkAdapters/{nic_id}"


def hvsocket_service(service_id: str) -> str:
    """Return the path of the rules for one hvsocket service."""
    return f"{_DEVICES}/HvSocket/HvSocketConfig/ServiceTable/{service_id}"
