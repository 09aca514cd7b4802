"""What a user may ask of a utility VM with a Linux guest: every option, its meaning, its default where that is fixed.

Defaults that depend on the host (owner, processors, boot files) are chosen by `options.defaults`; what combinations mean is
`options.rules`. Numbers keep the ranges of the host service: memory and sizes 64 bits unsigned, counts 32 bits.
"""

from enum import IntEnum
from typing import Annotated

import msgspec

from utilityvm.options.declare import option

MAX_VPMEM_COUNT = 128
DEFAULT_VPMEM_COUNT = 64
DEFAULT_VPMEM_SIZE_BYTES = 4 << 30
INITRD_FILE = "initrd.img"
VHD_FILE = "rootfs.vhd"
KERNEL_FILE = "kernel"
UNCOMPRESSED_KERNEL_FILE = "vmlinux"


class RootFSType(IntEnum):
    """Where the guest's root file system comes from."""

    INITRD = 0
    VHD = 1


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of every utility VM, whatever its guest."""

    id: Annotated[str, option("Name of the VM; empty: a GUID is made when the VM is created.", go="ID")] = ""
    owner: Annotated[str, option("Who owns the VM, as the host service records it.", go="Owner")] = ""
    memory_size_in_mb: Annotated[
        int, option("Memory of the VM in MiB; rounded up to an even number.", go="MemorySizeInMB", short="memory")
    ] = 1024
    low_mmio_gap_in_mb: Annotated[
        int, option("Hole below 4 GiB for devices' registers, in MiB; 0: the platform's choice.", go="LowMMIOGapInMB")
    ] = 0
    high_mmio_base_in_mb: Annotated[
        int, option("Where the hole above 4 GiB begins, in MiB; 0: the platform's choice.", go="HighMMIOBaseInMB")
    ] = 0
    high_mmio_gap_in_mb: Annotated[int, option("Size of the hole above 4 GiB, in MiB; 0: the platform's choice.", go="HighMMIOGapInMB")] = 0
    allow_overcommit: Annotated[
        bool, option("Back the VM's memory by the host's virtual memory; false: by physical memory from the start.", go="AllowOvercommit")
    ] = True
    fully_physically_backed: Annotated[
        bool, option("Back devices' memory by physical memory as well: no VPMem layers.", go="FullyPhysicallyBacked")
    ] = False
    enable_deferred_commit: Annotated[
        bool, option("Commit memory when it is first used; only together with overcommit.", go="EnableDeferredCommit")
    ] = False
    processor_count: Annotated[
        int, option("Virtual processors; lowered to the host's logical processors.", go="ProcessorCount", short="cpus")
    ] = 2
    processor_limit: Annotated[
        int, option("Share of each virtual processor, 1 to 100000 (100000 is all of it); 0: no limit.", go="ProcessorLimit")
    ] = 0
    processor_weight: Annotated[
        int, option("Weight against other VMs, 1 to 10000; 0: the platform's default, 100.", go="ProcessorWeight")
    ] = 0
    storage_qos_iops_maximum: Annotated[
        int, option("Disk operations per second of all disks together; 0: no limit.", go="StorageQoSIopsMaximum")
    ] = 0
    storage_qos_bandwidth_maximum: Annotated[
        int, option("Disk bytes per second of all disks together; 0: no limit.", go="StorageQoSBandwidthMaximum")
    ] = 0
    external_guest_connection: Annotated[
        bool, option("This package speaks to the guest itself; false: the host service does.", go="ExternalGuestConnection")
    ] = True
    disable_compartment_namespace: Annotated[
        bool, option("Windows guests only: leave network compartments off.", go="DisableCompartmentNamespace")
    ] = False
    cpu_group_id: Annotated[str, option("CPU group to join at creation; empty: none.", go="CPUGroupID")] = ""
    network_config_proxy: Annotated[
        str, option("Address of a network configuration proxy that sets up networks; empty: none.", go="NetworkConfigProxy")
    ] = ""


class OptionsLCOW(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a utility VM with a Linux guest.

    The receiver of the guest's log stream is not among them: a function cannot be written down, compared or sent. It is the
    `output_handler` argument of `create_lcow`.
    """

    boot_files_path: Annotated[
        str, option("Folder of the kernel and the root file system; empty: the working directory.", go="BootFilesPath", value="DIR")
    ] = ""
    kernel_file: Annotated[str, option("The kernel's file name in that folder.", go="KernelFile")] = KERNEL_FILE
    kernel_direct: Annotated[bool, option("Boot the kernel directly; false: by UEFI.", go="KernelDirect")] = True
    root_fs_file: Annotated[str, option("The initrd's or root disk's file name in that folder.", go="RootFSFile")] = INITRD_FILE
    kernel_boot_options: Annotated[str, option("More kernel arguments, passed on as they are.", go="KernelBootOptions")] = ""
    enable_graphics_console: Annotated[
        bool, option("Give the VM a screen and a keyboard with a console and a shell on them.", go="EnableGraphicsConsole")
    ] = False
    console_pipe: Annotated[
        str,
        option(
            "Named pipe or socket of the first serial port, with a console and a shell on it; empty: none.", go="ConsolePipe", value="PATH"
        ),
    ] = ""
    scsi_controller_count: Annotated[int, option("SCSI controllers, 0 or 1, of 64 disks.", go="SCSIControllerCount")] = 1
    use_guest_connection: Annotated[
        bool, option("Connect to the guest compute service; false: the guest has none.", go="UseGuestConnection")
    ] = True
    exec_command_line: Annotated[str, option("What the guest's init starts.", go="ExecCommandLine")] = (
        "/bin/gcs -v4 -log-format json -loglevel info"
    )
    forward_stdout: Annotated[bool, option("Send that program's standard output to the host's log.", go="ForwardStdout")] = False
    forward_stderr: Annotated[bool, option("Send that program's standard error to the host's log.", go="ForwardStderr")] = True
    vpmem_device_count: Annotated[int, option("Most virtual persistent memory devices, at most 128; 0: none.", go="VPMemDeviceCount")] = (
        DEFAULT_VPMEM_COUNT
    )
    vpmem_size_bytes: Annotated[int, option("Most bytes of one such device; a multiple of 4096.", go="VPMemSizeBytes")] = (
        DEFAULT_VPMEM_SIZE_BYTES
    )
    # An int, not a RootFSType: what a peer's number means is decided by the rules, which name the option.
    preferred_root_fs_type: Annotated[
        int, option("The root file system: 0 or initrd, 1 or vhd (a disk).", go="PreferredRootFSType", words=RootFSType)
    ] = RootFSType.INITRD
    enable_cold_discard_hint: Annotated[
        bool, option("Let the guest tell which memory it does not use, so that the host takes it back.", go="EnableColdDiscardHint")
    ] = False
    vpci_enabled: Annotated[bool, option("Leave the guest's PCI on. On QEMU it always is: devices sit on it.", go="VPCIEnabled")] = False
    is_template: Annotated[bool, option("The VM will be saved as a template for clones.")] = False
    is_clone: Annotated[bool, option("Create the VM from a template.")] = False
    template_config: Annotated["TemplateConfig | None", option("The template that a clone is made from.")] = None


class TemplateConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a clone must know of its template: the template's VM id, and the options it was created with."""

    uvm_id: Annotated[str, option("The template's VM id.")]
    create_options: Annotated[OptionsLCOW, option("The options that the template was created with.")]
