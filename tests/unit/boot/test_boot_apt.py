import pytest

from utilityvm.boot.apt import parse_depends, parse_uris
from utilityvm.boot.packages import Package
from utilityvm.kit.errors import HostError

DEPENDS = """\
crun
  Depends: libc6
  Depends: libsystemd0
    libelogind0
 |Depends: debconf
 |Depends: cdebconf
  Depends: <debconf-2.0>
  Depends: libyajl2
libc6
libsystemd0
  Depends: libc6
"""


def test_depends_are_read_and_the_first_alternative_is_taken() -> None:
    assert parse_depends(DEPENDS) == {"crun": ["libc6", "libsystemd0", "debconf", "libyajl2"], "libc6": [], "libsystemd0": ["libc6"]}


def test_uris_are_read_with_the_escaped_epoch() -> None:
    line = f"'http://mirror/busybox_1.35%2b1_amd64.deb' busybox-static_1%3a1.35+1_amd64.deb 928188 SHA256:{'ab' * 32}\n"
    assert parse_uris(line) == [Package("busybox-static", "1:1.35+1", "busybox-static_1%3a1.35+1_amd64.deb", 928188, "ab" * 32)]


@pytest.mark.parametrize(
    "line", ["'http://mirror/a.deb' a_1_amd64.deb 12 MD5Sum:00", "W: something", "'http://mirror/a.deb' a_1_amd64.deb"]
)
def test_a_line_without_a_digest_is_refused(line: str) -> None:
    with pytest.raises(HostError, match="cannot be understood"):
        parse_uris(line)
