"""What a user may ask of every utility VM: each option, its meaning, its default where that is fixed.

Defaults that depend on the host (owner, processors, boot files) are chosen by `options.defaults`; what combinations mean is
`options.rules`. Numbers keep the ranges of the host service: memory and sizes 64 bits unsigned, counts 32 bits.
"""

from typing import Annotated

import msgspec

from utilityvm.options.declare import option


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
