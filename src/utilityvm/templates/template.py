"""A template: a VM that was saved, and that other VMs go on from."""

import asyncio
import logging
from os import PathLike
from pathlib import Path
from typing import final

import msgspec
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


async def import_template(path: str | PathLike[str], template_id: str = "") -> "Template":
    """Make a template of a file that `Template.export` or `uvm template export` has written; `template_id` empty: it is called as it was.

    A cancelled call is carried out. Import only templates of people whose programs you would run: QEMU reads what they have written.

    Raises:
        NotFound: there is no such file.
        InvalidOptions: no VM can have this id; or the template's options make no sense here.
        Exists: there is a template of this id.
        Unsupported: a layer, or another file that its clones read, is another one on this host. One that is not here is NotFound.
        Corrupt: it is no such file, or not as it was written; the text says what is wrong. Nothing is left of it.
        Unsupported: another version of this package wrote it.
        HostError: it cannot be read, or the template not be written.
    """
    from utilityvm.templates import archive  # noqa: PLC0415 (what reads archives is slow to load, and few import)

    layout = Layout.of_user()
    made = await finish(asyncio.to_thread(archive.import_from, layout.templates, Path(path), template_id, layout), within=None)
    return _read(layout.templates, made)


@final
class Template(msgspec.Struct, frozen=True):
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

    def clone_options(self, vm_id: str = "", *, forkable: bool = False) -> OptionsLCOW:
        """Return the options of a clone, for `create_lcow`; `vm_id` empty: a GUID is made."""
        own = {"id": vm_id, "is_template": False, "is_clone": True, "template_config": self.config, "forkable": forkable}
        return structs.replace(self.options, **own)

    async def clone(
        self,
        vm_id: str = "",
        *,
        require_kvm: bool = False,
        require_jail: bool = False,
        network: NetworkWish | None = None,
        forkable: bool = False,
    ) -> UtilityVM:
        """Create a VM that goes on from the template; nothing runs yet. `vm_id` empty: a GUID is made. The rest is as in `create_lcow`.

        It has the template's memory, and writes to its own copy of what it changes: programs that ran when the template was saved run in
        it. Before `start` returns its clock is set and its random numbers are its own. One that is `forkable` is forked quickly: it gets
        the whole memory as its own, which takes the time and the room of a copy.

        Raises:
            Unsupported: it was made with another QEMU, acceleration, kernel or agent, or for another machine; the text says which.
            NotFound, Corrupt: it has gone meanwhile, or is not as it was written.
            UtilityVMError: as `create_lcow`.
        """
        options = self.clone_options(vm_id, forkable=forkable)
        return await create_lcow(options, require_kvm=require_kvm, require_jail=require_jail, network=network)

    async def export(self, path: str | PathLike[str]) -> None:
        """Write it as one file, for `import_template` here or on another host: as large as what the guest has touched of its memory.

        The file is whole then, and readable for its owner alone, or as it was before. A cancelled call is carried out.

        Raises:
            NotFound, Corrupt: it has gone meanwhile, or is not as it was written.
            HostError: it cannot be read, or the file not be written.
        """
        from utilityvm.templates import archive  # noqa: PLC0415 (as in import_template)

        await finish(asyncio.to_thread(archive.export_to, self.folder.parent, self.id, Path(path)), within=None)

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
