"""Folders and files of the host that a Windows guest reaches over SMB.

A folder is shared whole. A file is shared as its folder, restricted to the files of it that were asked for; they are one share, which
grows with each and goes with the last.
"""

from collections.abc import Sequence
from itertools import count
from typing import Final, final

import msgspec
from msgspec.structs import replace

from utilityvm.devices import paths
from utilityvm.devices.holdings import Held, Holding, Holdings
from utilityvm.devices.ports import Owner
from utilityvm.kit.errors import Exists, InvalidOptions, NotFound, UtilityVMError
from utilityvm.options import builds
from utilityvm.options.paths import base_name, directory, join
from utilityvm.plan.windows import VsmbEntry, default_options, share_key
from utilityvm.schema.devices import VirtualSmbShare, VirtualSmbShareOptions
from utilityvm.schema.requests import ModifySettingRequest

PREFIX: Final = "\\\\?\\VMSMB\\VSMB-{dcc079ae-60ba-4d07-847c-3493609c0870}\\"
"""Where a Windows guest finds what is shared with it."""


class SmbShare(msgspec.Struct, frozen=True):
    """The folder `host_path`, which the guest finds at `guest_path`; if `of_files`, the `allowed_files` (full paths) of it alone."""

    name: str
    host_path: str
    guest_path: str
    options: VirtualSmbShareOptions
    of_files: bool
    allowed_files: tuple[str, ...] = ()
    references: int = 1
    state: str = Held.ATTACHED.value


@final
class Vsmb:
    """The SMB shares of one VM, of which `entries` are there from the start."""

    def __init__(self, owner: Owner, entries: Sequence[VsmbEntry] = ()) -> None:
        self._owner, self._numbers = owner, count(len(entries) + 1)
        effects = _Effects(owner)
        self._folders = Holdings[SmbShare](owner.id, "SMB share", effects)
        self._files = Holdings[SmbShare](owner.id, "SMB share of files of", effects)
        for entry in entries:
            share = SmbShare(entry.name, entry.host_path, entry.guest_path, entry.options, entry.of_files, entry.allowed_files)
            self._table(share.of_files).adopt(share_key(entry.host_path, read_only=entry.read_only), share)

    @property
    def shares(self) -> tuple[SmbShare, ...]:
        """All shares, also those that are on their way in or out."""
        return tuple(_now(held) for table in (self._folders, self._files) for held in table)

    def default_options(self, *, read_only: bool) -> VirtualSmbShareOptions:
        """Return the options that a share has when none are asked for."""
        no_directmap = self._owner.fully_physically_backed
        if read_only:
            return default_options(no_directmap=no_directmap)
        return VirtualSmbShareOptions(no_directmap=no_directmap)

    async def add(self, host_path: str, options: VirtualSmbShareOptions | None = None) -> SmbShare:
        """Share a folder or a file of the host; `options` None are those for reading only. What is shared is counted once more.

        A folder may be shared to read and to write at once: these are two shares. A call that is cancelled is carried out, and then
        taken back.

        Raises:
            Unsupported: the guest is Linux.
            NotFound: nothing is at `host_path`.
            Exists: the folder is shared with other options.
            StateError, HostError, ConnectionLost: see `UtilityVM.modify`.
        """
        self._owner.needs_windows("an SMB share")
        of_files = not self._owner.host.look(host_path).folder
        asked = self.default_options(read_only=True) if options is None else options
        asked = self._fitting(asked, of_files=of_files)
        flavour = self._owner.host.path_flavour
        folder = directory(flavour, host_path) if of_files else join(flavour, host_path)
        key, files = share_key(folder, read_only=asked.read_only), (host_path,) if of_files else ()
        if of_files:
            return await self._add_file(key, folder, host_path, asked)

        def admit(there: SmbShare) -> None:
            if there.options != asked:
                raise Exists(f"{self._owner.name}: {folder} is shared with other options", hint="remove it first")

        return _now(await self._folders.take(key, lambda: self._made(folder, asked, files), admit))

    async def remove(self, host_path: str, *, read_only: bool = True) -> None:
        """Give back a folder or a file that was shared to read, or to write; with the last reference the share goes.

        Nothing needs to be at `host_path` any more. When it fails the same call may be made again.

        Raises:
            NotFound: it is not shared in this way.
            StateError, HostError, ConnectionLost: see `UtilityVM.modify`.
        """
        table, key = self._place(host_path, read_only=read_only)
        if table is None:
            raise NotFound(f"{self._shown(host_path)} is not present as a VSMB share in {self._owner.id}, cannot remove")
        await table.drop(key)

    def guest_path(self, host_path: str, *, read_only: bool = True) -> str:
        """Return where the guest finds a folder or a file that is shared to read, or to write.

        Raises:
            InvalidOptions: `host_path` is empty.
            NotFound: it is not shared in this way.
        """
        if not host_path:
            raise InvalidOptions("no hostPath passed to GetVSMBUvmPath")
        table, key = self._place(host_path, read_only=read_only)
        if table is None:
            raise NotFound("not attached", hint=f"{self._owner.name} shares no {host_path}")
        share = table.the(key).thing
        flavour = self._owner.host.path_flavour
        return join(flavour, share.guest_path, base_name(flavour, host_path)) if share.of_files else share.guest_path

    def _table(self, of_files: bool) -> Holdings[SmbShare]:
        return self._files if of_files else self._folders

    def _place(self, host_path: str, *, read_only: bool) -> tuple[Holdings[SmbShare] | None, str]:
        """Return the table that has a path, and its key there; no table when neither has."""
        flavour = self._owner.host.path_flavour
        key = share_key(join(flavour, host_path), read_only=read_only)
        if self._folders.find(key) is not None:
            return self._folders, key
        key = share_key(directory(flavour, host_path), read_only=read_only)
        of_files = self._files.find(key)
        return self._files if of_files is not None and host_path in of_files.thing.allowed_files else None, key

    def _shown(self, host_path: str) -> str:
        flavour = self._owner.host.path_flavour
        try:
            folder = self._owner.host.look(host_path).folder
        except UtilityVMError:
            folder = True
        return join(flavour, host_path) if folder else directory(flavour, host_path)

    def _fitting(self, options: VirtualSmbShareOptions, *, of_files: bool) -> VirtualSmbShareOptions:
        """Return the options for a folder, or for files of one, on this build of Windows."""
        if builds.V19H1 <= self._owner.host.build <= builds.V20H2_LAST:
            options = replace(options, no_directmap=True)
        return replace(options, restrict_file_access=True, single_file_mapping=True) if of_files else options

    def _made(self, folder: str, options: VirtualSmbShareOptions, files: tuple[str, ...]) -> SmbShare:
        name = f"s{next(self._numbers):x}"
        return SmbShare(name, folder, PREFIX + name, options, bool(files), files)

    async def _add_file(self, key: str, folder: str, host_path: str, options: VirtualSmbShareOptions) -> SmbShare:
        async def widen(share: SmbShare) -> SmbShare:
            wider = replace(share, allowed_files=(*share.allowed_files, host_path), options=options)
            await self._owner.modify(_request("Update", _settings(wider)))
            return wider

        if await self._files.settled(key) is None:
            return _now(await self._files.take(key, lambda: self._made(folder, options, (host_path,))))
        return _now(await self._files.change(key, widen, references=1))


@final
class _Effects:
    """How shares come into a VM and out of it."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    async def attach(self, thing: SmbShare) -> None:
        await self._owner.modify(_request("Add", _settings(thing)))

    async def detach(self, thing: SmbShare, *, from_guest: bool) -> None:  # noqa: ARG002 (the guest holds nothing of a share)
        try:
            await self._owner.modify(_request("Remove", VirtualSmbShare(name=thing.name)))
        except UtilityVMError as error:
            error.during(f"failed to remove vsmb share {thing.host_path} from {self._owner.id}")
            raise


def _request(request_type: str, share: VirtualSmbShare) -> ModifySettingRequest:
    return ModifySettingRequest(resource_path=paths.VSMB_SHARES, request_type=request_type, settings=share)


def _settings(share: SmbShare) -> VirtualSmbShare:
    return VirtualSmbShare(name=share.name, path=share.host_path, allowed_files=list(share.allowed_files), options=share.options)


def _now(held: Holding[SmbShare]) -> SmbShare:
    return replace(held.thing, references=held.references, state=held.state.value)
