"""The kernel command line, piece by piece."""

import msgspec
import pytest

from utilityvm.options.lcow import OptionsLCOW, RootFSType
from utilityvm.options.paths import PathFlavour
from utilityvm.plan.facts import Counted, Facts, Platform
from utilityvm.plan.kernel_args import QEMU_ARGUMENTS, kernel_command_line

HYPERV = Facts(
    platform=Platform.HYPERV, path_flavour=PathFlavour.WINDOWS, processors=Counted(logical_processors=8), files_present=frozenset()
)
KVM = msgspec.structs.replace(HYPERV, platform=Platform.QEMU, path_flavour=PathFlavour.POSIX)
TCG = msgspec.structs.replace(KVM, emulated=True)
GCS = "/bin/gcs -v4 -log-format json -loglevel info"
TAIL = f"nr_cpus=2 brd.rd_nr=0 pmtmr=0 -- -e 1 /bin/vsockexec -e 109 {GCS}"
QEMU_TAIL = TAIL.replace(" pmtmr=0", "")
CONSOLE = "8250_core.nr_uarts=1 8250_core.skip_txen_test=1 console=ttyS0,115200"
VHD = RootFSType.VHD


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (OptionsLCOW(), f" 8250_core.nr_uarts=0 panic=-1 quiet pci=off {TAIL}"),
        (OptionsLCOW(kernel_direct=False), f"initrd=/initrd.img 8250_core.nr_uarts=0 panic=-1 quiet pci=off {TAIL}"),
        (
            OptionsLCOW(preferred_root_fs_type=VHD),
            f"root=/dev/pmem0 ro rootwait init=/init 8250_core.nr_uarts=0 panic=-1 quiet pci=off {TAIL}",
        ),
        (OptionsLCOW(preferred_root_fs_type=2, kernel_direct=False), f" 8250_core.nr_uarts=0 panic=-1 quiet pci=off {TAIL}"),
        (
            OptionsLCOW(forward_stdout=True, forward_stderr=False, vpci_enabled=True, kernel_boot_options="a=b"),
            f" 8250_core.nr_uarts=0 panic=-1 quiet a=b nr_cpus=2 brd.rd_nr=0 pmtmr=0 -- -e 1 /bin/vsockexec -o 109 {GCS}",
        ),
        (
            OptionsLCOW(assigned_devices=("PCIP\\VEN_1",), allow_overcommit=False),
            f" 8250_core.nr_uarts=0 panic=-1 quiet {TAIL}",
        ),
        (
            OptionsLCOW(console_pipe="p"),
            f' {CONSOLE} pci=off nr_cpus=2 brd.rd_nr=0 pmtmr=0 -- -e 1 sh -c "/bin/vsockexec -e 109 {GCS} & exec sh"',
        ),
        (
            OptionsLCOW(console_pipe="p", enable_graphics_console=True, forward_stderr=False),
            f' {CONSOLE} console=tty pci=off nr_cpus=2 brd.rd_nr=0 pmtmr=0 -- -e 1 sh -c "/bin/vsockexec {GCS} & exec sh"',
        ),
    ],
)
def test_on_hyperv_the_line_is_the_original_s_corrected(options: OptionsLCOW, line: str) -> None:
    assert kernel_command_line(options, 2, HYPERV) == line


def test_the_processors_are_those_that_the_vm_gets() -> None:
    assert " nr_cpus=3 " in kernel_command_line(OptionsLCOW(processor_count=9), 3, HYPERV)


def test_on_qemu_there_is_always_a_serial_console_and_pci() -> None:
    ours = "cryptomgr.notests no_timer_check GODEBUG=asyncpreemptoff=1 scsi_mod.scan=manual swiotlb=noforce rcupdate.rcu_expedited=1"
    ours += " memhp_default_state=online_movable"
    line = f" 8250.nr_uarts=1 console=ttyS0,115200 panic=-1 quiet {ours} {QEMU_TAIL}"
    assert kernel_command_line(OptionsLCOW(), 2, KVM) == line


def test_a_device_of_the_host_may_reach_only_the_addresses_of_32_bits() -> None:
    with_device = OptionsLCOW(assigned_devices=("0000:01:00.0",), allow_overcommit=False)
    assert kernel_command_line(with_device, 2, KVM) == kernel_command_line(OptionsLCOW(), 2, KVM).replace("swiotlb=noforce ", "")


@pytest.mark.parametrize("asked", [OptionsLCOW(console_pipe="p"), OptionsLCOW(enable_graphics_console=True)])
def test_on_qemu_a_console_that_somebody_watches_is_not_quiet(asked: OptionsLCOW) -> None:
    line = kernel_command_line(asked, 2, KVM)
    assert line.startswith(" 8250.nr_uarts=1 console=ttyS0,115200 ")
    assert "quiet" not in line
    assert "panic=" not in line


def test_on_qemu_the_user_s_arguments_come_after_the_platform_s_and_so_win() -> None:
    line = kernel_command_line(OptionsLCOW(kernel_boot_options="mitigations=auto"), 2, TCG)
    assert line.index("mitigations=off") < line.index("mitigations=auto") < line.index(" -- ")


def test_mitigations_are_off_only_where_the_guest_is_emulated() -> None:
    assert "mitigations=off" in kernel_command_line(OptionsLCOW(), 2, TCG)
    assert "mitigations=off" not in kernel_command_line(OptionsLCOW(), 2, KVM)
    assert "mitigations=off" not in kernel_command_line(OptionsLCOW(), 2, msgspec.structs.replace(HYPERV, emulated=True))


def test_a_lone_processor_keeps_its_locks_and_when_emulated_does_without_its_local_timer() -> None:
    words = {
        (facts.emulated, count): set(kernel_command_line(OptionsLCOW(), count, facts).split()) for facts in (KVM, TCG) for count in (1, 2)
    }
    both = {"noreplace-smp", "nolapic_timer"}
    assert {case: words[case] & both for case in words} == {
        (False, 1): {"noreplace-smp"},
        (False, 2): set(),
        (True, 1): both,
        (True, 2): set(),
    }
    assert not both & set(kernel_command_line(OptionsLCOW(), 1, HYPERV).split())


def test_every_platform_argument_has_a_reason() -> None:
    assert all(argument.reason for argument in QEMU_ARGUMENTS)
