import itertools
import shutil

import pytest

from utilityvm.boot.index import Index, version_key
from utilityvm.kit.errors import Corrupt
from utilityvm.kit.proc import run_tool

# fmt: off
ASCENDING = [
    "0.9", "1.0~~", "1.0~rc1", "1.0~rc1-1", "1.0~rc2", "1.0", "1.0-1~deb12u1", "1.0-1", "1.0-1+b1", "1.0-1+deb12u1",
    "1.0-1+deb12u1+b1", "1.0-1+deb12u3", "1.0-1+deb12u14", "1.0a", "1.0+dfsg", "1.0.0", "1.9", "1.10", "1.10-1-1", "10",
    "1:0.1", "1:0.1-0+b10", "2:0",
]
# fmt: on


def test_versions_are_ordered_as_debian_does() -> None:
    for older, newer in itertools.combinations(ASCENDING, 2):
        assert version_key(older) < version_key(newer)
    assert version_key("1.0") == version_key("1.00") == version_key("0:1.0-0")


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is not there to compare with")
def test_dpkg_agrees_on_the_order() -> None:
    for older, newer in itertools.pairwise(ASCENDING):
        run_tool(["dpkg", "--compare-versions", older, "lt", newer], within=10)


def test_only_what_is_asked_for_is_read() -> None:
    good = f"Package: good\nVersion: 1\nArchitecture: all\nSize: 3\nSHA256: {'0' * 64}\nFilename: pool/good\n"
    index = Index(f"Package: broken\nVersion: 1\n\n{good}", "http://host")
    (offer,) = index.offers("good")
    assert (offer.url, offer.depends, offer.package.file_name) == ("http://host/pool/good", (), "good_1_all.deb")
    assert index.offers("nothing") == []
    with pytest.raises(Corrupt, match="package broken: the mirror's list does not say its Architecture"):
        index.offers("broken")
