"""Rules of a running VM's sockets and network adapters, and who its guest is, as the requests that change them."""

from typing import Final

from utilityvm.devices import paths
from utilityvm.kit.ids import new_guid
from utilityvm.schema.devices import HvSocketServiceConfig, NetworkAdapter
from utilityvm.schema.guest_requests import GuestRequest, HvSocketAddress, LCOWIdentity
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.wire import services

MAX_HOSTNAME: Final = 64
"""Most characters of a hostname, as Linux has it."""


def hvsocket_service(service_id: str, rules: HvSocketServiceConfig) -> ModifySettingRequest:
    """Return the request for the rules of one service, which makes them where there are none."""
    return ModifySettingRequest(resource_path=paths.hvsocket_service(service_id), request_type="Update", settings=rules)


def no_hvsocket_service(service_id: str) -> ModifySettingRequest:
    """Return the request that a service has no rules of its own."""
    return ModifySettingRequest(resource_path=paths.hvsocket_service(service_id), request_type="Remove")


def network_adapter(nic_id: str, adapter: NetworkAdapter) -> ModifySettingRequest:
    """Return the request to change a network adapter."""
    return ModifySettingRequest(resource_path=paths.adapter(nic_id), request_type="Update", settings=adapter)


def hvsocket_address(runtime_id: str) -> GuestRequest:
    """Return how a Windows guest is told whose its sockets are."""
    address = HvSocketAddress(local_address=runtime_id, parent_address=services.WINDOWS_HOST)
    return GuestRequest(request_type="Update", resource_type="HvSocket", settings=address)


def identity(nanoseconds: int, vm_id: str) -> GuestRequest:
    """Return how a Linux guest that goes on from a template becomes one of its own: the time is in nanoseconds since 1970, the hostname is
    the VM's id, or how that begins, and its machine id is new.
    """
    return _identity(nanoseconds, hostname=vm_id[:MAX_HOSTNAME], machine_id=new_guid().replace("-", ""))


def clock(nanoseconds: int) -> GuestRequest:
    """Return how a Linux guest that has stood still is told the time, in nanoseconds since 1970."""
    return _identity(nanoseconds)


def _identity(nanoseconds: int, **names: str) -> GuestRequest:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    settings = LCOWIdentity(seconds=seconds, nanoseconds=rest, **names)
    return GuestRequest(request_type="Update", resource_type="VirtualMachineIdentity", settings=settings)


def drivers() -> ModifySettingRequest:
    """Return the request that a Linux guest loads the drivers of all that containers are given, before any of it comes."""
    return ModifySettingRequest(resource_path="", guest_request=GuestRequest(request_type="Add", resource_type="Drivers"))
