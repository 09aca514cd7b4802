"""One call for a folder or a file of the host in whichever guest."""

from utilityvm.devices.plan9 import Plan9, SharedFolder
from utilityvm.devices.ports import Owner, Seen
from utilityvm.devices.vsmb import SmbShare, Vsmb
from utilityvm.kit.aio import finish
from utilityvm.kit.errors import HostError, NotFound, Unsupported
from utilityvm.options.paths import split
from utilityvm.schema.container import MappedDirectory
from utilityvm.schema.guest_requests import GuestRequest
from utilityvm.schema.requests import ModifySettingRequest


async def share(owner: Owner, plan9: Plan9, vsmb: Vsmb, host_path: str, guest_path: str, *, read_only: bool) -> SharedFolder | SmbShare:
    """See `UtilityVM.share`."""
    if owner.windows:
        return await _with_windows(owner, vsmb, host_path, guest_path, read_only=read_only)
    try:
        seen = owner.host.look(host_path)
    except (NotFound, HostError) as error:
        error.during(f"could not open '{host_path}' path on host")
        raise
    check_sharable(host_path, seen)
    if seen.folder:
        return await plan9.add(host_path, guest_path, read_only=read_only)
    parent, name = split(owner.host.path_flavour, seen.real or host_path)
    return await plan9.add(parent, guest_path, read_only=read_only, allowed_names=[name])


def check_sharable(host_path: str, seen: Seen) -> None:
    """Refuse what no VM can be given of this host's files.

    Raises:
        Unsupported: it is the root of the host, or neither a file nor a folder.
    """
    if seen.real == "/":
        raise Unsupported(f"{host_path}: is the whole of this host, which no VM is given", hint="name the folder that is needed")
    if seen.special:
        raise Unsupported(f"{host_path}: is neither a file nor a folder: nothing else can be shared with a VM")


async def _with_windows(owner: Owner, vsmb: Vsmb, host_path: str, guest_path: str, *, read_only: bool) -> SmbShare:
    shared = await vsmb.add(host_path, vsmb.default_options(read_only=read_only))
    try:
        there = vsmb.guest_path(host_path, read_only=read_only)
        mapped = MappedDirectory(host_path=there, container_path=guest_path, read_only=read_only)
        guest = GuestRequest(request_type="Add", resource_type="MappedDirectory", settings=mapped)
        await owner.modify(ModifySettingRequest(guest_request=guest))
    except BaseException:
        await finish(vsmb.remove(host_path, read_only=read_only), within=None)
        raise
    return shared
