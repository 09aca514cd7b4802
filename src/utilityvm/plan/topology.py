"""Memory and processors of the document."""

from typing import Final

from utilityvm.kit.errors import HostError, Unsupported
from utilityvm.options import builds
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.wcow import OptionsWCOW
from utilityvm.plan.facts import Answered, Counted, Facts, Refused
from utilityvm.plan.normalize import Warn, normalize_memory, normalize_processors
from utilityvm.schema import json
from utilityvm.schema.document import CpuGroup, Memory, Processor
from utilityvm.schema.service import ProcessorTopology, ServiceProperties

GUEST_MEMORY: Final = 120 << 20
"""Bytes that a Linux guest's kernel, its initial RAM disk, which is unpacked at boot, and agent need beside what is run."""


def plan_topology(options: OptionsLCOW | OptionsWCOW, facts: Facts, *, vm_id: str, warn: Warn) -> tuple[Memory, Processor]:
    """Plan memory and processors.

    Raises:
        HostError: the host's processors are not known.
        Unsupported: a CPU group at creation, and the host is too old for it.
    """
    host_processors = _logical_processors(facts.processors)
    count = normalize_processors(options.processor_count, host_processors, vm_id=vm_id, warn=warn)
    memory_in_mb = normalize_memory(options.memory_size_in_mb, vm_id=vm_id, warn=warn)
    if options.cpu_group_id and facts.build < builds.CPU_GROUP_AT_CREATE:
        raise Unsupported(f"cpu group assignment on create requires a build of {builds.CPU_GROUP_AT_CREATE} or higher")
    memory = Memory(
        size_in_mb=memory_in_mb,
        allow_overcommit=options.allow_overcommit,
        enable_deferred_commit=options.enable_deferred_commit,
        enable_hot_hint=isinstance(options, OptionsWCOW) and options.allow_overcommit,
        enable_cold_discard_hint=isinstance(options, OptionsLCOW) and options.enable_cold_discard_hint,
        low_mmio_gap_in_mb=options.low_mmio_gap_in_mb,
        high_mmio_base_in_mb=options.high_mmio_base_in_mb,
        high_mmio_gap_in_mb=options.high_mmio_gap_in_mb,
    )
    processor = Processor(
        count=count,
        limit=options.processor_limit,
        weight=options.processor_weight,
        cpu_group=CpuGroup(id=options.cpu_group_id) if options.cpu_group_id else None,
    )
    return memory, processor


def _logical_processors(processors: Counted | Answered | Refused) -> int:
    if isinstance(processors, Counted):
        return processors.logical_processors
    if isinstance(processors, Answered):
        return _read_answer(processors.service_properties)
    raise _no_processors(f"failed to retrieve processor and processor topology information: {processors.reason}")


def _read_answer(answer: str) -> int:
    if not answer:
        raise _no_processors("failed to retrieve processor and processor topology information: unexpected value returned from hcs")
    try:
        properties = json.decode_answer(answer, ServiceProperties).properties
    except HostError as error:
        raise _no_processors(f"failed to retrieve processor and processor topology information: {error}") from error
    if len(properties) != 1:
        raise _no_processors("wrong number of service properties present")
    try:
        return json.decode_answer(bytes(properties[0]), ProcessorTopology).logical_processor_count
    except HostError as error:
        raise _no_processors(f"failed to unmarshal host processor topology: {error}") from error


def _no_processors(reason: str) -> HostError:
    return HostError(f"failed to get host processor information: {reason}")
