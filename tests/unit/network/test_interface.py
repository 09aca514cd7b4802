"""What iproute2 tells of an interface, and what a guest in its place has of it."""

import pytest

from utilityvm import Exists, HostError, Unsupported
from utilityvm.network.interface import (
    LIMITER,
    MAX_LISTED,
    PREFERENCE,
    Address,
    Link,
    Qdisc,
    TrafficFilter,
    Way,
    check_unchosen,
    left_behind,
    place_of,
    rows,
)
from utilityvm.network.orders import TapRoute

LINKS = """[{"ifindex":1,"ifname":"lo","link_type":"loopback","addr_info":[]},
{"ifindex":2,"link_index":5,"ifname":"eth0","flags":["BROADCAST","UP"],"mtu":1450,"link_type":"ether","address":"0a:58:0a:58:00:02",
"linkinfo":{"info_kind":"veth"},"addr_info":[{"family":"inet","local":"10.88.0.2","prefixlen":16,"broadcast":"10.88.255.255",
"scope":"global","label":"eth0"},{"family":"inet6","local":"fd88::2","prefixlen":64,"scope":"global"},
{"family":"inet6","local":"fe80::858:aff:fe58:2","prefixlen":64,"scope":"link"}]}]"""
WAYS = """[{"dst":"default","gateway":"10.88.0.1","flags":[]},
{"dst":"10.88.0.0/16","protocol":"kernel","scope":"link","prefsrc":"10.88.0.2","flags":[]},
{"dst":"169.254.1.1","scope":"link","flags":[]},{"dst":"10.0.0.0/8","gateway":"10.88.0.9","metric":7,"flags":[]},
{"type":"blackhole","dst":"10.9.0.0/16","flags":[]},
{"dst":"fd88::/64","protocol":"kernel","metric":256,"flags":[],"pref":"medium"},
{"dst":"fe80::/64","protocol":"kernel","metric":256,"flags":[],"pref":"medium"},
{"dst":"default","gateway":"fe80::1","metric":1024,"flags":[],"pref":"medium"}]"""
HOOK = """[{"parent":"ffff:","protocol":"all","pref":30321,"kind":"u32","chain":0},
{"parent":"ffff:","protocol":"all","pref":30321,"kind":"u32","chain":0,"options":{"fh":"800::800","order":2048,"actions":[
{"order":1,"kind":"mirred","mirred_action":"redirect","direction":"egress","to_dev":"uvm1"}]}}]"""


def link() -> Link:
    return rows(LINKS, Link)[1]


def test_a_guest_has_what_its_interface_had() -> None:
    told = place_of(link(), rows(WAYS, Way))
    assert (told.mac, told.mtu) == ("0a:58:0a:58:00:02", 1450)
    assert told.addresses == ["10.88.0.2/16", "fd88::2/64"]
    assert told.routes == [
        TapRoute(destination="0.0.0.0/0", gateway="10.88.0.1"),
        TapRoute(destination="169.254.1.1/32"),
        TapRoute(destination="10.0.0.0/8", gateway="10.88.0.9", metric=7),
        TapRoute(destination="::/0", gateway="fe80::1", metric=1024),
    ]


def test_an_interface_that_is_of_no_use_is_refused_by_its_name() -> None:
    with pytest.raises(HostError, match="the interface lo is no interface of Ethernet but loopback"):
        place_of(rows(LINKS, Link)[0], [])
    with pytest.raises(HostError, match="the interface x has no address"):
        place_of(Link(ifname="x", link_type="ether"), [])
    many = [Address(local="10.0.0.1", prefixlen=8)] * (MAX_LISTED + 1)
    with pytest.raises(Unsupported, match=f"has 65 addresses: at most {MAX_LISTED}"):
        place_of(Link(ifname="x", link_type="ether", addr_info=many), [])


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ('{"dst":"default","via":{"family":"inet6","host":"fe80::1"}}', "of the other family"),
        ('{"dst":"10.0.0.0/8","nexthops":[{},{}]}', "several hops"),
        ('{"dst":"default","scope":"link"}', "no gateway"),
    ],
)
def test_a_way_that_a_guest_cannot_be_told_is_refused(way: str, why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        place_of(link(), rows(f"[{way}]", Way))


def test_what_is_not_understood_is_refused() -> None:
    with pytest.raises(HostError, match="not understood"):
        rows("Device does not exist", Link)
    assert rows("", Way) == []


def test_only_what_a_vm_that_is_gone_has_left_is_removed() -> None:
    ours, ingress = rows(HOOK, TrafficFilter), [Qdisc("noqueue"), Qdisc("ingress")]
    assert ours[1].pref == PREFERENCE
    assert not left_behind("eth0", [Qdisc("noqueue")], [], ["eth0"])
    assert left_behind("eth0", ingress, ours, ["eth0"]) == ["ingress"]
    assert left_behind("eth0", ingress, [], ["eth0"]) == ["ingress"]  # killed between the two
    limiter = Qdisc("tbf", LIMITER, root=True)
    assert left_behind("eth0", [limiter], [], ["eth0"]) == ["root"]
    assert left_behind("eth0", [limiter, ingress[1]], ours, ["eth0"]) == ["ingress", "root"]
    assert left_behind("eth0", [Qdisc("tbf", "1:", root=True)], [], ["eth0"]) == []
    with pytest.raises(Exists, match="the place of the interface eth0 is taken by uvm1"):
        left_behind("eth0", ingress, ours, ["eth0", "uvm1"])
    for qdiscs, filters in (([Qdisc("clsact")], []), (ingress, [*ours, TrafficFilter(pref=1)])):
        with pytest.raises(Exists, match="something else takes the traffic of the interface eth0"):
            left_behind("eth0", qdiscs, filters, ["eth0"])


def test_where_somebody_has_chosen_how_packets_leave_nothing_is_limited() -> None:
    check_unchosen("eth0", [Qdisc("noqueue", "0:", root=True), Qdisc("fq_codel", "1:"), Qdisc("ingress", "ffff:")])
    check_unchosen("eth0", [Qdisc("tbf", LIMITER, root=True)])
    with pytest.raises(Unsupported, match="the rate at eth0 cannot be limited: it has the qdisc htb of somebody's choice"):
        check_unchosen("eth0", [Qdisc("htb", "1:", root=True)])
