"""What a compute system used: times in units of 100 ns, memory in bytes, moments in RFC 3339 as they were told."""

from typing import Final

from msgspec import field

from utilityvm.schema.node import Answer

NO_MOMENT: Final = "0001-01-01T00:00:00Z"
"""Go's zero of a moment, which it writes where nothing was told."""


class ProcessorStats(Answer, frozen=True, kw_only=True):
    """Processor time."""

    total_runtime_100ns: int = field(default=0, name="TotalRuntime100ns")
    runtime_user_100ns: int = field(default=0, name="RuntimeUser100ns")
    runtime_kernel_100ns: int = field(default=0, name="RuntimeKernel100ns")


class MemoryStats(Answer, frozen=True, kw_only=True):
    """Memory."""

    memory_usage_commit_bytes: int = field(default=0, name="MemoryUsageCommitBytes")
    memory_usage_commit_peak_bytes: int = field(default=0, name="MemoryUsageCommitPeakBytes")
    memory_usage_private_working_set_bytes: int = field(default=0, name="MemoryUsagePrivateWorkingSetBytes")


class StorageStats(Answer, frozen=True, kw_only=True):
    """What was read and written."""

    read_count_normalized: int = field(default=0, name="ReadCountNormalized")
    read_size_bytes: int = field(default=0, name="ReadSizeBytes")
    write_count_normalized: int = field(default=0, name="WriteCountNormalized")
    write_size_bytes: int = field(default=0, name="WriteSizeBytes")


class Statistics(Answer, frozen=True, kw_only=True):
    """All of it."""

    timestamp: str = field(default_factory=lambda: NO_MOMENT, name="Timestamp")
    container_start_time: str = field(default_factory=lambda: NO_MOMENT, name="ContainerStartTime")
    uptime_100ns: int = field(default=0, name="Uptime100ns")
    processor: ProcessorStats | None = field(default=None, name="Processor")
    memory: MemoryStats | None = field(default=None, name="Memory")
    storage: StorageStats | None = field(default=None, name="Storage")


class ProcessDetails(Answer, frozen=True, kw_only=True):
    """One process."""

    process_id: int = field(default=0, name="ProcessId")
    image_name: str = field(default="", name="ImageName")
    create_timestamp: str = field(default_factory=lambda: NO_MOMENT, name="CreateTimestamp")
    user_time_100ns: int = field(default=0, name="UserTime100ns")
    kernel_time_100ns: int = field(default=0, name="KernelTime100ns")
    memory_commit_bytes: int = field(default=0, name="MemoryCommitBytes")
    memory_working_set_private_bytes: int = field(default=0, name="MemoryWorkingSetPrivateBytes")
    memory_working_set_shared_bytes: int = field(default=0, name="MemoryWorkingSetSharedBytes")


class ContainerMemoryInformation(Answer, frozen=True, kw_only=True):
    """A container's memory."""

    total_physical_bytes: int = field(default=0, name="TotalPhysicalBytes")
    total_usage: int = field(default=0, name="TotalUsage")
    committed_bytes: int = field(default=0, name="CommittedBytes")
    shared_committed_bytes: int = field(default=0, name="SharedCommittedBytes")
    commit_limit_bytes: int = field(default=0, name="CommitLimitBytes")
    peak_commitment_bytes: int = field(default=0, name="PeakCommitmentBytes")
