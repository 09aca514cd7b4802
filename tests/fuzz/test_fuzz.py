"""A small share of `make fuzz`, and every input that has ever crashed a parser. The seed is fixed: what fails here fails again."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .hunt import hunt, known, replay
from .mutate import Mutator
from .near import bridge, stream
from .targets import Target, check_frames, check_packets, check_streams, targets

INPUTS = 20_000
SEED = 1

TARGETS = targets()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_parser_survives_its_share_of_mutated_inputs(target: Target) -> None:
    found = hunt(target, INPUTS * target.share // 1000, SEED)
    assert found.crashes == []
    assert found.inputs == INPUTS * target.share // 1000
    assert len(found.corpus) > len(target.seeds), "nothing new was seen: the changes do not reach the parser"


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_parser_survives_its_seeds_and_what_once_crashed_it(target: Target) -> None:
    assert target.seeds
    for data in (*target.seeds, *known(target.name)):
        replay(target, data)


@given(stream, st.integers(0, 1000))
def test_streams_survive_packets_that_are_nearly_right(data: bytes, seed: int) -> None:
    check_packets(data, Random(seed))  # noqa: S311
    check_streams(data, Random(seed))  # noqa: S311


@given(bridge, st.integers(0, 1000))
def test_frames_survive_what_is_nearly_one(data: bytes, seed: int) -> None:
    check_frames(data, Random(seed))  # noqa: S311


def test_the_shares_are_a_whole() -> None:
    assert sum(target.share for target in TARGETS) == 1000


def test_the_same_seed_makes_the_same_inputs() -> None:
    corpus = TARGETS[0].seeds
    first, second, third = (Mutator(seed, TARGETS[0].form) for seed in (1, 1, 2))
    made = [[mutator.change(corpus[0], corpus) for _ in range(200)] for mutator in (first, second, third)]
    assert made[0] == made[1] != made[2]
    assert len(set(made[0])) > 150


def test_a_crash_is_found_and_a_hunt_ends_after_a_few() -> None:
    def crash_on_a_large_length(data: bytes, _chance: Random) -> int:
        if len(data) >= 28 and int.from_bytes(data[24:28], "little") > 0xFFFF_0000:
            raise IndexError(data)
        return len(data)

    packets = TARGETS[0]
    weak = Target("weak", 0, packets.seeds, packets.form, crash_on_a_large_length)
    found = hunt(weak, 50_000, SEED)
    assert len(found.crashes) == 5
    assert found.inputs < 50_000
    assert found.crashes[0][1].startswith("IndexError")
