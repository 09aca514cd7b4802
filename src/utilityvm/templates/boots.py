"""Templates that are made by themselves: whoever wants a VM as one that has booted here before goes on from that one's boot.

Nobody has to know of them: a template that cannot be made or used costs time, and is no error.
"""

import asyncio
import logging
import shutil
import time
from contextlib import AsyncExitStack
from typing import Final, Protocol, final

import msgspec

from utilityvm.compute.qemu.kept import Kept
from utilityvm.devices import resources
from utilityvm.kit.aio import finish
from utilityvm.kit.errors import Corrupt, Exhausted, NotFound, StateError, Unsupported, UtilityVMError
from utilityvm.kit.files import FileLock, make_folder
from utilityvm.kit.trace import event, hushed, span
from utilityvm.options.lcow import OptionsLCOW, TemplateConfig
from utilityvm.options.network import NetworkWish
from utilityvm.store import boots as store
from utilityvm.store import templates
from utilityvm.store.layout import Layout
from utilityvm.vm.compose import boot_key, create_lcow
from utilityvm.vm.uvm import UtilityVM

CLONE_WITHIN: Final = 20.0
"""Seconds after which a VM that should go on from a template is given up, and booted."""

AGAIN_AFTER: Final = 3600.0
"""Seconds after which a template that could not be made, or not be used, is made again."""


class Failure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why there is no template of a boot, and since when, in seconds since 1970."""

    why: str
    when: float


class Vms(Protocol):
    """What is needed of VMs here."""

    async def key(self, options: OptionsLCOW) -> str:
        """See `vm.compose.boot_key`."""
        ...

    async def create(self, options: OptionsLCOW, network: NetworkWish | None) -> UtilityVM:
        """See `vm.compose.create_lcow`."""
        ...


@final
class VmsOfHost(msgspec.Struct, frozen=True):
    """The VMs of this host, with what is required of it."""

    require_kvm: bool = False
    require_jail: bool = False

    async def key(self, options: OptionsLCOW) -> str:
        """See `vm.compose.boot_key`."""
        return await boot_key(options)

    async def create(self, options: OptionsLCOW, network: NetworkWish | None) -> UtilityVM:
        """See `vm.compose.create_lcow`."""
        return await create_lcow(options, network=network, require_kvm=self.require_kvm, require_jail=self.require_jail)


async def boot(undo: AsyncExitStack, options: OptionsLCOW, network: NetworkWish | None, vms: Vms) -> UtilityVM:
    """Return a VM that has booted and runs; `undo` closes it.

    Raises:
        UtilityVMError: as `create_lcow` and `UtilityVM.start`.
    """
    async with AsyncExitStack() as own:
        vm = await own.enter_async_context(await vms.create(options, network))
        await vm.start()
        await undo.enter_async_context(own.pop_all())
    return vm


@final
class BootTemplates:
    """The templates of boots among those of `layout`."""

    def __init__(self, layout: Layout, vms: Vms) -> None:
        self._layout, self._vms = layout, vms
        self._failures = Kept(layout.cache / "templates.json", Failure)

    async def start(self, undo: AsyncExitStack, options: OptionsLCOW, network: NetworkWish | None = None) -> UtilityVM:
        """Return a VM that runs; `undo` closes it. It goes on from the template of its boot, which is made if there is none. Where that
        cannot be, it boots.

        Raises:
            UtilityVMError: as `boot`.
        """
        # A proxy sets up the networks of VMs that run, and is told of no template; and whether it is forked itself is a clone's own.
        template = await self._template(msgspec.structs.replace(options, network_config_proxy="", forkable=False))
        if template is None:
            return await boot(undo, options, network, self._vms)
        created = msgspec.structs.replace(template.options, network_config_proxy=options.network_config_proxy)
        config = TemplateConfig(uvm_id=template.id, create_options=created)
        try:
            async with asyncio.timeout(CLONE_WITHIN):
                with span("template.clone", level=logging.DEBUG):
                    clone = msgspec.structs.replace(options, is_clone=True, template_config=config)
                    return await boot(undo, clone, network, self._vms)
        except (UtilityVMError, TimeoutError) as error:
            failed = error
        vm = await boot(undo, options, network, self._vms)
        await finish(asyncio.to_thread(self._throw_away, template.id, failed), within=None)  # all is well without it
        return vm

    async def _template(self, options: OptionsLCOW) -> templates.Manifest | None:
        try:
            if options.is_template or options.is_clone:
                raise Unsupported("its options say what the VM is to templates")
            template_id = store.id_of(await self._vms.key(options))
            return self._there(template_id) or await self._make(template_id, options)
        except (UtilityVMError, OSError) as error:
            event("template.none", level=logging.DEBUG, message=str(error))
            return None

    def _there(self, template_id: str) -> templates.Manifest | None:
        try:
            found = templates.read(self._layout.templates, template_id)
            store.use(self._layout.templates, template_id)
        except (NotFound, FileNotFoundError):
            return None
        except (Corrupt, Unsupported) as error:
            event("template.broken", level=logging.DEBUG, message=error.message)
            templates.remove(self._layout.templates, template_id)
            return None
        return found

    async def _make(self, template_id: str, options: OptionsLCOW) -> templates.Manifest:
        """Boot a VM for it and save that. Who comes meanwhile boots without a template."""
        if (failure := self._failures.get(template_id)) and abs(time.time() - failure.when) < AGAIN_AFTER:
            raise Unsupported(f"within the last hour it failed: {failure.why}")
        make_folder(self._layout.templates, private=True)
        lock = FileLock(self._layout.templates_lock)
        if not lock.acquire(wait=False):
            raise StateError("the templates of boots", "another is being made", "be added to")
        with lock, hushed():
            if (found := self._there(template_id)) is not None:
                return found
            if shutil.disk_usage(self._layout.templates).free < store.BUDGET:
                raise Exhausted(f"{self._layout.templates}: less than {store.BUDGET >> 20} MiB are free, which templates of boots may take")
            vm = await self._vms.create(msgspec.structs.replace(options, id=template_id, is_template=True), None)
            try:
                with span("template.make", level=logging.DEBUG):
                    return await self._save(vm)
            except UtilityVMError as error:
                self._failures.put(template_id, Failure(why=error.message, when=time.time()))
                raise

    async def _save(self, vm: UtilityVM) -> templates.Manifest:
        async with vm:
            await vm.start()
            await vm.modify(resources.drivers())
            await vm.save_as_template()
        await finish(asyncio.to_thread(store.evict, self._layout.templates), within=None)
        return templates.read(self._layout.templates, vm.id)

    def _throw_away(self, template_id: str, why: Exception) -> None:
        """Remove a template of which no VM could be made, and make none for a while where a new one would fail as well."""
        message = str(why) or f"nothing that went on from it was ready within {CLONE_WITHIN:g} s"
        event("template.broken", level=logging.DEBUG, message=message)
        try:
            templates.remove(self._layout.templates, template_id)
        except NotFound:
            return  # which is why
        except UtilityVMError as error:
            event("template.broken", level=logging.DEBUG, message=error.message)
        if not isinstance(why, Corrupt):
            self._failures.put(template_id, Failure(why=message, when=time.time()))
