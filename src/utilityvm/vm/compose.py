"""Wires everything together: options and the host's facts become a plan, the plan a compute system, that a `UtilityVM`.

The one place that knows which driver this host has; only that one is loaded.
"""

import asyncio
import hashlib
import logging
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from utilityvm.boot.files import BUILD_HINT, MANIFEST, load
from utilityvm.compute.ports import ComputeService, Frozen, Grants, HostFiles, Machine
from utilityvm.compute.qemu.facts import Accel
from utilityvm.compute.qemu.jail import hint
from utilityvm.compute.qemu.origin import Memories
from utilityvm.compute.qemu.records import depends_on
from utilityvm.compute.qemu.service import QemuService
from utilityvm.compute.qemu.snapshot import Snapshot
from utilityvm.devices.ports import HostSide, Look
from utilityvm.guest.logs import OutputHandler, forward_to_logging
from utilityvm.guest.transport import Listener
from utilityvm.kit.aio import finish
from utilityvm.kit.errors import HostError, InvalidOptions, NotFound, Unsupported
from utilityvm.kit.files import identity
from utilityvm.kit.ids import VmId, new_guid, parse_vm_id
from utilityvm.kit.trace import event, span
from utilityvm.network.uplink import Uplink, uplink_of
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.network import NetworkWish
from utilityvm.options.paths import PathFlavour
from utilityvm.options.rules import refuse_not_built, verify_bounds
from utilityvm.options.shared import Options
from utilityvm.options.wcow import OptionsWCOW
from utilityvm.plan.facts import Answered, Counted, Facts, Platform, Refused
from utilityvm.plan.lcow import BootFilePaths, LcowPlan, boot_file_paths, plan_lcow
from utilityvm.plan.wcow import WcowPlan, locate, paths_looked_at, plan_wcow
from utilityvm.store.layout import Layout
from utilityvm.store.sleepers import Sleeper
from utilityvm.store.templates import VERSION, Manifest
from utilityvm.vm.adjusted import warn
from utilityvm.vm.fork import going_on
from utilityvm.vm.host_options import default_options_lcow, is_there
from utilityvm.vm.link import Links
from utilityvm.vm.look import look
from utilityvm.vm.node import UNIX, Node, windows
from utilityvm.vm.prepare import carry_out
from utilityvm.vm.uvm import UtilityVM

if TYPE_CHECKING:
    from utilityvm.compute.hcs.service import HcsService
    from utilityvm.vm.proxied import ProxiedNetwork

_MEMORIES: Final = Memories()  # of the templates that this process makes clones of: each is there once


async def create_lcow(
    options: OptionsLCOW | None = None,
    *,
    output_handler: OutputHandler | None = None,
    require_kvm: bool = False,
    require_jail: bool = False,
    network: NetworkWish | None = None,
) -> UtilityVM:
    """Create a utility VM with a Linux guest; nothing runs yet.

    `options` None are the defaults of this host. `output_handler` reads the guest's log stream (None: it goes to `logging`, as
    ``utilityvm.guest``). `require_kvm` refuses to fall back to software emulation, `require_jail` to go
    without a layer of the jail around the hypervisor; `UtilityVM.jail` has the layers. `network` is what the VM itself has (None: nothing
    but its loopback); it is made and set up by `start`.

    Raises:
        InvalidOptions: the options contradict each other or the host; `problems` has all of it.
        Unsupported: an option that is not carried out on this host, by name; no QEMU; or no working KVM, or not all of the jail,
            although required.
        NotFound, Corrupt: the boot files are not there, or not as they were built.
    """
    if options is None:
        options = default_options_lcow()
    if not isinstance(options, OptionsLCOW):
        said = f"options are of the type {type(options).__name__}, not OptionsLCOW"
        raise InvalidOptions(said, hint="utilityvm.default_options_lcow(NAME=VALUE, ...) makes them")
    if network is not None and not options.use_guest_connection:
        raise InvalidOptions("a network is set up over the guest connection, and use_guest_connection is false")
    if network is not None and options.network_config_proxy:
        raise InvalidOptions("network and network_config_proxy: the VM's network is the one's or the other's", hint="leave one of them out")
    if sys.platform == "win32":
        if network is not None:
            raise Unsupported("network: on Windows a VM's adapters are on endpoints of its host network service: see `vm.network`")
        if require_jail:
            raise Unsupported(
                "a jail is required, and there is none around the host service's VMs: their worker processes are Windows' own"
            )
        from utilityvm.compute.hcs.files import WindowsFiles
        from utilityvm.compute.hcs.service import HcsService

        return await create_lcow_on_hcs(options, HcsService(), WindowsFiles(), sys.getwindowsversion().build, output_handler)
    return await _create_on_qemu(options, output_handler, network, require_kvm=require_kvm, require_jail=require_jail)


async def restore(
    path: str | PathLike[str],
    *,
    output_handler: OutputHandler | None = None,
    require_kvm: bool = False,
    require_jail: bool = False,
    network: NetworkWish | None = None,
) -> UtilityVM:
    """Create the VM that `UtilityVM.save` has written to a file; when it is started it goes on from there.

    It is the same VM, with its id, its names, its programs (`attach_process`) and its containers (`clone_container`). Before `start`
    returns its clock is set and its kernel has new random numbers. The file stays, and as long as the VM is there no other goes on from
    it. The rest is as in `create_lcow`.

    Restore only files of people whose programs you would run: QEMU reads what they have written.

    Raises:
        NotFound: there is no such file.
        Corrupt: it is none of a saved VM, or not as it was written.
        StateError: the VM goes on from it already.
        Unsupported: it was made with another QEMU, acceleration, kernel or agent; the text says which. Or another version of this package
            wrote it; or this host is not Linux.
        HostError: it cannot be read.
        UtilityVMError: as `create_lcow`.
    """
    if sys.platform == "win32":
        from utilityvm.compute.hcs.machine import NO_FILES

        raise Unsupported(NO_FILES)
    with ExitStack() as held:
        saved, snapshot = await finish(asyncio.to_thread(_woken, held, Path(path)), within=None)
        options = msgspec.structs.replace(going_on(saved.options), id=saved.id)
        return await _create_on_qemu(
            options, output_handler, network, require_kvm=require_kvm, require_jail=require_jail, frozen=snapshot, wakes=True
        )


def _woken(held: ExitStack, path: Path) -> tuple[Manifest, Snapshot]:
    sleeper = held.enter_context(closing(Sleeper(path)))
    return sleeper.manifest, held.enter_context(closing(Snapshot.of_sleeper(sleeper, Layout.of_user().scratch)))


async def _create_on_qemu(
    options: OptionsLCOW,
    output_handler: OutputHandler | None,
    network: NetworkWish | None,
    *,
    require_kvm: bool,
    require_jail: bool,
    frozen: Frozen | None = None,
    wakes: bool = False,
) -> UtilityVM:
    verify_bounds(options)
    refuse_not_built(options)
    vm_id = parse_vm_id(options.id) if options.id else VmId(new_guid())
    service = QemuService(memories=_MEMORIES)
    with span("vm.create", level=logging.DEBUG, vm=vm_id):
        with span("host.probe", level=logging.DEBUG):
            facts = await _host_facts(options, vm_id, service, require_kvm=require_kvm, require_jail=require_jail)
        uplink = None if network is None else uplink_of(vm_id, network)
        return await create_planned(options, vm_id, facts, service, output_handler, uplink=uplink, frozen=frozen, wakes=wakes)


async def boot_key(options: OptionsLCOW) -> str:
    """Return 32 hexadecimal digits that name all that a boot with these options depends on here: the options but for the VM's id, the
    files that it boots from, QEMU, the processor where the guest sees it, and this package.

    Raises:
        Unsupported: this host has no QEMU that VMs are made with.
        NotFound: there is no such kernel.
    """
    if sys.platform == "win32":
        raise Unsupported("a VM of the host service boots by itself")
    from utilityvm import __version__

    paths = boot_file_paths(options, Platform.QEMU, PathFlavour.POSIX)
    if not is_there(paths.kernel):
        raise NotFound(f"{paths.kernel}: no such kernel")
    host = await QemuService(memories=_MEMORIES).probe(Path(paths.kernel))
    of_all = msgspec.structs.replace(options, id="")
    words = (
        __version__,
        str(VERSION),
        msgspec.json.encode(of_all).decode(),
        *map(identity, map(Path, sorted(paths.all))),
        *depends_on(host),
    )
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:32]


async def create_planned(
    options: OptionsLCOW,
    vm_id: VmId,
    facts: Facts,
    service: ComputeService,
    output_handler: OutputHandler | None = None,
    grants: Grants | None = None,
    looking: Look = look,
    layout: Callable[[], Layout] = Layout.of_user,
    *,
    uplink: Uplink | None = None,
    node: Node = UNIX,
    frozen: Frozen | None = None,
    wakes: bool = False,
) -> UtilityVM:
    """Plan and create with facts and a service that are given; what `create_lcow` does on a real host.

    `grants` lets the VM open files where it opens them itself, `looking` looks at what it is given while it runs, `layout` says where
    disks of its containers are made, `uplink` is its network, `node` is where a proxy of the host's network is found; `frozen` is what
    it goes on from where its options say that it is a clone (None: a template), and `wakes` that it goes on as the same VM.

    Raises:
        UtilityVMError: as `create_lcow`, but for the bounds on single options, which belong to the doors.
    """
    try:
        with span("vm.plan", level=logging.DEBUG, vm=vm_id):
            plan = plan_lcow(options, facts, vm_id=vm_id, warn=warn)
    except NotFound as error:
        error.hint = error.hint or BUILD_HINT
        raise

    async def bear(of_child: OptionsLCOW, parent: Frozen, network: NetworkWish | None) -> UtilityVM:
        child = VmId(new_guid())
        its_own = None if network is None else uplink_of(child, network)
        return await create_planned(
            of_child, child, facts, service, output_handler, grants, looking, layout, uplink=its_own, node=node, frozen=parent
        )

    system, listeners = await _create(vm_id, plan, service, savable=options.is_template, forkable=options.forkable, frozen=frozen)
    proxy = await _proxied(options, vm_id, system, node)
    host, links = HostSide(facts.platform, facts.build, facts.path_flavour, looking, grants, layout), Links(uplink, proxy)
    return UtilityVM(
        vm_id, options, plan, system, listeners, output_handler or forward_to_logging(vm_id), host, links, bear=bear, wakes=wakes
    )


async def create_wcow(options: OptionsWCOW) -> UtilityVM:
    """Create a utility VM with a Windows guest; nothing runs yet.

    Raises:
        Unsupported: this host is not Windows, whose Host Compute Service alone runs such a VM; nothing was created.
        UtilityVMError: as `create_planned_wcow`.
    """
    if sys.platform == "win32":
        from utilityvm.compute.hcs.files import WindowsFiles
        from utilityvm.compute.hcs.service import HcsService

        return await create_wcow_on_hcs(options, HcsService(), WindowsFiles(), sys.getwindowsversion().build)
    lacks = f"Windows and its Host Compute Service (HCS), and this host is {sys.platform}"
    message = f"vm {options.id or '(new)'}: a VM with a Windows guest needs {lacks}"
    raise Unsupported(message, hint="uvm document wcow prints its document on any host")


async def create_lcow_on_hcs(
    options: OptionsLCOW, service: "HcsService", files: HostFiles, build: int, output_handler: OutputHandler | None = None
) -> UtilityVM:
    """Create a utility VM with a Linux guest on the host service of a Windows of this build; nothing runs yet.

    Raises:
        UtilityVMError: as `create_lcow`.
    """
    verify_bounds(options)
    refuse_not_built(options)
    if options.is_template or options.is_clone or options.forkable:
        raise Unsupported("is_template, is_clone, forkable: the driver for Windows' host service has templates of Windows guests alone")
    vm_id = parse_vm_id(options.id) if options.id else VmId(new_guid())
    paths = boot_file_paths(options, Platform.HYPERV, PathFlavour.WINDOWS)
    facts = await _hcs_facts(service, build, paths.all)
    return await create_planned(options, vm_id, facts, service, output_handler, files, node=windows(service))


async def create_wcow_on_hcs(options: OptionsWCOW, service: "HcsService", files: HostFiles, build: int) -> UtilityVM:
    """Create a utility VM with a Windows guest on the host service; nothing runs yet.

    Raises:
        UtilityVMError: as `create_planned_wcow`.
    """
    vm_id = parse_vm_id(options.id) if options.id else VmId(new_guid())
    facts = await _hcs_facts(service, build, paths_looked_at(options, PathFlavour.WINDOWS))
    return await create_planned_wcow(options, vm_id, facts, service, files, node=windows(service))


async def _hcs_facts(service: "HcsService", build: int, look_at: Iterable[str]) -> Facts:
    processors: Answered | Refused
    try:
        processors = Answered(service_properties=await service.service_properties("ProcessorTopology"))
    except HostError as error:
        processors = Refused(reason=error.message)
    return Facts(
        platform=Platform.HYPERV,
        path_flavour=PathFlavour.WINDOWS,
        build=build,
        processors=processors,
        files_present=frozenset(filter(is_there, look_at)),
        unique=new_guid(),
    )


async def create_planned_wcow(
    options: OptionsWCOW,
    vm_id: VmId,
    facts: Facts,
    service: ComputeService,
    files: HostFiles,
    looking: Look = look,
    *,
    node: Node = UNIX,
) -> UtilityVM:
    """Find the guest in its layers, make its disks ready by `files`, plan and create; nothing runs yet.

    Raises:
        UtilityVMError: as `plan.wcow`, `vm.prepare` and the service say. Disks that were made ready stay in the scratch folder.
    """
    layers = locate(options, facts)
    await carry_out(layers.effects, files, vm_id)
    with span("vm.plan", level=logging.DEBUG, vm=vm_id):
        plan = plan_wcow(options, layers, facts, vm_id=vm_id, warn=warn)
    await carry_out(plan.effects, files, vm_id)
    system, listeners = await _create(vm_id, plan, service, savable=options.is_template)
    proxy = await _proxied(options, vm_id, system, node)
    host = HostSide(facts.platform, facts.build, facts.path_flavour, looking, files)
    return UtilityVM(vm_id, options, plan, system, listeners, forward_to_logging(vm_id), host, Links(proxy=proxy))


async def _create(
    vm_id: VmId,
    plan: LcowPlan | WcowPlan,
    service: ComputeService,
    *,
    savable: bool = False,
    forkable: bool = False,
    frozen: Frozen | None = None,
) -> tuple[Machine, dict[int, Listener]]:
    try:
        with span("machine.create", level=logging.DEBUG, vm=vm_id):
            system = await service.create(vm_id, plan.document, savable=savable, forkable=forkable, frozen=frozen)
    except HostError as error:
        raise HostError(f"error while creating the compute system: {error.message}", hint=error.hint) from error
    return system, {port: system.listen(port, once=True) for port in plan.listen_ports}


async def _proxied(options: Options, vm_id: VmId, system: Machine, node: Node) -> "ProxiedNetwork | None":
    """Connect to the proxy that is wanted; without it there is no VM."""
    if not options.network_config_proxy:
        return None
    from utilityvm.vm.proxied import ProxiedNetwork

    try:
        return await ProxiedNetwork.dial(node, options.network_config_proxy, vm_id, node.endpoints(vm_id, system))
    except BaseException:
        await system.close()
        raise


async def _host_facts(options: OptionsLCOW, vm_id: VmId, service: QemuService, *, require_kvm: bool, require_jail: bool) -> Facts:
    paths = boot_file_paths(options, Platform.QEMU, PathFlavour.POSIX)
    present = _checked(options, paths)
    if paths.kernel not in present:  # planning fails of that; there is nothing to probe with
        return _facts(present, Refused(reason="there is no kernel to probe the host with"), emulated=False)
    host = await service.probe(Path(paths.kernel))
    emulated = host.accel is Accel.TCG
    if emulated and require_kvm:
        raise Unsupported(f"KVM is required and not used here: {host.reason}", hint="uvm doctor says what was tried")
    lacks = [f"{layer} ({reason})" for layer, reason in host.jail.lacks.items()]
    if lacks and require_jail:
        raise Unsupported(f"a whole jail is required, and this host does not give: {', '.join(lacks)}", hint=hint(host.jail))
    if emulated:
        text = "software emulation: slower, and not a security boundary; uvm doctor says why"
        event("vm.emulated", level=logging.WARNING, vm=vm_id, message=text)
    if lacks:
        text = f"the jail around QEMU is without its {', '.join(host.jail.lacks)}; uvm doctor says why"
        event("vm.jail", level=logging.WARNING, vm=vm_id, message=text)
    return _facts(present, Counted(logical_processors=host.processors), emulated=emulated)


def _facts(present: frozenset[str], processors: Counted | Refused, *, emulated: bool) -> Facts:
    return Facts(platform=Platform.QEMU, path_flavour=PathFlavour.POSIX, processors=processors, files_present=present, emulated=emulated)


def _checked(options: OptionsLCOW, paths: BootFilePaths) -> frozenset[str]:
    """Return which of the files are there; a folder that we built must be as we built it, and its kernel able to do what is asked."""
    folder, present = Path(options.boot_files_path), frozenset(filter(is_there, paths.all))
    ours = load(folder).manifest if {paths.kernel, paths.root_fs} <= present and (folder / MANIFEST).exists() else None
    if ours is not None and ours.kernel.kind == "source" and options.enable_graphics_console:
        hint = "boot files with the distribution's kernel: uvm boot-files build"
        raise Unsupported(f"enable_graphics_console: the kernel in {folder} is one of our own, which knows no screen", hint=hint)
    return present
