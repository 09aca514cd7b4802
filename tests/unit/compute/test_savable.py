"""What two machines must have in common for one to go on from the other."""

import pytest

from utilityvm.compute.qemu.savable import difference, memory_words, topology

ARGV = (
    "/usr/bin/qemu",
    *("-name", "one", "-S", "-smp", "1", "-object", "memory-backend-file,id=ram0,share=on", "-incoming", "defer"),
    *("-object", "throttle-group,id=all", "-nodefaults"),
)


def test_a_machines_name_its_memory_and_how_it_begins_are_not_part_of_its_topology() -> None:
    assert topology(ARGV) == ("-smp", "1", "-object", "throttle-group,id=all", "-nodefaults")


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (("-smp", "1", "-m", "2"), ("-smp", "1", "-m", "2"), ""),
        (("-smp", "1", "-m", "2"), ("-smp", "1", "-m", "3"), "-m 2, the template's is -m 3"),
        (("-smp", "1"), ("-smp", "1", "-m", "3"), "(nothing more), the template's is -m"),
        (("-a", "-b"), ("-a", "-c"), "-a -b, the template's is -a -c"),
    ],
)
def test_the_first_difference_is_told(ours: tuple[str, ...], theirs: tuple[str, ...], said: str) -> None:
    assert difference(ours, theirs) == said


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ((7, 2, 0), "share=off"),
        ((8, 1, 9), "share=off"),
        ((8, 2, 0), "share=off,readonly=on,rom=off"),
        ((11, 0, 0), "share=off,readonly=on,rom=off"),
    ],
)
def test_memory_is_opened_for_reading_alone_where_qemu_can(version: tuple[int, int, int], words: str) -> None:
    assert memory_words(version) == words
