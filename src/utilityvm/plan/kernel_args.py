"""The kernel command line of a Linux guest: which piece, when, in which order. After ``--`` stand init's own arguments."""

from typing import Final

import msgspec

from utilityvm.options.lcow import OptionsLCOW, RootFSType
from utilityvm.plan.facts import Facts, Platform
from utilityvm.wire.gcs import ENTROPY_PORT, LOG_PORT

# On QEMU the serial console is always there: without it a panic says nothing at all. Kernels since 3.7 call the module 8250
# and know its old name only as an option of their configuration.
_QEMU_SERIAL: Final = "8250.nr_uarts=1 console=ttyS0,115200"
_SERIAL: Final = {
    (Platform.HYPERV, True): "8250_core.nr_uarts=1 8250_core.skip_txen_test=1 console=ttyS0,115200",
    (Platform.HYPERV, False): "8250_core.nr_uarts=0",
    (Platform.QEMU, True): _QEMU_SERIAL,
    (Platform.QEMU, False): _QEMU_SERIAL,
}
"""The serial port, by platform and by whether the user wants it."""


class PlatformArgument(msgspec.Struct, frozen=True):
    """A kernel argument that the platform adds, and why.

    `emulated_only`: not under KVM; `lone_only`: for one processor; `virtual_only`: not with devices of the host.
    """

    text: str
    reason: str
    emulated_only: bool = False
    lone_only: bool = False
    virtual_only: bool = False


QEMU_ARGUMENTS: Final = (
    PlatformArgument("cryptomgr.notests", "the kernel tests its crypto at each boot, about a tenth of an emulated boot's processor time"),
    PlatformArgument(
        "no_timer_check", "the kernel counts ticks to see whether its timer works, a fiftieth of an emulated boot; QEMU's does"
    ),
    PlatformArgument(
        "GODEBUG=asyncpreemptoff=1",
        "the kernel hands it to init as a variable: the agent has one goroutine, which its runtime would interrupt 100 times a second",
    ),
    PlatformArgument(
        "scsi_mod.scan=manual",
        "a controller would ask 256 targets who is there, 0.16 s when emulated; the agent looks at the disk that it is told of",
    ),
    PlatformArgument(
        "swiotlb=noforce",
        "room for memory that is plugged in makes the kernel keep 64 MiB for devices of 32 bits, of which only a host can have one",
        virtual_only=True,
    ),
    PlatformArgument(
        "rcupdate.rcu_expedited=1",
        "the kernel asks its few processors instead of waiting for ticks of its clock, 10 ms for each piece of persistent memory",
    ),
    PlatformArgument("memhp_default_state=online_movable", "memory that was plugged in is used at once, and can be given back"),
    PlatformArgument(
        "uvm.schedule=batch",
        "the agent and its programs do not interrupt each other when they wake up: a quarter of the time of what goes into a process",
        emulated_only=True,
    ),
    PlatformArgument(
        "noreplace-smp",
        "the kernel rewrites 8 000 locked instructions, each in an address space made for that, a tenth of an emulated boot",
        lone_only=True,
    ),
    PlatformArgument(
        "nolapic_timer",
        "the kernel measures the local timer for 0.1 s; its one processor is as well served by the HPET, whose pace is known",
        emulated_only=True,
        lone_only=True,
    ),
    PlatformArgument(
        "rodata=off",
        "write-protecting the kernel and walking all page tables for it is a sixth of an emulated boot, for a boundary as the next one's",
        emulated_only=True,
    ),
    PlatformArgument(
        "init_on_alloc=0 hardened_usercopy=off",
        "pages are cleared when they are handed out, and copies looked at twice: a tenth of what goes into a process, for such a boundary",
        emulated_only=True,
    ),
    PlatformArgument(
        "mitigations=off",
        "about a twentieth of an emulated boot's processor time, for a boundary that emulation does not claim to hold",
        emulated_only=True,
    ),
)


def kernel_command_line(options: OptionsLCOW, processor_count: int, facts: Facts) -> str:
    """Return the command line for `processor_count` processors; it begins with a space when no root is named."""
    pieces = (
        _root(options),
        *_consoles(options, facts.platform),
        *_platform(options, facts, processor_count),
        *([options.kernel_boot_options] if options.kernel_boot_options else []),
        *(["pci=off"] if facts.platform is Platform.HYPERV and not (options.vpci_enabled or options.assigned_devices) else []),
        f"nr_cpus={processor_count}",
        "brd.rd_nr=0",
        *_timer(facts.platform),
        "--",
        _init_arguments(options),
    )
    return " ".join(pieces)


def _timer(platform: Platform) -> list[str]:
    """Without the ACPI timer, which Hyper-V does not have, a guest on QEMU measures its clock by the PIT: an eighth of an emulated boot."""
    return ["pmtmr=0"] if platform is Platform.HYPERV else []


def _root(options: OptionsLCOW) -> str:
    if options.preferred_root_fs_type == RootFSType.VHD:
        return "root=/dev/pmem0 ro rootwait init=/init"
    if options.preferred_root_fs_type == RootFSType.INITRD and not options.kernel_direct:
        return f"initrd=/{options.root_fs_file}"
    return ""


def _consoles(options: OptionsLCOW, platform: Platform) -> list[str]:
    pieces = [_SERIAL[platform, bool(options.console_pipe)]]
    if options.enable_graphics_console:
        pieces.append("console=tty")
    if not _watched(options):
        pieces.append("panic=-1 quiet")
    return pieces


def _platform(options: OptionsLCOW, facts: Facts, processor_count: int) -> list[str]:
    """Platform arguments come before the user's, so that the user's win."""
    if facts.platform is Platform.HYPERV:
        return []
    return [
        argument.text
        for argument in QEMU_ARGUMENTS
        if (facts.emulated or not argument.emulated_only)
        and (processor_count == 1 or not argument.lone_only)
        and not (argument.virtual_only and options.assigned_devices)
    ]


def _init_arguments(options: OptionsLCOW) -> str:
    """Init feeds its kernel from the entropy port; the program behind vsockexec gets its streams connected to the log port."""
    forwarded = (f" -o {LOG_PORT}" if options.forward_stdout else "") + (f" -e {LOG_PORT}" if options.forward_stderr else "")
    program = f"/bin/vsockexec{forwarded} {options.exec_command_line}"
    if _watched(options):
        program = f'sh -c "{program} & exec sh"'
    return f"-e {ENTROPY_PORT} {program}"


def _watched(options: OptionsLCOW) -> bool:
    """Whether somebody looks at a console: then the kernel talks, stays after a panic, and there is a shell."""
    return bool(options.console_pipe) or options.enable_graphics_console
