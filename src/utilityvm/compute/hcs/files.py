"""Folders, virtual disks and layers of a Windows host: a `compute.ports.HostFiles`, and what computestorage does with layers."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, final

from utilityvm.compute.hcs.calls import Hcs, windows
from utilityvm.compute.hcs.workers import Workers
from utilityvm.kit.errors import HostError
from utilityvm.kit.ids import VmId

AT_ONCE: Final = 4
"""Copies and calls at once; more wait for their turn."""

SLOW: Final = 240.0
"""Seconds after which one that has not ended is told of."""


@final
class WindowsFiles:
    """A `compute.ports.HostFiles`. `calls` are the host service's (default: Windows' own).

    Raises:
        Unsupported: this host has no such service.
    """

    def __init__(self, calls: Hcs | None = None) -> None:
        self._calls = calls or Hcs(windows())
        self._work = Workers(AT_ONCE, SLOW)

    async def make_folder(self, path: str) -> None:
        """See `compute.ports.HostFiles.make_folder`."""
        await self._try(f"make the folder {path}", lambda: Path(path).mkdir(parents=True, exist_ok=True))

    async def copy(self, source: str, target: str) -> None:
        """See `compute.ports.HostFiles.copy`. A caller who gives up leaves nothing at `target`, as soon as the copy has ended."""

        def copy() -> None:
            try:
                shutil.copyfile(source, target)
            except BaseException:
                with suppress(OSError):
                    Path(target).unlink(missing_ok=True)
                raise

        await self._try(f"copy {source} to {target}", copy, undo=lambda: Path(target).unlink(missing_ok=True))

    async def grant_access(self, vm_id: VmId, path: str) -> None:
        """See `compute.ports.Grants.grant_access`."""
        await self._work.run(f"grant access to {path}", lambda: self._calls.grant_access(vm_id, path))

    async def grant_group_access(self, path: str) -> None:
        """See `compute.ports.Grants.grant_group_access`.

        Raises:
            Unsupported: this Windows is older than 10 1903.
        """
        await self._work.run(f"grant all VMs access to {path}", lambda: self._calls.grant_group_access(path))

    async def revoke_access(self, vm_id: VmId, path: str) -> None:
        """Take back what `grant_access` gave.

        Raises:
            HostError: the file's rights could not be changed.
        """
        await self._work.run(f"revoke access to {path}", lambda: self._calls.revoke_access(vm_id, path))

    async def remove(self, path: str) -> None:
        """See `compute.ports.HostFiles.remove`."""
        await self._try(f"remove {path}", lambda: Path(path).unlink(missing_ok=True))

    async def import_layer(self, path: str, source: str, layer_data: str) -> None:
        """Make a layer at `path` of what lies in `source`; `layer_data` is computestorage's JSON of its parents.

        Raises:
            HcsError: it was refused.
            Unsupported: this Windows has no computestorage.
        """
        await self._layer("HcsImportLayer", path, source, layer_data)

    async def export_layer(self, path: str, target: str, layer_data: str, options: str = "{}") -> None:
        """Write what a layer changes into the folder `target`. See `import_layer`."""
        await self._layer("HcsExportLayer", path, target, layer_data, options)

    async def initialize_scratch(self, path: str, layer_data: str, options: str = "") -> None:
        """Make an empty writable layer at `path`. See `import_layer`."""
        await self._layer("HcsInitializeWritableLayer", path, layer_data, options)

    async def attach_layer(self, path: str, layer_data: str) -> None:
        """Let the volume at `path` show its parents' files under its own. See `import_layer`."""
        await self._layer("HcsAttachLayerStorageFilter", path, layer_data)

    async def detach_layer(self, path: str) -> None:
        """Undo `attach_layer`. See `import_layer`."""
        await self._layer("HcsDetachLayerStorageFilter", path)

    async def destroy_layer(self, path: str) -> None:
        """Remove a layer. See `import_layer`."""
        await self._layer("HcsDestroyLayer", path)

    async def _layer(self, name: str, *given: str) -> None:
        await self._work.run(f"{name} {given[0]}", lambda: self._calls.layer(name, *given))

    async def _try(self, what: str, work: Callable[[], None], undo: Callable[[], None] = lambda: None) -> None:
        def late(_result: None) -> None:
            with suppress(OSError):
                undo()

        try:
            await self._work.run(what, work, late)
        except OSError as error:
            raise HostError(f"cannot {what}: {error.strerror or os.strerror(error.errno or 0)}") from error
