"""Where the ports of a sandbox are reached, which is known before it is opened."""

import pytest

from utilityvm import InvalidOptions, NotFound, Sandbox, UserNetwork

pytestmark = pytest.mark.asyncio


async def test_a_published_port_has_a_url_and_another_is_refused_with_what_to_do() -> None:
    box = Sandbox("busybox", network=UserNetwork(publish=("8080:80", "[::1]:8443:443", "9053:53/udp")))
    assert box.url(80) == "http://127.0.0.1:8080"
    assert box.url(443, "https") == "https://[::1]:8443"
    assert [port.guest_port for port in box.ports] == [80, 443, 53]
    for port in (81, 53):
        with pytest.raises(NotFound, match=f"sandbox busybox: port {port} is not published") as caught:
            box.url(port)
        assert f"publish=('8080:{port}',)" in caught.value.hint
    assert Sandbox("busybox").ports == ()


async def test_a_port_that_is_none_is_told_when_the_sandbox_is_made() -> None:
    with pytest.raises(InvalidOptions, match="publish"):
        Sandbox("busybox", network=UserNetwork(publish=("80",)))
