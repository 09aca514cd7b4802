"""The SCSI table against a host that counts: whatever is called, in whatever order, whatever fails."""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from utilityvm.devices.ports import HostSide, Owner, Seen
from utilityvm.devices.scsi import Scsi
from utilityvm.kit.errors import GuestError, HostError, UtilityVMError
from utilityvm.kit.ids import VmId
from utilityvm.options.paths import PathFlavour
from utilityvm.plan.facts import Platform
from utilityvm.schema.devices import Attachment
from utilityvm.schema.requests import ModifySettingRequest

from .fake import no_namespaces

PATHS = st.sampled_from(["/a", "/b", "/c", "/d"])
OUTCOMES = st.sampled_from(["works", "works", "works", "host refuses", "guest refuses", "guest refuses and is not taken back", "half"])
CALLS = st.tuples(st.sampled_from(["add", "add", "remove", "grow", "cancelled add", "cancelled remove"]), PATHS, st.booleans(), OUTCOMES)


class Host:
    """Has disks by place, and refuses a second one at a place, or to take away what is not there."""

    def __init__(self) -> None:
        self.disks: dict[str, str] = {}
        self.mounted: set[str] = set()
        self.outcomes: dict[str, str] = {}

    async def modify(self, request: ModifySettingRequest) -> None:
        place = request.resource_path
        path = request.settings.path if isinstance(request.settings, Attachment) else self.disks[place]
        outcome = self.outcomes.get(path, "works")
        await asyncio.sleep(0)
        if outcome == "host refuses":
            raise HostError("refused")
        if request.request_type == "Add":
            assert place not in self.disks, "two disks at one place"
            self.disks[place] = path
            await asyncio.sleep(0)
            if outcome == "works":
                self.mounted.add(path)
                return
            error = GuestError("refused", call="ModifySettings", result=1)
            error.half_done = outcome != "guest refuses"
            if not error.half_done:
                del self.disks[place]
            raise error
        if request.request_type == "Remove":
            assert (request.guest_request is not None) == (path in self.mounted), "the guest is asked for what it has, and only for that"
            if request.guest_request is not None and outcome.startswith("guest refuses"):
                raise GuestError("in use", call="ModifySettings", result=1)
            self.mounted.discard(path)
            await asyncio.sleep(0)
            if outcome == "half":
                failure = HostError("busy")
                failure.half_done = True
                raise failure
            del self.disks[place]


class Disks(RuleBasedStateMachine):
    """Two controllers' worth of calls on few paths, one after the other or at once."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.host = Host()
        side = HostSide(Platform.QEMU, 20348, PathFlavour.POSIX, lambda _: Seen(folder=False), None)
        owner = Owner(
            VmId("x"),
            windows=False,
            fully_physically_backed=False,
            host=side,
            modify=self.host.modify,
            guest_knows_namespaces=no_namespaces,
        )
        self.scsi = Scsi(owner, 2)
        self.holders = Counter[str]()

    def teardown(self) -> None:
        self.host.outcomes.clear()
        for disk in self.scsi.disks:
            while any(left.host_path == disk.host_path for left in self.scsi.disks):
                self.loop.run_until_complete(self.scsi.remove(disk.host_path))
        assert self.host.disks == {}, "a place leaked"
        self.loop.close()

    @rule(calls=st.lists(CALLS, min_size=1, max_size=4))
    def call(self, calls: list[tuple[str, str, bool, str]]) -> None:
        """Make these calls at once."""
        alone = {path: call for call in calls for path in [call[1]] if call[0] == "cancelled remove"}  # else nobody knows whose it was
        calls = [call for call in calls if alone.get(call[1], call) is call]
        self.host.outcomes = {path: outcome for _, path, _, outcome in calls}

        async def all_of_them() -> None:
            async with asyncio.TaskGroup() as group:
                for what, path, read_only, _ in calls:
                    group.create_task(self._one(what, path, read_only=read_only))

        self.loop.run_until_complete(all_of_them())

    async def _one(self, what: str, path: str, *, read_only: bool) -> None:
        kind = what.rsplit(maxsplit=1)[-1]
        if kind == "remove" and not self.holders[path]:
            return  # only who has a disk gives it back
        if kind == "remove":
            self.holders[path] -= 1
        call = {"add": self.scsi.add, "remove": self.scsi.remove, "grow": self.scsi.grow}[kind]
        named: dict[str, Any] = {"guest_path": f"/mnt{path}", "read_only": read_only} if kind == "add" else {}
        task = asyncio.ensure_future(call(path, **named))  # type: ignore[operator]  # noqa: TID251 (awaited here)
        if what.startswith("cancelled"):
            await asyncio.sleep(0)
            task.cancel()
        done = False
        with suppress(UtilityVMError, asyncio.CancelledError):
            await task
            done = True
        if kind == "add" and done:
            self.holders[path] += 1
        if kind == "remove" and not done and self._has(path):
            self.holders[path] += 1

    def _has(self, path: str) -> bool:
        disk = next((one for one in self.scsi.disks if one.host_path == path), None)
        return disk is not None and disk.references > self.holders[path]

    @invariant()
    def the_table_is_what_the_host_has(self) -> None:
        """Every disk of the host has its place in the table, no place is there twice, no count is below what was promised."""
        table = {f"VirtualMachine/Devices/Scsi/{disk.controller}/Attachments/{disk.lun}": disk.host_path for disk in self.scsi.disks}
        assert len(table) == len(self.scsi.disks)
        assert table == self.host.disks
        for disk in self.scsi.disks:
            assert disk.state in {"attached", "half detached"}
            assert disk.references == self.holders[disk.host_path]
            assert (disk.state == "attached") == (disk.host_path in self.host.mounted)


TestDisks = Disks.TestCase
TestDisks.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
