"""Templates that are made by themselves, over a compute service without a hypervisor: which VM goes on from what, and when none does."""

import asyncio
import logging
import os
import shutil
from collections import namedtuple
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.unit.vm.fake import FACTS, service
from tests.unit.vm.proxy import Played
from utilityvm.kit.errors import HostError, NotFound, UtilityVMError
from utilityvm.kit.files import FileLock
from utilityvm.kit.ids import VmId
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.network import NetworkWish
from utilityvm.options.rules import verify_bounds
from utilityvm.store import boots as store
from utilityvm.store import templates
from utilityvm.store.layout import Layout
from utilityvm.templates import boots
from utilityvm.templates.boots import BootTemplates
from utilityvm.testing.compute import FakeComputeService
from utilityvm.testing.guest import FakeGuest
from utilityvm.vm.compose import create_planned
from utilityvm.vm.uvm import UtilityVM
from utilityvm.wire.ncproxy import RegisterComputeAgent

OPTIONS = OptionsLCOW(boot_files_path="/boot", id="mine")
KEY = "0123456789abcdef" * 2
TEMPLATE = store.id_of(KEY)
Space = namedtuple("Space", "total used free")  # noqa: PYI024 (as shutil's)


@dataclass
class World:
    """A host with a fake service: `asked` are the options of the VMs that were created; a clone fails of `clone_fails`."""

    layout: Layout
    of: FakeComputeService
    guests: list[FakeGuest]
    key_fails: UtilityVMError | None = None
    clone_fails: UtilityVMError | None = None
    before: Callable[[OptionsLCOW], None] = lambda _: None
    asked: list[OptionsLCOW] = field(default_factory=list)

    async def key(self, options: OptionsLCOW) -> str:
        """See `Vms.key`."""
        assert not options.is_clone
        if self.key_fails is not None:
            raise self.key_fails
        return KEY

    async def create(self, options: OptionsLCOW, network: NetworkWish | None) -> UtilityVM:
        """See `Vms.create`."""
        assert network is None
        self.asked.append(options)
        verify_bounds(options)
        self.before(options)
        if options.is_clone and self.clone_fails is not None:
            raise self.clone_fails
        return await create_planned(options, VmId(options.id), FACTS, self.of)

    @property
    def kinds(self) -> str:
        """What was created: templates, clones and VMs that boot for their user."""
        return " ".join("template" if one.is_template else "clone" if one.is_clone else "boot" for one in self.asked)

    @asynccontextmanager
    async def started(self, options: OptionsLCOW = OPTIONS) -> AsyncIterator[UtilityVM]:
        """Start a VM as `uvm run` does."""
        async with AsyncExitStack() as undo:
            vm = await BootTemplates(self.layout, self).start(undo, options)
            assert vm.state == "running"
            yield vm

    async def start(self, options: OptionsLCOW = OPTIONS) -> str:
        """Start a VM and end it; return what was created for it."""
        self.asked.clear()
        async with self.started(options) as vm:
            assert vm.id == options.id
        return self.kinds


@pytest.fixture
def world(tmp_path: Path) -> World:
    of, guests = service(ours=True)
    layout = Layout(tmp_path / "state", tmp_path / "cache", tmp_path / "boot")
    of.templates = layout.templates
    return World(layout, of, guests)


async def test_the_first_makes_the_template_and_goes_on_from_it_and_so_do_all_later_ones(world: World) -> None:
    assert await world.start() == "template clone"
    assert await world.start() == "clone"
    assert await world.start(replace(OPTIONS, id="other")) == "clone"
    assert store.ids(world.layout.templates) == (TEMPLATE,)


async def test_the_drivers_that_containers_need_are_in_the_template(world: World) -> None:
    await world.start()
    assert [request for _, request in world.guests[0].modified] == [{"RequestType": "Add", "ResourceType": "Drivers"}]


async def test_a_clone_has_its_users_options_and_the_templates(world: World) -> None:
    await world.start()
    template, clone = world.asked
    assert replace(template, id="mine", is_template=False) == OPTIONS
    assert clone.template_config is not None
    assert clone.template_config.uvm_id == template.id == TEMPLATE
    assert clone.template_config.create_options == template


async def test_a_proxy_of_the_network_hears_of_the_clones_and_of_no_template(world: World) -> None:
    played = Played()
    async with played.served() as address:
        assert await world.start(replace(OPTIONS, network_config_proxy=address)) == "template clone"
        template, clone = world.asked
        assert (template.network_config_proxy, clone.network_config_proxy) == ("", address)
        assert await world.start(OPTIONS) == "clone"
    assert [asked.container_id for asked in played.asked if isinstance(asked, RegisterComputeAgent)] == [OPTIONS.id]


async def test_a_vm_that_is_forked_goes_on_from_the_template_of_those_that_are_not(world: World) -> None:
    assert await world.start() == "template clone"
    assert await world.start(replace(OPTIONS, forkable=True)) == "clone"
    assert [asked.forkable for asked in world.asked] == [True]


async def test_who_comes_while_it_is_made_boots_and_does_not_wait(world: World) -> None:
    world.layout.state.mkdir()
    with FileLock(world.layout.templates_lock):
        assert await world.start() == "boot"
    assert await world.start() == "template clone"


async def test_of_two_at_once_one_makes_the_template(world: World) -> None:
    async with asyncio.TaskGroup() as group:
        for name in ("a", "b"):
            group.create_task(_hold(world, name))
    assert sorted(world.kinds.split()) == ["boot", "clone", "template"]


async def _hold(world: World, name: str) -> None:
    async with world.started(replace(OPTIONS, id=name)):
        pass


async def test_what_cannot_be_told_by_a_key_boots(world: World) -> None:
    world.key_fails = NotFound("no such kernel")
    assert await world.start() == "boot"


async def test_options_that_speak_of_templates_are_left_alone(world: World) -> None:
    assert await world.start(replace(OPTIONS, is_template=True)) == "template"
    assert store.ids(world.layout.templates) == ()


async def test_what_cannot_be_a_template_boots_and_says_why_to_those_who_look(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "utilityvm")
    assert await world.start(replace(OPTIONS, enable_cold_discard_hint=True)) == "template boot"
    assert [
        record for record in caplog.records if record.message.startswith("template.none ") and "enable_cold_discard_hint" in record.message
    ]
    assert all(record.levelno < logging.WARNING for record in caplog.records)


async def test_a_folder_that_cannot_be_written_to_costs_nothing(world: World) -> None:
    world.layout.state.write_text("not a folder")
    assert await world.start() == "boot"


async def test_none_is_made_where_the_disk_is_nearly_full(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Space(0, 0, store.BUDGET - 1))
    assert await world.start() == "boot"


async def test_when_one_is_made_those_used_longest_ago_go_until_all_are_within_the_budget(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget, evict = 1 << 20, store.evict
    monkeypatch.setattr(store, "evict", lambda folder: evict(folder, budget))
    for used, digit in enumerate("ab"):
        folder = world.layout.templates / store.id_of(digit * 32)
        folder.mkdir(parents=True)
        (folder / "memory").write_bytes(bytes(budget // 2))
        os.utime(folder, (used, used))
    assert await world.start() == "template clone"
    assert store.ids(world.layout.templates) == (store.id_of("b" * 32), TEMPLATE)


async def test_a_boot_that_fails_for_the_template_is_not_tried_for_it_again_within_the_hour(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.of.start_fails = HostError("no boot today")
    with pytest.raises(HostError, match="no boot today"):
        await world.start()
    assert world.kinds == "template boot"
    world.of.start_fails = None
    assert await world.start() == "boot"
    monkeypatch.setattr(boots, "AGAIN_AFTER", 0.0)
    assert await world.start() == "template clone"


async def test_a_template_of_which_no_vm_can_be_made_is_thrown_away_and_its_user_gets_one_that_booted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.start()
    world.clone_fails = HostError("QEMU cannot read it")
    assert await world.start() == "clone boot"
    assert store.ids(world.layout.templates) == ()
    assert await world.start() == "boot"
    world.clone_fails = None
    monkeypatch.setattr(boots, "AGAIN_AFTER", 0.0)
    assert await world.start() == "template clone"


async def test_a_vm_that_does_not_go_on_in_time_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.start()
    monkeypatch.setattr(boots, "CLONE_WITHIN", 0.0)
    assert await world.start() in {"boot", "clone boot"}
    assert store.ids(world.layout.templates) == ()


async def test_when_nothing_starts_the_template_is_not_to_blame(world: World) -> None:
    await world.start()
    world.of.start_fails = HostError("no boot today")
    with pytest.raises(HostError, match="no boot today"):
        await world.start()
    world.of.start_fails = None
    assert await world.start() == "clone"


async def test_a_broken_template_is_made_again(world: World) -> None:
    await world.start()
    (world.layout.templates / TEMPLATE / "manifest.json").write_text("{")
    assert await world.start() == "template clone"


async def test_a_template_that_goes_meanwhile_is_no_failure_and_made_again(world: World) -> None:
    await world.start()

    def gone(options: OptionsLCOW) -> None:
        if options.is_clone:
            templates.remove(world.layout.templates, TEMPLATE)
            raise NotFound("it has gone")

    world.before = gone
    assert await world.start() == "clone boot"
    world.before = lambda _: None
    assert await world.start() == "template clone"


async def test_what_a_template_is_made_with_is_nobodys_news(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "utilityvm")
    await world.start()
    assert not [record for record in caplog.records if TEMPLATE in record.getMessage()]


async def test_a_mistake_is_told_as_without_templates(world: World) -> None:
    with pytest.raises(NotFound, match="/boot/none"):
        await world.start(replace(OPTIONS, kernel_file="none"))
    assert world.kinds == "template boot"
