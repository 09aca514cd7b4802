"""The QEMU driver: makes machines of documents."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import final

from utilityvm.compute.ports import Frozen
from utilityvm.compute.qemu.assign import OnHost, check_device, shown
from utilityvm.compute.qemu.cgroup import Cgroups
from utilityvm.compute.qemu.facts import HostFacts
from utilityvm.compute.qemu.graphics import screen_path
from utilityvm.compute.qemu.lower import Launch, check, lower
from utilityvm.compute.qemu.origin import Memories, Origin, in_thread
from utilityvm.compute.qemu.pci import look_at
from utilityvm.compute.qemu.pins import PIN_HINT, why_not_pinned
from utilityvm.compute.qemu.probe import probe
from utilityvm.compute.qemu.processors import Processors
from utilityvm.compute.qemu.savable import Basis
from utilityvm.compute.qemu.saving import Saving
from utilityvm.compute.qemu.screen import require_screen
from utilityvm.compute.qemu.snapshot import Snapshot
from utilityvm.compute.qemu.system import QemuMachine
from utilityvm.kit.errors import NotFound, Unsupported, UtilityVMError
from utilityvm.kit.ids import VmId
from utilityvm.kit.locked import why_not_locked
from utilityvm.schema.document import ComputeSystem
from utilityvm.store.layout import Layout
from utilityvm.store.templates import refuse_existing


@final
class QemuService:
    """A `compute.ports.ComputeService` on QEMU. `cache` is the folder that remembers what was probed, `templates` that of templates
    (default: the user's, as are all other places); `memories` are those of templates whose clones this process makes (default: nobody
    else's).
    """

    def __init__(
        self,
        *,
        cache: Path | None = None,
        environ: Mapping[str, str] = os.environ,
        templates: Path | None = None,
        memories: Memories | None = None,
    ) -> None:
        self._layout = Layout.of_user()
        self._cache = self._layout.cache / "qemu" if cache is None else cache
        self._templates = self._layout.templates if templates is None else templates
        self._environ, self._memories = environ, Memories() if memories is None else memories

    async def probe(self, kernel: Path, *, anew: bool = False) -> HostFacts:
        """Find what a machine that boots `kernel` will run on; `anew` tries KVM again. See `probe.probe` for what it costs and raises."""
        return await probe(self._cache, kernel, self._environ, anew=anew)

    async def create(
        self, system_id: VmId, document: ComputeSystem, *, savable: bool = False, forkable: bool = False, frozen: Frozen | None = None
    ) -> QemuMachine:
        """See `compute.ports.ComputeService.create`. Refuses what cannot be honoured before it looks for QEMU.

        Raises:
            Unsupported, InvalidOptions, NotFound, Exists, Corrupt: as there.
            HostError: QEMU cannot be asked for its version.
        """
        check(document)
        assert document.virtual_machine is not None  # noqa: S101 (checked)
        assert document.virtual_machine.chipset is not None  # noqa: S101
        assert document.virtual_machine.chipset.linux_kernel_direct is not None  # noqa: S101
        kernel = Path(document.virtual_machine.chipset.linux_kernel_direct.kernel_file_path)
        _must_be_readable(kernel)
        facts = await probe(self._cache, kernel, self._environ)
        if screen_path(document):
            require_screen(facts.qemu, kernel)
        assert frozen is None or isinstance(frozen, Snapshot)  # noqa: S101 (this service made it)
        basis = Basis(generation=True, own_memory=True) if forkable else None
        launch = lower(system_id, document, facts, savable=savable, basis=basis if frozen is None else frozen.basis(forkable=forkable))
        if savable:
            refuse_existing(self._templates, system_id)
        for file in launch.files.values():
            _must_be_readable(Path(file))
        if launch.locked and (reason := why_not_locked(launch.memory_bytes)):
            path = "$.VirtualMachine.ComputeTopology.Memory.AllowOvercommit"
            mib = launch.memory_bytes >> 20
            raise Unsupported(
                f"{path}: false: {mib} MiB cannot be locked: {reason}", hint="raise it: ulimit -l, or LimitMEMLOCK= of systemd"
            )
        given = shown(_given(launch, facts), facts.jail)
        cgroups = Cgroups()
        cgroups.check(launch.share)
        origin = await self._origin(launch, facts, frozen) if launch.template else None
        shares = Processors(system_id, launch.share, cgroups)
        saving = Saving(system_id, launch, facts, self._templates, self._layout, origin)
        return QemuMachine(system_id, document, launch, facts, shares, given, saving)

    async def _origin(self, launch: Launch, facts: HostFacts, frozen: Snapshot | None) -> Origin:
        if frozen is not None:
            return await in_thread(lambda: frozen.origin(launch, facts, self._layout))
        return await self._memories.take(self._templates, launch, facts, self._layout)


def _given(launch: Launch, facts: HostFacts) -> dict[str, OnHost]:
    """Look at the host's devices that the machine is to have, and refuse those that it cannot."""
    hosts = {address: look_at(address) for address in launch.assigned.values()}
    for path, address in launch.assigned.items():
        try:
            check_device(address, hosts[address], facts.jail)
        except UtilityVMError as error:
            raise error.during(path) from error
    if hosts and (reason := why_not_pinned(launch.memory_bytes)):
        raise Unsupported(f"$.VirtualMachine.Devices.VirtualPci: {reason}", hint=PIN_HINT)
    return hosts


def _must_be_readable(path: Path) -> None:
    if not path.is_file() or not os.access(path, os.R_OK):
        raise NotFound(f"{path}: no file that can be read", hint="build the boot files: uvm boot-files build")
