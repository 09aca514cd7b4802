"""Folders of the host that a Linux guest mounts over 9p."""

from collections.abc import Sequence
from typing import Final, final

import msgspec
from msgspec.structs import replace

from utilityvm.devices import paths
from utilityvm.devices.holdings import Held, Holding, Holdings
from utilityvm.devices.mounts import Mount
from utilityvm.devices.ports import Owner
from utilityvm.kit.errors import InvalidOptions, Unsupported, UtilityVMError
from utilityvm.options import builds
from utilityvm.schema.devices import Plan9Share as Share
from utilityvm.schema.guest_requests import GuestRequest, LCOWMappedDirectory
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.store.devices import ShareRecord

PORT: Final = 564
"""Where the guest dials the server of the shares."""

_READ_ONLY: Final = 0x01
_LINUX_METADATA: Final = 0x04
_RESTRICTED: Final = 0x80


class SharedFolder(msgspec.Struct, frozen=True):
    """A folder of the host that the guest has at `guest_path`; of `allowed_names`, when that is not None, and nothing else of it."""

    name: str
    host_path: str
    guest_path: str
    read_only: bool
    allowed_names: tuple[str, ...] | None = None
    state: str = Held.ATTACHED.value


@final
class Plan9:
    """The 9p shares of one VM. There is no sharing of shares: each call makes one, also of the same folder."""

    def __init__(self, owner: Owner) -> None:
        self._owner, self.names = owner, 0
        """How many names have been given out; each is a number."""
        self._held = Holdings[SharedFolder](owner.id, "9p share", _Effects(owner))
        owner.mounts.watch(lambda: (Mount(held.thing.guest_path, f"the folder {held.thing.host_path}", held.state) for held in self._held))

    def save(self) -> tuple[ShareRecord, ...]:
        """Return the records of the shares.

        Raises:
            StateError: one is on its way in or out.
        """
        return tuple(
            ShareRecord(
                name=share.name,
                host_path=share.host_path,
                guest_path=share.guest_path,
                read_only=share.read_only,
                allowed_names=share.allowed_names,
            )
            for share in (held.thing for held in self._held.still())
        )

    def restore(self, records: Sequence[ShareRecord]) -> None:
        """Have the shares of a VM that was saved. Its guest has them again by `remounts`."""
        for record in records:
            names = record.allowed_names
            share = SharedFolder(record.name, record.host_path, record.guest_path, record.read_only, names)
            self._held.adopt(record.name, share)

    def remounts(self) -> list[ModifySettingRequest]:
        """Return the requests by which the host serves all shares, and the guest mounts them anew where it has them."""
        shares = [held.thing for held in self._held]
        return [_request("Add", _share(share), _guest("Update", share, read_only=share.read_only)) for share in shares]

    @property
    def shares(self) -> tuple[SharedFolder, ...]:
        """All shares, also those that are on their way in or out."""
        return tuple(_now(held) for held in self._held)

    async def add(
        self, host_path: str, guest_path: str, *, read_only: bool = False, allowed_names: Sequence[str] | None = None
    ) -> SharedFolder:
        """Let the guest mount a folder of the host at `guest_path`; with `allowed_names` it finds these files of it alone.

        What changes on one side is seen on the other. A call that is cancelled is carried out, and then taken back.

        Raises:
            Unsupported: the guest is Windows; or `allowed_names` on a Windows host that is too old for them.
            InvalidOptions: `guest_path` is empty.
            Exists: something else is mounted there.
            StateError, NotFound, HostError, GuestError, ConnectionLost, DeadlineExceeded: see `UtilityVM.modify`.
        """
        self._owner.needs_linux("a 9p share")
        if allowed_names is not None and self._owner.host.build < builds.V19H1:
            raise Unsupported("single-file mappings are not supported on this build of Windows", hint=f"build {builds.V19H1} has them")
        if not guest_path:
            raise InvalidOptions("uvmPath must be passed to AddPlan9", hint="guest_path is where the guest is to have the folder")
        self._owner.require_free(guest_path, host_path)
        names = None if allowed_names is None else tuple(allowed_names)
        name, self.names = str(self.names), self.names + 1
        return _now(await self._held.take(name, lambda: SharedFolder(name, host_path, guest_path, read_only, names)))

    async def remove(self, share: SharedFolder) -> None:
        """Let the guest unmount what `add` returned, and take it away. When that fails the same call may be made again.

        Raises:
            NotFound: it is not there any more.
            StateError, HostError, GuestError, ConnectionLost, DeadlineExceeded: see `UtilityVM.modify`.
        """
        await self._held.drop(share.name)


@final
class _Effects:
    """How shares come into a VM and out of it."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    async def attach(self, thing: SharedFolder) -> None:
        await self._owner.modify(_request("Add", _share(thing), _guest("Add", thing, read_only=thing.read_only)))

    async def detach(self, thing: SharedFolder, *, from_guest: bool) -> None:
        share = Share(name=thing.name, access_name=thing.name, port=PORT)
        try:
            await self._owner.modify(_request("Remove", share, _guest("Remove", thing) if from_guest else None))
        except UtilityVMError as error:
            error.during(f"failed to remove plan9 share {thing.name} from {self._owner.id}")
            raise


def _share(thing: SharedFolder) -> Share:
    flags = _LINUX_METADATA | (_READ_ONLY if thing.read_only else 0) | (0 if thing.allowed_names is None else _RESTRICTED)
    return Share(
        name=thing.name,
        access_name=thing.name,
        path=thing.host_path,
        port=PORT,
        flags=flags,
        allowed_files=list(thing.allowed_names or ()),
    )


def _request(request_type: str, share: Share, guest: GuestRequest | None) -> ModifySettingRequest:
    return ModifySettingRequest(resource_path=paths.PLAN9_SHARES, request_type=request_type, settings=share, guest_request=guest)


def _guest(request_type: str, thing: SharedFolder, *, read_only: bool = False) -> GuestRequest:
    mounted = LCOWMappedDirectory(mount_path=thing.guest_path, port=PORT, share_name=thing.name, read_only=read_only)
    return GuestRequest(request_type=request_type, resource_type="MappedDirectory", settings=mounted)


def _now(held: Holding[SharedFolder]) -> SharedFolder:
    return replace(held.thing, state=held.state.value)
