"""A share of the host's processors: the document's numbers, and what control groups are told."""

import pytest

from utilityvm.compute.qemu.share import Quota, Share, quota_of, share_of, shares, wrong_share
from utilityvm.kit.ids import NULL_GUID
from utilityvm.schema.document import CpuGroup, Processor
from utilityvm.schema.requests import ProcessorLimits


@pytest.mark.parametrize(
    ("limit", "count", "quota"),
    [
        (0, 1, None),
        (100_000, 4, None),
        (50_000, 1, Quota(50_000, 100_000)),
        (50_000, 4, Quota(200_000, 100_000)),
        (1_000, 1, Quota(1_000, 100_000)),
        (999, 1, Quota(9_990, 1_000_000)),
        (100, 1, Quota(1_000, 1_000_000)),
        (25, 4, Quota(1_000, 1_000_000)),
    ],
)
def test_a_limit_is_a_share_of_all_the_vms_processors(limit: int, count: int, quota: Quota | None) -> None:
    assert Share(count=count, limit=limit).quota == quota


@pytest.mark.parametrize(("weight", "expected"), [(0, 1024), (100, 1024), (200, 2048), (1, 10), (10_000, 102_400)])
def test_a_weight_of_100_is_the_usual_1024_shares(weight: int, expected: int) -> None:
    assert shares(weight) == expected


def test_a_group_of_less_than_the_kernel_gives_gets_the_least() -> None:
    assert quota_of(0.0001) == Quota(1_000, 1_000_000)


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (Share(count=1, limit=100_001), "P.Limit: 100001: from 1 to 100000, which is all; 0 for no limit"),
        (Share(count=1, limit=-1), "P.Limit: -1: from 1 to 100000, which is all; 0 for no limit"),
        (Share(count=1, limit=99), "P.Limit: 99: less than a thousandth of a processor, the least that can be given"),
        (Share(count=4, limit=24), "P.Limit: 24: less than a thousandth of a processor, the least that can be given"),
        (Share(count=1, weight=10_001), "P.Weight: 10001: from 1 to 10000; 0 for the usual 100"),
        (Share(count=1, weight=-5), "P.Weight: -5: from 1 to 10000; 0 for the usual 100"),
    ],
)
def test_a_number_out_of_its_range_is_refused_by_name(share: Share, said: str) -> None:
    assert [f"{problem.path}: {problem.message}" for problem in wrong_share(share, "P")] == [said]


@pytest.mark.parametrize("share", [Share(count=1), Share(count=1, limit=100, weight=1), Share(count=2, limit=100_000, weight=10_000)])
def test_the_ends_of_the_ranges_are_good(share: Share) -> None:
    assert list(wrong_share(share, "P")) == []


def test_the_document_is_read() -> None:
    processor = Processor(count=2, limit=3, weight=4, cpu_group=CpuGroup(id="2FAE"))
    assert share_of(processor) == Share(count=2, limit=3, weight=4, group="2fae")
    assert not share_of(Processor(count=2)).wanted
    assert not share_of(Processor(count=2, cpu_group=CpuGroup(id=NULL_GUID))).wanted


def test_new_limits_keep_the_group_and_a_new_group_the_limits() -> None:
    share = Share(count=2, limit=3, weight=4, group="a")
    assert share.limited(ProcessorLimits(limit=5)) == Share(count=2, limit=5, group="a")
    assert share.grouped(CpuGroup(id="B")) == Share(count=2, limit=3, weight=4, group="b")
    assert share.grouped(CpuGroup(id=NULL_GUID)) == Share(count=2, limit=3, weight=4)
