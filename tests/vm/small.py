"""Small VMs, as most tests want them: one, one that becomes a template, two clones that run; where their files may lie."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from utilityvm import Template, UtilityVM, create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles

OLD = "date -s '2001-09-09 01:46' >/dev/null || exit 9"
"""Sets a guest's clock to what no clock says today, so that a clone's is not right by itself."""


async def a_vm(boot_files: BootFiles, **more: object) -> UtilityVM:
    """Create a VM."""
    given = {"boot_files_path": str(boot_files.folder), "memory_size_in_mb": 256, "processor_count": 1}
    return await create_lcow(default_options_lcow(**given, **more))


async def a_template_vm(boot_files: BootFiles, template_id: str) -> UtilityVM:
    """Create a VM that may become a template of this id."""
    return await a_vm(boot_files, id=template_id, is_template=True)


@asynccontextmanager
async def two_clones(template: Template) -> AsyncIterator[tuple[UtilityVM, UtilityVM]]:
    """Two clones of a template, that run."""
    async with await template.clone() as first, await template.clone() as second:
        await first.start()
        await second.start()
        yield first, second


def let_others_in(folder: Path) -> Path:
    """Let other users look into a temporary folder, as QEMU's does."""
    for each in (folder, *folder.parents[:2]):
        each.chmod(each.stat().st_mode | 0o055)
    return folder
