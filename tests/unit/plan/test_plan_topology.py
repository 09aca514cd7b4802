"""Memory and processors: what is adjusted, what is refused, and with which words."""

import pytest

from utilityvm.kit.errors import HostError, Unsupported
from utilityvm.options import builds
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.paths import PathFlavour
from utilityvm.plan.facts import Answered, Counted, Facts, Platform, Refused
from utilityvm.plan.normalize import Adjusted, normalize_memory, normalize_processors
from utilityvm.plan.topology import plan_topology
from utilityvm.schema.document import CpuGroup, Memory, Processor

UNREADABLE = "the host service's answer is no {}: "


def facts(processors: Counted | Answered | Refused, build: int = builds.EVERYTHING) -> Facts:
    return Facts(platform=Platform.HYPERV, path_flavour=PathFlavour.WINDOWS, build=build, processors=processors, files_present=frozenset())


def planned(options: OptionsLCOW, host: Facts) -> tuple[Memory, Processor, list[Adjusted]]:
    warnings: list[Adjusted] = []
    memory, processor = plan_topology(options, host, vm_id="v", warn=warnings.append)
    return memory, processor, warnings


@pytest.mark.parametrize(("requested", "assigned"), [(0, 0), (1, 2), (1023, 1024), (1024, 1024), (2**64 - 2, 2**64 - 2), (2**64 - 1, 0)])
def test_memory_is_rounded_up_to_an_even_number_with_a_warning(requested: int, assigned: int) -> None:
    warnings: list[Adjusted] = []
    assert normalize_memory(requested, vm_id="v", warn=warnings.append) == assigned
    message = "Changing user requested MemorySizeInMB to align to 2MB"
    assert warnings == ([] if requested == assigned else [Adjusted(message, "v", requested, assigned)])


@pytest.mark.parametrize(
    ("requested", "host", "assigned"), [(2, 8, 2), (8, 8, 8), (9, 8, 8), (0, 8, 0), (-3, 8, -3), (1, 2**31, -(2**31)), (0, 2**32 - 1, -1)]
)
def test_processors_are_lowered_to_the_host_s_with_a_warning(requested: int, host: int, assigned: int) -> None:
    warnings: list[Adjusted] = []
    assert normalize_processors(requested, host, vm_id="v", warn=warnings.append) == assigned
    message = "Changing user requested CPUCount to current number of processors"
    assert warnings == ([] if requested == assigned else [Adjusted(message, "v", requested, assigned)])


def test_a_warning_names_the_vm_and_both_numbers() -> None:
    assert Adjusted("m", "v", 3, 4).fields == {"uvm-id": "v", "requested": 3, "assigned": 4}


def test_options_go_where_the_document_has_them() -> None:
    options = OptionsLCOW(
        memory_size_in_mb=7,
        allow_overcommit=False,
        enable_deferred_commit=True,
        enable_cold_discard_hint=True,
        low_mmio_gap_in_mb=1,
        high_mmio_base_in_mb=2,
        high_mmio_gap_in_mb=3,
        processor_count=9,
        processor_limit=4,
        processor_weight=5,
        cpu_group_id="g",
    )
    memory, processor, warnings = planned(options, facts(Counted(logical_processors=8)))
    assert memory == Memory(
        size_in_mb=8,
        enable_deferred_commit=True,
        enable_cold_discard_hint=True,
        low_mmio_gap_in_mb=1,
        high_mmio_base_in_mb=2,
        high_mmio_gap_in_mb=3,
    )
    assert processor == Processor(count=8, limit=4, weight=5, cpu_group=CpuGroup(id="g"))
    assert [warning.assigned for warning in warnings] == [8, 8]


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ('{"Properties":[{"LogicalProcessorCount":1,"LogicalProcessors":[{"LpIndex":0}]}]}', 1),
        ('{"Properties":[{}]}', 0),
        ('{"Properties":[{"LogicalProcessorCount":null}]}', 0),
        ('{"Properties":[null]}', 0),
    ],
)
def test_the_host_service_s_answer_is_read_as_the_original_reads_it(answer: str, count: int) -> None:
    assert planned(OptionsLCOW(), facts(Answered(service_properties=answer)))[1].count == count


@pytest.mark.parametrize(
    ("processors", "reason"),
    [
        (Refused(reason="no service"), "failed to retrieve processor and processor topology information: no service"),
        (
            Answered(service_properties="{"),
            "failed to retrieve processor and processor topology information: "
            + UNREADABLE.format("ServiceProperties")
            + "Input data was truncated",
        ),
        (
            Answered(service_properties=""),
            "failed to retrieve processor and processor topology information: unexpected value returned from hcs",
        ),
        (Answered(service_properties="{}"), "wrong number of service properties present"),
        (Answered(service_properties='{"Properties":null}'), "wrong number of service properties present"),
        (Answered(service_properties='{"Properties":[{},{}]}'), "wrong number of service properties present"),
        (
            Answered(service_properties='{"Properties":[{"LogicalProcessorCount":"8"}]}'),
            "failed to unmarshal host processor topology: "
            + UNREADABLE.format("ProcessorTopology")
            + "Expected `int`, got `str` - at `$.LogicalProcessorCount`",
        ),
        (
            Answered(service_properties='{"Properties":[{"LogicalProcessorCount":-1}]}'),
            "failed to unmarshal host processor topology: "
            + UNREADABLE.format("ProcessorTopology")
            + "Expected `int` >= 0 - at `$.LogicalProcessorCount`",
        ),
    ],
)
def test_a_host_whose_processors_are_not_known_is_an_error_with_the_step_that_failed(processors: Answered | Refused, reason: str) -> None:
    with pytest.raises(HostError) as caught:
        planned(OptionsLCOW(), facts(processors))
    assert str(caught.value) == f"failed to get host processor information: {reason}"


def test_a_cpu_group_on_an_old_host_is_refused_after_the_warnings() -> None:
    warnings: list[Adjusted] = []
    host = facts(Counted(logical_processors=1), builds.CPU_GROUP_AT_CREATE - 1)
    with pytest.raises(Unsupported, match="^cpu group assignment on create requires a build of 20124 or higher$"):
        plan_topology(OptionsLCOW(cpu_group_id="g"), host, vm_id="v", warn=warnings.append)
    assert [warning.requested for warning in warnings] == [2]


def test_a_cpu_group_on_a_new_host_is_joined() -> None:
    host = facts(Counted(logical_processors=2), builds.CPU_GROUP_AT_CREATE)
    assert planned(OptionsLCOW(cpu_group_id="g"), host)[1].cpu_group == CpuGroup(id="g")
