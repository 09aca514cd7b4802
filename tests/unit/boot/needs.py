"""What the guest, and containers in it, need of a kernel: a reason, and the options of its configuration that give it."""

from typing import Final, NamedTuple


class Need(NamedTuple):
    reason: str
    options: str
    value: str = "y"


NEEDS: Final = (
    # a utility VM
    Need("QEMU boots an ELF kernel by PVH", "PVH"),
    Need("firmware boots the image", "EFI EFI_STUB RELOCATABLE"),
    Need("several processors", "SMP X86_X2APIC"),
    Need("under KVM the clock is the host's business", "HYPERVISOR_GUEST PARAVIRT KVM_GUEST PARAVIRT_CLOCK"),
    Need("a panic's last words", "SERIAL_8250 SERIAL_8250_CONSOLE PRINTK KALLSYMS EARLY_PRINTK"),
    Need("the machine is switched off", "ACPI MAGIC_SYSRQ"),
    Need("the initial RAM disk, also one that somebody packed", "BLK_DEV_INITRD RD_GZIP"),
    Need("the guest connection", "PCI PCI_MSI VIRTIO_PCI VIRTIO_CONSOLE"),
    Need("devices are plugged behind PCI bridges and ports", "HOTPLUG_PCI HOTPLUG_PCI_ACPI HOTPLUG_PCI_PCIE HOTPLUG_PCI_SHPC PCIEPORTBUS"),
    Need("memory and processors come and go", "MEMORY_HOTPLUG MEMORY_HOTREMOVE VIRTIO_MEM ACPI_HOTPLUG_MEMORY HOTPLUG_CPU"),
    Need("memory is given back", "VIRTIO_BALLOON PAGE_REPORTING BALLOON_COMPACTION"),
    Need(
        "layers on persistent memory, shared with the host's page cache",
        "LIBNVDIMM VIRTIO_PMEM BLK_DEV_PMEM NVDIMM_PFN ZONE_DEVICE DAX FS_DAX",
    ),
    Need("disks", "BLOCK VIRTIO_BLK SCSI BLK_DEV_SD BLK_DEV_LOOP EFI_PARTITION"),
    Need("disks behind a controller that is looked at when one is asked for", "SCSI_VIRTIO", "m"),
    Need("encrypted scratch, verified layers", "BLK_DEV_DM DM_CRYPT DM_VERITY CRYPTO_XTS CRYPTO_AES CRYPTO_SHA256"),
    Need("network cards", "NETDEVICES VIRTIO_NET"),
    Need("randomness from the host; a clone knows that it is one", "HW_RANDOM_VIRTIO RANDOM_TRUST_CPU VMGENID"),
    Need("programs that know only AF_VSOCK", "VSOCKETS VSOCKETS_LOOPBACK VSOCKETS_DIAG"),
    Need("the clock after a start", "RTC_CLASS RTC_DRV_CMOS"),
    Need("what is asked here can be asked in the guest: /proc/config.gz", "IKCONFIG IKCONFIG_PROC"),
    # file systems
    Need("overlay joins layers and scratch", "OVERLAY_FS"),
    Need("layers", "EROFS_FS EROFS_FS_XATTR EROFS_FS_POSIX_ACL EROFS_FS_SECURITY"),
    Need("scratch disks", "EXT4_FS EXT4_FS_POSIX_ACL EXT4_FS_SECURITY XFS_FS XFS_POSIX_ACL XFS_QUOTA"),
    Need("shared folders over a stream, over virtio, and by virtiofs", "9P_FS NET_9P NET_9P_FD NET_9P_VIRTIO 9P_FS_POSIX_ACL VIRTIO_FS"),
    Need("file systems of programs, fuse-overlayfs", "FUSE_FS"),
    Need("what PID 1 mounts", "PROC_FS SYSFS DEVTMPFS TMPFS TMPFS_XATTR TMPFS_POSIX_ACL UNIX98_PTYS HUGETLBFS"),
    # containers
    Need("namespaces", "NAMESPACES UTS_NS IPC_NS PID_NS NET_NS USER_NS TIME_NS"),
    Need("controllers: cpu, cpuset, io, memory, pids, hugetlb, perf_event", "CGROUPS CGROUP_SCHED FAIR_GROUP_SCHED CFS_BANDWIDTH CPUSETS"),
    Need("the same", "BLK_CGROUP BLK_DEV_THROTTLING CGROUP_WRITEBACK MEMCG SWAP CGROUP_PIDS CGROUP_HUGETLB CGROUP_PERF"),
    Need("version 1 of them, for runtimes that know no other", "CGROUP_CPUACCT CGROUP_DEVICE CGROUP_FREEZER"),
    Need("which devices a container may use is a BPF program", "BPF_SYSCALL CGROUP_BPF"),
    Need("seccomp filters, compiled and not interpreted", "SECCOMP SECCOMP_FILTER BPF_JIT"),
    Need("keyrings: runtimes make one for each container", "KEYS"),
    Need("sandboxes inside of containers", "SECURITY_LANDLOCK"),
    Need("message queues and shared memory of containers", "POSIX_MQUEUE SYSVIPC SHMEM"),
    Need("docker asks for these", "VETH BRIDGE BRIDGE_NETFILTER BRIDGE_VLAN_FILTERING VXLAN IPVLAN MACVLAN DUMMY VLAN_8021Q TUN"),
    Need(
        "packet filters", "NETFILTER NF_TABLES NF_TABLES_INET NF_TABLES_IPV4 NF_TABLES_IPV6 NF_TABLES_BRIDGE NFT_REJECT NFT_LOG NFT_LIMIT"
    ),
    Need("address translation", "NF_CONNTRACK NF_NAT NFT_CT NFT_NAT NFT_MASQ NFT_REDIR NFT_FIB_INET NF_CT_NETLINK"),
    Need("iptables over nf_tables", "NFT_COMPAT NETFILTER_XT_MATCH_ADDRTYPE NETFILTER_XT_MATCH_CONNTRACK NETFILTER_XT_TARGET_MASQUERADE"),
    Need("the same", "NETFILTER_XT_MATCH_COMMENT NETFILTER_XT_MARK NETFILTER_XT_MATCH_MULTIPORT NETFILTER_XT_TARGET_REDIRECT"),
    Need("iptables without nf_tables", "IP_NF_IPTABLES IP_NF_FILTER IP_NF_NAT IP_NF_MANGLE IP6_NF_IPTABLES IP6_NF_FILTER IP6_NF_NAT"),
    Need("sockets, also raw ones, and ss", "UNIX INET IPV6 PACKET UNIX_DIAG INET_DIAG"),
    Need("routes by policy", "IP_ADVANCED_ROUTER IP_MULTIPLE_TABLES IPV6_MULTIPLE_TABLES"),
    # programs
    Need("event loops", "EPOLL EVENTFD SIGNALFD TIMERFD INOTIFY_USER FANOTIFY AIO IO_URING FUTEX"),
    Need(
        "checkpoints, debuggers, memory tricks",
        "KCMP CROSS_MEMORY_ATTACH USERFAULTFD MEMBARRIER RSEQ MEMFD_CREATE ADVISE_SYSCALLS PROC_CHILDREN",
    ),
    Need("programs of other kinds", "BINFMT_SCRIPT BINFMT_MISC IA32_EMULATION"),
    Need("figures for monitors", "TASKSTATS TASK_IO_ACCOUNTING TASK_DELAY_ACCT PSI PERF_EVENTS"),
    # the boundary between the guest's programs and its kernel, under KVM
    Need(
        "processors that leak",
        "CPU_MITIGATIONS PAGE_TABLE_ISOLATION RETPOLINE SLS CPU_IBRS_ENTRY MITIGATION_RFDS MITIGATION_SPECTRE_BHI MITIGATION_TSA",
    ),
    Need("mistakes in the kernel", "STACKPROTECTOR_STRONG VMAP_STACK FORTIFY_SOURCE HARDENED_USERCOPY STRICT_KERNEL_RWX X86_UMIP"),
)


def needed() -> dict[str, Need]:
    """Return each option that is needed, with what needs it."""
    return {f"CONFIG_{option}": need for need in NEEDS for option in need.options.split()}


NEVER: Final = (
    Need("debug information makes the file large and the build slow", "DEBUG_INFO"),
    Need("every function would begin with a call", "FTRACE FUNCTION_TRACER"),
    Need("a kernel that starts another escapes what was measured", "KEXEC KEXEC_FILE HIBERNATION"),
    Need("memory and ports of the machine as files", "DEVMEM DEVPORT DEVKMEM"),
    Need("costs each system call", "AUDIT SECURITY_SELINUX"),
    Need("a fifth level of page tables makes each look-up of an emulated processor longer", "X86_5LEVEL"),
    Need("each place where a lock is given back would be rewritten at each boot, 3 567 of them, twice", "PARAVIRT_SPINLOCKS"),
)
"""What it must not have."""
