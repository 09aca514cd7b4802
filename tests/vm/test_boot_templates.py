"""`uvm run` and sandboxes go on from the boot of an earlier VM; nobody is worse off when that cannot be."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from utilityvm import Sandbox, default_options_lcow
from utilityvm.boot.files import BootFiles
from utilityvm.kit.ids import new_guid
from utilityvm.store import boots, templates
from utilityvm.store.layout import Layout
from utilityvm.vm.compose import boot_key

from .once import once
from .running import Done, uvm


@pytest_asyncio.fixture
async def unique(boot_files: BootFiles) -> AsyncIterator[str]:
    """Arguments of a kernel that nobody else's has, so that the templates of its boots are this test's."""
    folder = Layout.of_user().templates
    assert boot_files.folder.is_dir()
    before = set(boots.ids(folder))
    yield f"test={new_guid()}"
    for made in set(boots.ids(folder)) - before:
        templates.remove(folder, made)


def small(unique: str) -> dict[str, object]:
    return {"memory_size_in_mb": 256, "processor_count": 1, "kernel_boot_options": unique}


async def template_of(unique: str) -> str:
    """Return the id of the template that this process's sandboxes make."""
    return boots.id_of(await boot_key(default_options_lcow(**small(unique))))


async def spans_of_run(unique: str, folder: Path, *flags: str, words: tuple[str, ...] = ("true",)) -> set[str]:
    """Run `uvm run` with a small VM; return the names of what it measured."""
    file = folder / "spans.json"
    size = ("--memory-size-in-mb", "256", "--processor-count", "1", "--kernel-boot-options", unique)
    assert await uvm("run", *size, "--timeline-json", str(file), *flags, "busybox", *words) == Done(0, b"", b"")
    return {span["name"] for span in json.loads(file.read_text())}


async def test_the_second_run_does_not_boot_unless_it_is_told_to(unique: str, tmp_path: Path) -> None:
    assert {"template.make", "template.clone", "boot.kernel"} <= await spans_of_run(unique, tmp_path)
    second = await spans_of_run(unique, tmp_path)
    assert "template.clone" in second
    assert not {"template.make", "boot.kernel"} & second
    plain = await spans_of_run(unique, tmp_path, "--no-template")
    assert "boot.kernel" in plain
    assert "template.clone" not in plain


async def test_a_sandbox_goes_on_from_a_boot_unless_it_is_told_not_to(unique: str) -> None:
    for template in (True, True, False):
        async with Sandbox("busybox", options=small(unique), template=template) as box:
            assert (await box.run("echo", "hi")).text == "hi\n"
            assert box.vm.options.is_clone is template


@pytest.mark.once
async def test_of_sandboxes_that_are_opened_at_once_one_makes_the_template_and_all_open(unique: str) -> None:
    async def cloned() -> bool:
        async with Sandbox("busybox", options=small(unique)) as box:
            assert (await box.run("true")).exit_code == 0
            return box.vm.options.is_clone

    async with asyncio.TaskGroup() as group:
        boxes = [group.create_task(cloned()) for _ in range(3)]
    assert sorted(task.result() for task in boxes) == [False, False, True]
    assert await cloned()


@pytest.mark.parametrize("broken", ["memory", *once("state")])
async def test_a_template_that_is_broken_on_the_disk_is_no_error_of_anybodys(unique: str, broken: str) -> None:
    async with Sandbox("busybox", options=small(unique)):
        pass
    folder = Layout.of_user().templates / await template_of(unique)
    (folder / broken).chmod(0o600)
    os.truncate(folder / broken, 4096)
    async with Sandbox("busybox", options=small(unique)) as box:
        assert (await box.run("echo", "hi")).text == "hi\n"
    async with Sandbox("busybox", options=small(unique)) as box:
        assert box.vm.options.is_clone


@pytest.mark.once
async def test_memory_that_is_not_as_it_was_saved_is_found_out_when_nothing_goes_on_from_it(
    unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utilityvm.templates.boots.CLONE_WITHIN", 3.0)
    async with Sandbox("busybox", options=small(unique)):
        pass
    memory = Layout.of_user().templates / await template_of(unique) / "memory"
    size = memory.stat().st_size
    memory.chmod(0o600)
    os.truncate(memory, 0)
    os.truncate(memory, size)
    async with Sandbox("busybox", options=small(unique)) as box:
        assert (await box.run("echo", "hi")).text == "hi\n"
        assert not box.vm.options.is_clone
    assert not memory.exists()


@pytest.mark.once
async def test_the_users_command_is_told_nothing_of_templates_but_its_own(unique: str, tmp_path: Path) -> None:
    size = ("--memory-size-in-mb", "256", "--processor-count", "1", "--kernel-boot-options", unique)
    for _ in range(2):
        done = await uvm("run", *size, "-v", f"{tmp_path}:/x:ro", "--name", "mine", "--hostname", "box", "busybox", "hostname")
        assert done == Done(0, b"box\n", b"")
