"""What a Linux guest tells of a container's control group (version 1); counts, bytes and nanoseconds as the kernel counts them."""

from msgspec import field

from utilityvm.schema.node import Answer


class HugetlbMetrics(Answer, frozen=True, kw_only=True):
    """Huge pages of one size."""

    usage: int = field(default=0)
    max: int = field(default=0)
    failcnt: int = field(default=0)
    pagesize: str = field(default="")


class PidsMetrics(Answer, frozen=True, kw_only=True):
    """Processes and their limit."""

    current: int = field(default=0)
    limit: int = field(default=0)


class CpuUsage(Answer, frozen=True, kw_only=True):
    """Processor time, in nanoseconds."""

    total: int = field(default=0)
    kernel: int = field(default=0)
    user: int = field(default=0)
    per_cpu: list[int] = field(default_factory=list)


class CpuThrottling(Answer, frozen=True, kw_only=True):
    """How often and how long it had to wait for its share."""

    periods: int = field(default=0)
    throttled_periods: int = field(default=0)
    throttled_time: int = field(default=0)


class CpuMetrics(Answer, frozen=True, kw_only=True):
    """Processor time."""

    usage: CpuUsage | None = field(default=None)
    throttling: CpuThrottling | None = field(default=None)


class MemoryUsage(Answer, frozen=True, kw_only=True):
    """One of the kernel's counters of memory, in bytes."""

    limit: int = field(default=0)
    usage: int = field(default=0)
    max: int = field(default=0)
    failcnt: int = field(default=0)


class MemoryMetrics(Answer, frozen=True, kw_only=True):
    """Memory by its kinds."""

    cache: int = field(default=0)
    rss: int = field(default=0)
    rss_huge: int = field(default=0)
    mapped_file: int = field(default=0)
    dirty: int = field(default=0)
    writeback: int = field(default=0)
    pg_pg_in: int = field(default=0)
    pg_pg_out: int = field(default=0)
    pg_fault: int = field(default=0)
    pg_maj_fault: int = field(default=0)
    inactive_anon: int = field(default=0)
    active_anon: int = field(default=0)
    inactive_file: int = field(default=0)
    active_file: int = field(default=0)
    unevictable: int = field(default=0)
    hierarchical_memory_limit: int = field(default=0)
    hierarchical_swap_limit: int = field(default=0)
    total_cache: int = field(default=0)
    total_rss: int = field(default=0)
    total_rss_huge: int = field(default=0)
    total_mapped_file: int = field(default=0)
    total_dirty: int = field(default=0)
    total_writeback: int = field(default=0)
    total_pg_pg_in: int = field(default=0)
    total_pg_pg_out: int = field(default=0)
    total_pg_fault: int = field(default=0)
    total_pg_maj_fault: int = field(default=0)
    total_inactive_anon: int = field(default=0)
    total_active_anon: int = field(default=0)
    total_inactive_file: int = field(default=0)
    total_active_file: int = field(default=0)
    total_unevictable: int = field(default=0)
    usage: MemoryUsage | None = field(default=None)
    swap: MemoryUsage | None = field(default=None)
    kernel: MemoryUsage | None = field(default=None)
    kernel_tcp: MemoryUsage | None = field(default=None)


class BlkioEntry(Answer, frozen=True, kw_only=True):
    """One counter of one disk."""

    op: str = field(default="")
    device: str = field(default="")
    major: int = field(default=0)
    minor: int = field(default=0)
    value: int = field(default=0)


class BlkioMetrics(Answer, frozen=True, kw_only=True):
    """What was read and written."""

    io_service_bytes_recursive: list[BlkioEntry] = field(default_factory=list)
    io_serviced_recursive: list[BlkioEntry] = field(default_factory=list)
    io_queued_recursive: list[BlkioEntry] = field(default_factory=list)
    io_service_time_recursive: list[BlkioEntry] = field(default_factory=list)
    io_wait_time_recursive: list[BlkioEntry] = field(default_factory=list)
    io_merged_recursive: list[BlkioEntry] = field(default_factory=list)
    io_time_recursive: list[BlkioEntry] = field(default_factory=list)
    sectors_recursive: list[BlkioEntry] = field(default_factory=list)


class RdmaEntry(Answer, frozen=True, kw_only=True):
    """Handles and objects of one device."""

    device: str = field(default="")
    hca_handles: int = field(default=0)
    hca_objects: int = field(default=0)


class RdmaMetrics(Answer, frozen=True, kw_only=True):
    """Remote memory access."""

    current: list[RdmaEntry] = field(default_factory=list)
    limit: list[RdmaEntry] = field(default_factory=list)


class NetworkMetrics(Answer, frozen=True, kw_only=True):
    """Traffic of one interface."""

    name: str = field(default="")
    rx_bytes: int = field(default=0)
    rx_packets: int = field(default=0)
    rx_errors: int = field(default=0)
    rx_dropped: int = field(default=0)
    tx_bytes: int = field(default=0)
    tx_packets: int = field(default=0)
    tx_errors: int = field(default=0)
    tx_dropped: int = field(default=0)


class CgroupStats(Answer, frozen=True, kw_only=True):
    """Tasks by what they are doing."""

    nr_sleeping: int = field(default=0)
    nr_running: int = field(default=0)
    nr_stopped: int = field(default=0)
    nr_uninterruptible: int = field(default=0)
    nr_io_wait: int = field(default=0)


class OomControl(Answer, frozen=True, kw_only=True):
    """What happens, and happened, when memory runs out."""

    oom_kill_disable: int = field(default=0, name="OomKillDisable")
    under_oom: int = field(default=0)
    oom_kill: int = field(default=0)


class CgroupMetrics(Answer, frozen=True, kw_only=True):
    """All of a control group."""

    hugetlb: list[HugetlbMetrics] = field(default_factory=list)
    pids: PidsMetrics | None = field(default=None)
    cpu: CpuMetrics | None = field(default=None)
    memory: MemoryMetrics | None = field(default=None)
    blkio: BlkioMetrics | None = field(default=None)
    rdma: RdmaMetrics | None = field(default=None)
    network: list[NetworkMetrics] = field(default_factory=list)
    cgroup_stats: CgroupStats | None = field(default=None)
    memory_oom_control: OomControl | None = field(default=None)
