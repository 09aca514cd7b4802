"""Which properties of a compute system can be asked for."""

import pytest

from utilityvm.kit.errors import InvalidOptions
from utilityvm.schema.properties import PropertyType, property_types


def test_a_property_is_asked_for_once_by_itself_or_by_its_word() -> None:
    wanted = [PropertyType.MEMORY, "Memory", PropertyType.PROCESS_LIST]
    assert property_types(wanted) == {PropertyType.MEMORY, PropertyType.PROCESS_LIST}  # type: ignore[arg-type]  # words pass too
    assert property_types([]) == frozenset()


def test_a_property_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidOptions, match=r"'Disks' is not a valid PropertyType: there are Memory, ProcessList$") as caught:
        property_types(["Disks"])  # type: ignore[list-item]  # a word of a caller without types
    (problem,) = caught.value.problems
    assert (problem.path, problem.rule) == ("properties", "word")
