"""One utility VM: its states, its guest connection, its processes, its end.

Semantics: the original's `internal/uvm` create, start, wait, terminate and close, without their hangs. `compose` makes it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Any, Final, Self, final

from msgspec.structs import replace

from utilityvm.compute.containers import InGuest
from utilityvm.compute.modify import in_two_halves
from utilityvm.compute.ports import ExitHow, ExitStatus, JailStatus, Machine, MachineStatistics
from utilityvm.containers.container import Container, OfVm
from utilityvm.containers.scratch import SCRATCH_SIZE
from utilityvm.containers.table import Asked, Containers, FilePath
from utilityvm.devices import resources
from utilityvm.devices.layers import Layers
from utilityvm.devices.network import Network
from utilityvm.devices.nics import knows_namespaces
from utilityvm.devices.pipes import Pipes
from utilityvm.devices.plan9 import Plan9, SharedFolder
from utilityvm.devices.ports import HostSide, Owner
from utilityvm.devices.scsi import Scsi
from utilityvm.devices.share import share
from utilityvm.devices.tables import tables
from utilityvm.devices.vpci import VPci
from utilityvm.devices.vpmem import VPMem
from utilityvm.devices.vsmb import SmbShare, Vsmb
from utilityvm.guest.boot_times import BootTold, tell_boot
from utilityvm.guest.collect import OUTPUT_LIMIT, Completed, run_process
from utilityvm.guest.connection import GuestConnection
from utilityvm.guest.logs import OutputHandler
from utilityvm.guest.process import Process
from utilityvm.guest.spec import ProcessSpec, check_bounds
from utilityvm.guest.transport import GuestStream, Listener
from utilityvm.kit.aio import finish
from utilityvm.kit.errors import DeadlineExceeded, HostError, StateError, Unsupported, UtilityVMError
from utilityvm.kit.ids import RuntimeId, VmId
from utilityvm.kit.lifecycle import Life
from utilityvm.kit.trace import event, span
from utilityvm.network.uplink import TapUplink, UserUplink
from utilityvm.options.lcow import OptionsLCOW, TemplateConfig
from utilityvm.options.network import NetworkWish
from utilityvm.options.wcow import OptionsWCOW, TemplateConfigWCOW
from utilityvm.plan.lcow import LcowPlan
from utilityvm.plan.wcow import WcowPlan
from utilityvm.schema.container import HostedSystem
from utilityvm.schema.devices import HvSocketServiceConfig, NetworkAdapter
from utilityvm.schema.properties import Properties, PropertyType, property_types
from utilityvm.schema.requests import ModifySettingRequest, ProcessorLimits
from utilityvm.vm import by_id, detached, guest_ports, saving, shares
from utilityvm.vm.end import End
from utilityvm.vm.failed_start import Phase, start_failure
from utilityvm.vm.fork import Bear, Forked, Wish, barren, fork
from utilityvm.vm.given import Given
from utilityvm.vm.life import LIFE, OVER, Do, State, check_loop
from utilityvm.vm.link import NO_LINKS, Adapters, Links, close_machine, join, leave, open_link
from utilityvm.vm.processes import spec_of
from utilityvm.vm.uplinks import Uplinks
from utilityvm.wire import gcs
from utilityvm.wire.detached import DetachedProcess
from utilityvm.wire.oci import Spec

START_TIMEOUT: Final = 120.0
"""Seconds from `start` to a negotiated guest connection."""

CLEANUP_TIMEOUT: Final = 15.0
"""Seconds that ending a VM may take, whatever it is doing."""

DRAIN_TIMEOUT: Final = 2.0
"""Seconds that the log stream's handler has after the VM's end."""


@final
class UtilityVM:
    """A utility VM. Use it as an async context: it is closed whatever happens.

    `id` is the caller's name for it, `runtime_id` the GUID of its partition; `options` are what was
    asked for, `plan` what was made of them. What it is given while it runs is in tables: `scsi` (disks), `vpmem` (images on persistent
    memory), `layers` (images on either), `plan9` and `vsmb` (folders, for Linux and for Windows guests), `vpci` (devices of the host),
    `pipes`, and `network` (namespaces and adapters). `uplink` is its own network, as it was wanted: its published ports, what was refused
    to the guest, and what it may reach from now on. `uplinks` are more networks that it was given.
    """

    id: VmId
    owner: str
    options: OptionsLCOW | OptionsWCOW
    plan: LcowPlan | WcowPlan
    scsi: Scsi
    vpmem: VPMem
    layers: Layers
    plan9: Plan9
    vsmb: Vsmb
    vpci: VPci
    pipes: Pipes
    network: Network
    uplink: UserUplink | TapUplink | None
    uplinks: Uplinks

    def __init__(
        self,
        vm_id: VmId,
        options: OptionsLCOW | OptionsWCOW,
        plan: LcowPlan | WcowPlan,
        system: Machine,
        listeners: Mapping[int, Listener],
        output_handler: OutputHandler,
        host: HostSide,
        links: Links = NO_LINKS,
        *,
        bear: Bear = barren,
        wakes: bool = False,
    ) -> None:
        self.id, self.owner, self.options, self.plan = vm_id, options.owner, options, plan
        self._system, self._listeners, self._output_handler = system, dict(listeners), output_handler
        self._links, self.uplink, self._bear, self._wakes = links, links.uplink, bear, wakes
        self._ours, self._life, self._switching = False, Life(f"vm {vm_id}", LIFE, State.CREATED), asyncio.Lock()
        self._end = End(vm_id, system, self._life, self._switching)
        self._hosted, self._bridge_port = guest_ports.way_to_guest(plan)
        self._guest: GuestConnection | None = None
        self._output: asyncio.Task[None] | None = None
        knows = partial(knows_namespaces, self.properties)
        self._devices = Owner(vm_id, self.os == "windows", options.fully_physically_backed, host, self.modify, knows)
        self._tables = tables(self._devices, plan, system.inherited)
        self.scsi, self.vpmem, self.layers, self.plan9, self.vsmb, self.vpci, self.pipes, self.network = self._tables
        self.uplinks = Uplinks(vm_id, self.network, system.offer, lambda: self._step(Do.USE))
        self._containers = Containers(self._as_host(), self._devices, self._tables, options, system.inherited.containers)
        self._given = Given(self._tables, self._containers)

    # -- what it is -------------------------------------------------------------------------------------------------

    is_oci: Final = False
    """Processes of the VM itself take HCS process parameters, not an OCI process."""

    @property
    def os(self) -> str:
        """The guest's operating system: ``linux`` or ``windows``."""
        return "windows" if isinstance(self.plan, WcowPlan) else "linux"

    @property
    def runtime_id(self) -> RuntimeId:
        """GUID of the partition; addresses of guest sockets use it."""
        return self._system.runtime_id

    @property
    def state(self) -> State:
        """Where the VM is in its life."""
        return self._life.state

    @property
    def jail(self) -> JailStatus:
        """What keeps the VM's hypervisor from this host, and what does not, with the reasons."""
        return self._system.jail

    @property
    def processor_count(self) -> int:
        """Virtual processors, after lowering to what the host has."""
        return self.plan.processor_count

    @property
    def physically_backed(self) -> bool:
        """Whether all memory is backed by physical memory from the start."""
        return not self.options.allow_overcommit

    @property
    def devices_physically_backed(self) -> bool:
        """Whether devices' memory is, too."""
        return self.options.fully_physically_backed

    @property
    def exit_error(self) -> UtilityVMError | None:
        """Why the VM ended, None when it ended as it should: by its own power-off, `terminate` or `close`.

        Raises:
            StateError: it has not ended.
        """
        self._life.step(Do.EXIT_ERROR)
        return self._end.error

    # -- what it does -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the VM; returns when its guest agent answers (or, without a guest connection, once the VM runs).

        Raises:
            StateError: it was started before.
            HostError: the VM ended meanwhile; the message has its console's last lines.
            DeadlineExceeded: it was not ready within `START_TIMEOUT`; it has been ended.
        """
        self._step(Do.START)
        waiting_for = Phase(f"vm {self.id}", START_TIMEOUT, self.options.memory_size_in_mb)
        try:
            with span("vm.start", vm=self.id):
                async with asyncio.timeout(START_TIMEOUT):
                    await self._start(waiting_for)
        except BaseException as error:
            with suppress(UtilityVMError):  # why the start failed says more
                await self._finish(self._end.after_failed_start(error))
            status, tail = self._end.exit.result() if self._end.exit.done() else None, self._system.console_tail()
            if (failure := start_failure(error, waiting_for, fault=self._end.fault, status=status, console=tail)) is not None:
                raise failure from error
            raise
        if self._end.exit.done():  # it ended just now
            raise self.exit_error or HostError(f"vm {self.id}: ended while starting ({self._end.exit.result().how.value})")
        self._life.step(Do.STARTED)
        await join(self._links, Adapters(self.network, self.vpci, self.update_nic), self.terminate)

    async def create_process(
        self,
        argv: Sequence[str] | str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str = "",
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        console_size: tuple[int, int] | None = None,
    ) -> Process:
        """Start a process in the VM.

        `argv` is the program and its arguments. A str is a command line, as HCS has it: the guest splits it into words at blanks, minds
        quotes and backslashes, and expands nothing. For a shell's text run a shell: ``["sh", "-c", "echo $HOME | wc -c"]``. On Windows
        every program has one command line: a str is passed as it is, a list is quoted so that programs make the same list of it again.

        `env` is its whole environment (None: `DEFAULT_ENVIRONMENT`); `user` is ``name``, ``uid``, or either with ``:group`` (empty: root).
        On Windows `env` is added to the guest's own, and `user` is an account's name (empty: the system's). `cwd` None is the root, on
        Windows ``C:\\``.
        Streams that are wanted must be read: a process whose output nobody takes stops when the buffers are full.
        `console_size` (height, width) gives it a terminal, with output and errors together on `stdout`.

        Raises:
            StateError: the VM is not running.
            InvalidOptions: what no guest could start (no program, a zero byte, a bad name in `env`, more than fits into a request);
                nothing was sent.
            GuestError: the program could not be started.
        """
        spec = spec_of(argv, env, cwd, user, windows=self.os == "windows")
        return await self._start_process(replace(spec, stdin=stdin, stdout=stdout, stderr=stderr, console_size=console_size))

    async def run(
        self,
        argv: Sequence[str] | str,
        *,
        input: bytes | None = None,  # noqa: A002 (as in subprocess)
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str = "",
        timeout: float | None = None,
        limit: int = OUTPUT_LIMIT,
    ) -> Completed:
        """Run a program in the VM to its end and return its exit code, output and errors.

        `input` is what it reads (None: nothing, /dev/null); the rest is as in `create_process`. `timeout` is in seconds for all of it
        (None: none), `limit` in bytes for each of output and errors. At either it is killed with its process group, and so it is
        when the caller is cancelled. What it leaves in the background goes on; output that this holds open is given up a second later.

        Raises:
            DeadlineExceeded: it was not done in time; the error has the output so far.
            OutputLimitExceeded: it said more than `limit`; the error has the first `limit` bytes.
            StateError, InvalidOptions, GuestError: as in `create_process`.
        """
        data = b"" if input is None else input
        check_bounds(data, timeout, limit)
        spec = replace(spec_of(argv, env, cwd, user, windows=self.os == "windows"), stdin=input is not None)
        name = f"vm {self.id}: {spec.program}"
        return await run_process(lambda: self._start_process(spec), name, data=data, limit=limit, timeout=timeout)

    async def detached_processes(self) -> tuple[DetachedProcess, ...]:
        """Return the processes that were started in the VM before it was saved, and that can be attached in this clone: those that run, and
        those that have ended since; the lowest id first, at most 128. Those of its containers are among them. A VM that boots has none.

        Raises:
            StateError: the VM is not running.
            Unsupported: it has no guest connection of its own.
            GuestError, ConnectionLost, DeadlineExceeded: the guest does not tell.
        """
        self._step(Do.USE)
        return await detached.processes(self._guest, self.id)

    async def attach_process(self, pid: int, *, stdin: bool = True, stdout: bool = True, stderr: bool = True) -> Process:
        """Take over a process that was started in the VM before it was saved: with its number of then, `Process.pid`, in a clone.

        It goes on where it stood: what it had written and nobody had got comes first on `stdout` and `stderr`, and what it had not read
        it reads before what is written to `stdin`. A stream that is not wanted is given up: its input is at its end, its output is
        dropped. One that the process did not have, or has closed, ends at once; a terminal's errors are on `stdout`. Until it is
        attached, a process that writes more than fits into its pipe stands still. A process is attached once.

        Raises:
            StateError: the VM is not running.
            InvalidOptions: `pid` is no number of a process.
            Unsupported: the guest's agent is another than ours, or the VM has no guest connection of its own; nothing was sent.
            GuestError: there is no such process, or it is not one to be attached (`result`).
            ConnectionLost, DeadlineExceeded: the guest is gone, or does not answer.
        """
        self._step(Do.USE)
        return await detached.attach(self._guest, self.id, pid, stdin=stdin, stdout=stdout, stderr=stderr)

    def listen(self, port: int) -> Listener:
        """Listen for programs in the VM that dial `port` of the host, which for AF_VSOCK is CID 2: each dial is a stream to `accept`.

        A program that dials a port on which nobody listens gets ECONNRESET. The guest's kernel accepts for us: who dials faster than
        `accept` takes finds the stream ended. Close the listener when it is no longer wanted; it ends with the VM.

        Raises:
            InvalidOptions: `port` is none, or the VM itself needs it.
            StateError: the VM has ended.
            Exhausted: the port is listened to already.
        """
        guest_ports.check(port)
        self._step(Do.LISTEN)
        return self._system.listen(port, programs=True)

    async def pause(self) -> None:
        """Let the VM stand still: no processor of it runs, its memory and connections stay. A cancelled call is carried out all the same.

        Raises:
            StateError: it does not run, or is paused.
            HostError, ConnectionLost, DeadlineExceeded: it could not be paused, or it ended.
        """
        with span("machine.pause", level=logging.DEBUG, vm=self.id):
            await self._switch(Do.PAUSE, self._system.pause)

    async def resume(self, *, set_clock: bool = False) -> None:
        """Let a paused VM run on. Calls to its guest that were waiting have the time that they had left.

        A guest that stood still takes the time for that of then. With `set_clock` a Linux guest is told it, and has answered when this
        returns.

        Raises:
            StateError: it is not paused; or `set_clock` and it has no guest connection of its own.
            HostError, ConnectionLost, DeadlineExceeded: as `pause`.
            Unsupported: `set_clock` of a Windows guest; nothing was done.
            GuestError: the VM runs, and its guest does not set its clock.
        """
        self._check_loop(Do.RESUME)
        self._life.check(Do.RESUME)
        if set_clock and self.os == "windows":
            raise Unsupported(f"vm {self.id}: set_clock: a Windows guest takes the time from its host service", hint="resume it without")
        guest = self._connected(Do.RESUME) if set_clock else None
        with span("machine.resume", level=logging.DEBUG, vm=self.id):
            await saving.resume(self._switch(Do.RESUME, self._system.resume), guest)

    async def save_as_template(self) -> TemplateConfig | TemplateConfigWCOW:
        """Save the running VM as a template of its id, for others to go on from. Return what their options have as `template_config`.

        A Linux VM is over then, and `open_template` has the same. On Windows the template is the VM itself, which does nothing else any
        more: its state is ``saved``, and it must be kept open as long as its clones run; these get its folders, and disks of their own.

        The VM was created with `is_template`. Programs that run in it run on in each clone, where their streams stand still until
        `attach_process` asks for them. Clones have the disks, layers and folders that it has been given, each with what is on a disk that
        is written to for itself. A call that fails has changed nothing; a cancelled one is carried out.

        Raises:
            StateError: it does not run; or it is being given something.
            Exists: there is a template of its id.
            Unsupported: it was not created for it; or has what no clone could have, each by its name.
            DeadlineExceeded: its guest did not fall silent, or QEMU does not answer.
            HostError, ConnectionLost: it could not be saved, or it ended.
        """
        self._step(Do.SAVE)
        with span("vm.save", vm=self.id):
            return await finish(self._save(), within=None)

    async def save(self, path: str | PathLike[str]) -> None:
        """Save the running VM to a new file, from which `restore` lets it go on; it is over then.

        The file has what the guest has touched of its memory and of disks that it writes to, and is readable for its owner alone. A call
        that fails has changed nothing and leaves nothing; a cancelled one is carried out.

        Raises:
            StateError: it does not run; or it is being given something.
            Exists: there is something at `path`.
            Unsupported: it has what could not be in the file, each by its name.
            DeadlineExceeded: its guest did not fall silent, or QEMU does not answer.
            HostError, ConnectionLost: it could not be saved, or it ended.
        """
        self._step(Do.SLEEP)
        with span("vm.save", vm=self.id):
            await saving.save(self.id, self.options, self._system, saving.Where(path, self._given), self.wait)

    async def fork(self, count: int = 1, *, forkable: bool = False, network: NetworkWish | None = None) -> Forked:
        """Fork the running VM: `count` children are created that go on from where it is, each on its own, when they are started.

        The VM runs on with its connection and its programs; it stands still for a moment, which is measured. A child is a VM like a
        template's clone: its memory is that of the VM, of which it keeps what it changes, its time, names and random numbers are its
        own, and programs run in it that ran in the VM (`attach_process`, `clone_container`). It can be forked again. `forkable` children
        do that quickly, and share no memory. `network` is what each has; the VM's own adapters are no part of it.

        A call that fails leaves no child, and the VM runs on; so does one that is cancelled, which ends when the VM runs on.

        Raises:
            StateError: it does not run.
            InvalidOptions: `count` is not 1 to `MOST_CHILDREN`; or the network makes no sense.
            Unsupported: the VM has what no child could have, each by its name.
            DeadlineExceeded: its guest did not fall silent, or QEMU does not answer.
            HostError, ConnectionLost: it could not be copied, or it ended.
        """
        self._step(Do.FORK)
        with span("vm.fork", vm=self.id):
            return await fork(self.id, self.options, self._system, self._bear, Wish(count, forkable, network), self._given)

    async def properties(self, *wanted: PropertyType) -> Properties:
        """Say who and in what state the VM is, and what was agreed with its guest; `wanted` is asked of the guest.

        Raises:
            InvalidOptions: what is `wanted` is no property.
            StateError: it is closed; or something is `wanted` while it does not run or has no guest connection.
            GuestError, ConnectionLost, DeadlineExceeded: the guest does not tell.
        """
        asked = property_types(wanted)
        self._step(Do.ASK if asked else Do.PROPERTIES)
        if self._hosted:
            return await self._system.properties(asked)
        told = await self._system.properties()
        return told if self._guest is None and not asked else await self._connected(Do.ASK).add_to(told, asked)

    async def stats(self) -> MachineStatistics:
        """Say what the host spends on the VM, and, while it runs and has a guest connection, what its guest makes of its memory.

        Raises:
            StateError: the VM does not run, and is not paused.
            UtilityVMError: as `compute.ports.Measured.statistics` and, for the guest's part, `properties`.
        """
        self._step(Do.STATISTICS)
        told = await self._system.statistics()
        asked = self._life.state is State.RUNNING and (self._hosted or self._guest is not None)
        return shares.with_guest(told, await self.properties(PropertyType.MEMORY) if asked else None)

    async def get_assigned_memory_in_bytes(self) -> int:
        """Return how much memory the VM has now.

        Raises:
            HostError: the host service says none.
            UtilityVMError: as `stats`.
        """
        self._step(Do.STATISTICS)
        return shares.assigned_bytes(await self._system.statistics(), self.id)

    async def modify(self, request: ModifySettingRequest) -> None:
        """Change a resource of the VM, on the host and, where `request` has a guest request, in the guest.

        What is added is taken back when the guest fails; a removal that fails on the host may be asked for again.

        Raises:
            StateError: the VM is not running.
            Unsupported, InvalidOptions, NotFound, HostError: see `compute.ports.Modifiable.modify`.
            GuestError, ConnectionLost, DeadlineExceeded: the guest's half failed.
        """
        self._step(Do.MODIFY)
        with span("vm.modify", level=logging.DEBUG, vm=self.id):
            guest = self._guest.client.modify if self._guest is not None else None
            await in_two_halves(request, self._system.modify, guest, f"vm {self.id}")

    async def update_cpu_limits(self, limits: ProcessorLimits) -> None:
        """Give the running VM another limit and weight; 0 is none, and the usual one.

        Raises:
            UtilityVMError: as `modify`.
        """
        await self.modify(shares.cpu_limits(limits))

    async def set_cpu_group(self, group_id: str) -> None:
        """Put the running VM into a CPU group. On Hyper-V it must be in none before.

        Raises:
            InvalidOptions: the id is empty.
            NotFound: there is no such group.
            UtilityVMError: as `modify`.
        """
        await self.modify(shares.cpu_group(group_id))

    async def release_cpu_group(self) -> None:
        """Take the running VM out of its CPU group.

        Raises:
            UtilityVMError: as `modify`.
        """
        await shares.release_cpu_group(self.modify, self.id)

    async def update_memory(self, size_in_bytes: int) -> None:
        """Give the running VM so much memory in all, rounded up to an even number of MiB.

        Raises:
            InvalidOptions: less than nothing.
            UtilityVMError: as `modify`.
        """
        await self.modify(shares.memory(size_in_bytes))

    async def share(self, host_path: str, guest_path: str, *, read_only: bool = True) -> SharedFolder | SmbShare:
        """Let the guest have a folder or a file of the host at `guest_path`, by the shares that its system knows.

        A file is shared alone of its folder; a Linux guest has it in the folder `guest_path`. Give it back by `plan9.remove` or
        `vsmb.remove`.

        Raises:
            NotFound: nothing is at `host_path`.
            UtilityVMError: as `Plan9.add`, `Vsmb.add` and `modify`.
        """
        return await share(self._devices, self.plan9, self.vsmb, host_path, guest_path, read_only=read_only)

    async def update_hvsocket_service(self, service_id: str, rules: HvSocketServiceConfig) -> None:
        """Say who may bind and connect to a hvsocket service of the VM; there need not be rules for it yet.

        Raises:
            UtilityVMError: see `modify`.
        """
        await self.modify(resources.hvsocket_service(service_id, rules))

    async def remove_hvsocket_service(self, service_id: str) -> None:
        """Take these rules away.

        Raises:
            UtilityVMError: see `modify`.
        """
        await self.modify(resources.no_hvsocket_service(service_id))

    async def update_nic(self, nic_id: str, adapter: NetworkAdapter) -> None:
        """Change a network adapter of the VM.

        Raises:
            UtilityVMError: see `modify`.
        """
        await self.modify(resources.network_adapter(nic_id, adapter))

    @property
    def capabilities(self) -> gcs.GuestDefinedCapabilities:
        """What the guest's agent can do beyond the base of the protocol; nothing without a connection of the VM's own."""
        return gcs.GuestDefinedCapabilities() if self._guest is None else self._guest.client.capabilities.guest_defined

    async def delete_container_state(self, container_id: str) -> None:
        """Let the guest forget a container that has ended, before its layers and disks are removed.

        Raises:
            Unsupported: the guest is too old for it, or there is no connection to ask by; nothing was sent.
            StateError: the VM does not run.
            GuestError, ConnectionLost, DeadlineExceeded: the guest cannot, e.g. because the container has not ended.
        """
        self._step(Do.MODIFY)
        await by_id.delete_state(self._guest, container_id)

    async def update_container(self, container_id: str, limits: object) -> None:
        """Change a container's limits; `limits` are the resources of its system in the OCI specification (a struct or builtins).

        The original sends a message that no Linux guest has ever known; this is a change of the container's ``ContainerConstraints``.

        Raises:
            Unsupported: there is no connection to ask by.
            StateError: the VM does not run.
            GuestError, ConnectionLost, DeadlineExceeded: the guest cannot.
        """
        self._step(Do.MODIFY)
        await by_id.update(self._guest, container_id, limits, f"vm {self.id}")

    async def dump_stacks(self) -> str:
        """Return what the threads of the guest's agent are doing; ``""`` when there is no connection to ask by, or the agent cannot tell.

        Raises:
            StateError: the VM does not run.
            GuestError, ConnectionLost, DeadlineExceeded: the guest does not tell.
        """
        self._step(Do.DUMP_STACKS)
        return "" if self._guest is None else await self._guest.dump_stacks()

    @property
    def containers(self) -> tuple[Container, ...]:
        """The containers that were created and not deleted, in the order of their creation."""
        return self._containers.there

    async def create_container(
        self,
        container_id: str,
        spec: Spec | Mapping[str, object] | HostedSystem,
        *,
        layers: Sequence[FilePath] = (),
        scratch_size_in_bytes: int | None = SCRATCH_SIZE,
        scratch: Container | FilePath | None = None,
        pod: Container | None = None,
    ) -> Container:
        """Create a container; its first process runs from `Container.start` on. Use it as an async context.

        `spec` is its OCI runtime specification, a struct (`wire.oci.Spec`) or plain builtins. Sources of its mounts are the host's where
        their type is ``bind`` (a folder, or a single file), ``physical-disk``, ``virtual-disk``, or ``volume``: a named one, which is made
        when there is none, of the size that its option ``size=`` says. Others are the guest's, and so is ``sandbox://``.

        `layers` are images of file systems (EROFS, ext4) on the host, the topmost first; their union is the container's root. What it
        writes goes to a new disk of `scratch_size_in_bytes`, which takes of the host what is written to it and goes with the container;
        None: there is none, and the root can only be read. `scratch` takes its place: a disk of yours (a raw image, qcow2, VHDX, with
        ext4 on it), which keeps what is written, or a container whose disk is shared. Without layers the root is the specification's, a
        path in the guest.

        `pod` is a container whose annotation ``io.kubernetes.cri.container-type`` is ``sandbox``: the new one shares its network, IPC and
        host name. A container, or a sandbox, whose specification names a network namespace (``windows.network.networkNamespace``) has the
        adapters that are in that: see `uplinks`.

        `spec` may also be the whole document in the guest's own shape (it has a ``SchemaVersion``), as the original hands it over: it is
        passed on as it is, and layers, disks and mounts are the caller's matter.

        A call that fails or is cancelled leaves nothing.

        Raises:
            StateError: the VM does not run.
            InvalidOptions: `container_id` or `spec` make no sense; `problems` has all of it.
            Unsupported: `spec` has members that no specification of a Linux container has, or is for a guest of another system.
            Exists: the VM has a container of this id; or a volume is another VM's.
            NotFound: a file of the host, or an adapter in the network namespace, is not there.
            Exhausted: there is no place for a disk.
            GuestError: the guest could not make it.
            HostError, ConnectionLost, DeadlineExceeded: host or guest failed.
        """
        self._step(Do.USE)
        with span("container.create", level=logging.DEBUG, vm=self.id):
            return await self._containers.create(container_id, Asked(spec, layers, scratch_size_in_bytes, scratch, pod))

    async def clone_container(self, container_id: str) -> Container:
        """Take over a container that was in the VM before it was saved, in a clone: where it is in its life, with all that it has.

        Its processes go on. Its first one, and those that were run in it, are attached by `Container.attach`; until then their streams
        stand still. What the container is made of, its layers and its disk, is this VM's own; it goes with it, or with the container.

        Raises:
            StateError: the VM does not run; or the container is being taken over.
            NotFound: the VM goes on from none with such a container, or it was taken over.
            Unsupported: the guest's agent is another than ours, or the VM has no guest connection of its own; nothing was sent.
            GuestError, ConnectionLost, DeadlineExceeded: the guest does not tell how the container is.
        """
        self._step(Do.USE)
        return await detached.container(self._guest, self.id, self._containers, container_id)

    async def close_gcs_connection(self) -> None:
        """Give up the guest connection, if the VM has one of its own: the guest runs on, but nothing can be asked of it any more.

        Those who wait for a process get `ConnectionLost`. A VM that is starting fails of it. May be called at any time, and again.
        """
        self._step(Do.CLOSE_GCS)
        if (listener := self._listeners.pop(self._bridge_port, None)) is not None:
            listener.close()
        guest, self._guest = self._guest, None
        if guest is not None:
            await self._finish(guest.aclose())

    async def terminate(self) -> None:
        """End the VM at once, as by pulling the plug, and wait until it has ended. A VM that has ended stays as it is."""
        self._step(Do.TERMINATE)
        if self._life.state is not State.CLOSED:
            await self._finish(self._end.at_once())

    async def wait(self) -> ExitStatus:
        """Wait until the VM has ended and its log stream was read to the end."""
        self._step(Do.WAIT)
        await asyncio.wait([self._end.exit])
        await self._drain()
        return self._end.exit.result()

    async def close(self) -> None:
        """End the VM if it runs and release all that belongs to it. May be called at any time, and again."""
        self._check_loop(Do.CLOSE)
        with span("vm.close", level=logging.DEBUG, vm=self.id):
            await self._finish(self._release())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def _start_process(self, spec: ProcessSpec) -> Process:
        self._step(Do.USE)
        with span("process.start", level=logging.DEBUG, vm=self.id):
            return await self._to_guest().create_process(spec)

    def _as_host(self) -> OfVm:
        """Return what containers need of their VM."""

        async def create(container_id: str, document: object) -> InGuest:
            return await self._to_guest().create_container(container_id, document)

        return OfVm(self.id, lambda: self._step(Do.USE), lambda: self._life.state in OVER, create, lambda: self._ours, self._end.scope)

    def _step(self, do: Do) -> None:
        self._check_loop(do)
        self._life.step(do)

    def _check_loop(self, do: Do) -> None:
        check_loop(self._end.exit.get_loop(), f"vm {self.id}", do)

    # -- starting ---------------------------------------------------------------------------------------------------

    async def _start(self, phase: Phase) -> None:
        await open_link(self._links, self._system, phase)
        with span("machine.start", level=logging.DEBUG) as machine:
            await self._system.start()
        self._end.scope.start("exit", self._end.watch())
        await guest_ports.feed_entropy(self._listeners, phase)
        if (log := await guest_ports.log_stream(self._listeners, phase)) is not None:
            self._output = self._end.scope.start("output", guest_ports.hand_output(self._output_handler, log, self.id))
        told: BootTold | None = None
        if self._hosted:
            phase.now = "the driver to reach the guest agent"
            told = await self._system.connect()
        elif self._bridge_port in self._listeners:
            phase.now = "the guest agent to dial the bridge"
            told = await self._connect(await guest_ports.accept_once(self._listeners, self._bridge_port), phase)
        self._ours = told is not None
        if told is not None and not self.options.is_clone and not tell_boot(told, machine):
            event("boot.clock.strange", level=logging.DEBUG, message="what the guest tells of its boot does not fit into this boot")

    async def _connect(self, stream: GuestStream, phase: Phase) -> BootTold | None:
        """Agree with the guest's agent. A clone's has known its host since it was the template's."""
        phase.now = "the guest agent's answer to the first call"
        cold_start = not self.options.is_clone
        self._guest = await GuestConnection.open(stream, self._system, f"vm {self.id}", self._end.after_loss, cold_start=cold_start)
        await saving.remount(self._guest, self._system, self.plan9, phase)
        await saving.introduce(self._guest, saving.Who(self.id, self.options, self.runtime_id, self._wakes), phase)
        return self._guest.boot

    # -- running ----------------------------------------------------------------------------------------------------

    def _connected(self, do: Do) -> GuestConnection:
        if self._guest is None:
            raise StateError(f"vm {self.id}", "without a guest connection", do.value)
        return self._guest

    def _to_guest(self) -> Machine | GuestConnection:
        """Return who runs programs and makes containers in the guest."""
        return self._system if self._hosted else self._connected(Do.USE)

    async def _switch(self, do: Do, effect: Callable[[], Awaitable[None]]) -> None:
        """Pause or resume, one at a time: the state follows the effect."""
        self._check_loop(do)
        self._life.check(do)

        async def switch() -> None:
            async with self._switching:
                self._life.check(do)
                await effect()
                if self._guest is not None:
                    (self._guest.hold if do is Do.PAUSE else self._guest.release)()
                self._life.step(do)

        await self._finish(switch(), f"could not {do.value}")

    async def _save(self) -> TemplateConfig | TemplateConfigWCOW:
        async with self._switching:
            config, stays = await saving.save_as_template(self.id, self.options, self._system, self._tables, self._given)
            if stays:
                self._life.step(Do.KEEP)
        await (self.close_gcs_connection() if stays else self.wait())
        return config

    # -- ending -----------------------------------------------------------------------------------------------------

    async def _finish(self, work: Coroutine[Any, Any, None], failure: str = "could not be ended") -> None:
        try:
            await finish(work, within=CLEANUP_TIMEOUT)
        except TimeoutError as error:
            raise DeadlineExceeded(f"vm {self.id}: {failure} within {CLEANUP_TIMEOUT:g} s") from error

    async def _drain(self) -> None:
        if self._output is not None:
            await asyncio.wait([self._output], timeout=DRAIN_TIMEOUT)

    async def _release(self) -> None:
        """Let go of all of it, in the order from the last line to the first, whichever of them fails."""
        await leave(self._links)
        settle = self._life.state is State.RUNNING
        self._life.step(Do.CLOSE)
        async with AsyncExitStack() as undo:
            undo.callback(self._end.set, ExitStatus(ExitHow.TERMINATED))  # nothing more will be heard of it
            undo.push_async_callback(self._end.scope.aclose)
            undo.push_async_callback(self._drain)
            undo.push_async_callback(close_machine, self._system, self._links, self.uplinks)
            undo.callback(guest_ports.close_all, self._listeners)
            undo.callback(self._containers.abandon)
            if self._guest is not None:
                undo.push_async_callback(self._guest.aclose)
            if settle and (guest := self._system if self._hosted else self._guest) is not None:
                await self._containers.settle(guest.create_process)
            await self._end.at_once()
