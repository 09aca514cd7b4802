"""A template: a VM that was saved, and that other VMs go on from."""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import final

from msgspec import structs

from utilityvm.kit.aio import finish
from utilityvm.kit.errors import UtilityVMError
from utilityvm.kit.ids import check_name
from utilityvm.kit.trace import event
from utilityvm.options.lcow import OptionsLCOW, TemplateConfig
from utilityvm.options.network import NetworkWish
from utilityvm.store import templates as store
from utilityvm.store.layout import Layout
from utilityvm.vm.compose import create_lcow
from utilityvm.vm.uvm import UtilityVM


async def open_template(template_id: str) -> "Template":
    """Return the template of an id.

    Raises:
        InvalidOptions: no VM can have this id.
        NotFound: there is no such template.
        Corrupt: it is not as it was written.
        Unsupported: another version of this package wrote it.
        HostError: it cannot be read.
    """
    return _read(Layout.of_user().templates, template_id)


async def list_templates() -> "tuple[Template, ...]":
    """Return all templates, in the order of their ids. One that cannot be read is left out and told as the event ``template.broken``.

    Raises:
        HostError: their folder cannot be read.
    """
    found, folder = list[Template](), Layout.of_user().templates
    for template_id in store.ids(folder):
        try:
            found.append(_read(folder, template_id))
        except UtilityVMError as error:
            event("template.broken", level=logging.WARNING, error=error.message)
    return tuple(found)


@final
@dataclass(frozen=True, slots=True)
class Template:
    """A template on this host. `id` is that of the VM that was saved, `options` are those that it was created with, `created` is when it
    was saved, in seconds since 1970; `folder` is where it lies.
    """

    id: str
    options: OptionsLCOW
    created: float
    folder: Path

    @property
    def config(self) -> TemplateConfig:
        """What the options of a clone have as `template_config`."""
        return TemplateConfig(uvm_id=self.id, create_options=self.options)

    @property
    def size(self) -> int:
        """Bytes of the disk that it takes."""
        return store.size(self.folder)

    def clone_options(self, vm_id: str = "") -> OptionsLCOW:
        """Return the options of a clone, for `create_lcow`; `vm_id` empty: a GUID is made."""
        return structs.replace(self.options, id=vm_id, is_template=False, is_clone=True, template_config=self.config)

    async def clone(
        self,
        vm_id: str = "",
        *,
        require_kvm: bool = False,
        require_jail: bool = False,
        network: NetworkWish | None = None,
    ) -> UtilityVM:
        """Create a VM that goes on from the template; nothing runs yet. `vm_id` empty: a GUID is made. The rest is as in `create_lcow`.

        It has the template's memory, and writes to its own copy of what it changes: programs that ran when the template was saved run in
        it. Before `start` returns its clock is set and its random numbers are its own.

        Raises:
            Unsupported: it was made with another QEMU, acceleration, kernel or agent, or for another machine; the text says which.
            NotFound, Corrupt: it has gone meanwhile, or is not as it was written.
            UtilityVMError: as `create_lcow`.
        """
        options = self.clone_options(vm_id)
        return await create_lcow(options, require_kvm=require_kvm, require_jail=require_jail, network=network)

    async def remove(self) -> None:
        """Remove it. Its clones that run go on. A cancelled call is carried out.

        Raises:
            NotFound: it has gone already.
            HostError: it cannot be removed.
        """
        await finish(asyncio.to_thread(store.remove, self.folder.parent, self.id), within=None)


def _read(folder: Path, template_id: str) -> Template:
    check_name(template_id, f"{template_id!r} cannot name a template", "$.id", "id")
    manifest = store.read(folder, template_id)
    return Template(manifest.id, manifest.options, manifest.created, folder / manifest.id)
