"""What a guest may reach, by rules and without any."""

from ipaddress import ip_address, ip_network

import pytest

from utilityvm.kit.errors import InvalidOptions
from utilityvm.network.frames import ICMP, TCP, UDP
from utilityvm.network.policy import CLOSED, MAX_HOSTS, MAX_RULES, NEVER, Policy, Rule, parse_hosts, parse_rules

from .wire import NOWHERE

FREE = Policy()


def refusal(policy: Policy, address: str, port: int = 443, protocol: int = TCP, *names: str) -> str:
    return policy.refusal(ip_address(address), port, protocol, names)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "2a00::1"])
def test_without_rules_public_addresses_are_reached(address: str) -> None:
    assert refusal(FREE, address) == ""
    assert refusal(FREE, address, 0, ICMP) == ""


@pytest.mark.parametrize(
    "address",
    [
        NOWHERE, "0.1.2.3", "127.0.0.1", "127.255.0.1", "10.0.0.1", "10.0.2.2", "172.16.0.1", "172.31.255.255", "192.168.0.1",
        "100.64.0.1", "100.100.100.200", "169.254.169.254", "168.63.129.16", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1",
        "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::8.8.8.8", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1",
        "2001:db8::1", "2002:7f00:1::", "3fff::1", "4000::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1",
    ],
)  # fmt: skip
def test_without_rules_nothing_else_is(address: str) -> None:
    assert refusal(FREE, address) in {"closed", "never"}


def test_the_hosts_own_networks_are_closed_though_they_are_public() -> None:
    policy = Policy(None, (ip_network("9.9.9.7/32"), ip_network("9.9.9.0/24")))
    assert (refusal(policy, "9.9.9.7"), refusal(policy, "9.9.9.9"), refusal(policy, "9.9.8.9")) == ("closed", "closed", "")


def test_with_rules_nothing_is_reached_but_what_one_names() -> None:
    policy = Policy(parse_rules(["1.2.3.0/24:443", "[2600::/16]:80-90/udp", "9.9.9.9"]))
    assert refusal(policy, "1.2.3.4") == ""
    assert refusal(policy, "1.2.3.4", 80) == refusal(policy, "1.2.4.4") == "policy"
    assert refusal(policy, "2600::1", 85, UDP) == ""
    assert refusal(policy, "2600::1", 85, TCP) == refusal(policy, "2600::1", 91, UDP) == "policy"
    assert refusal(policy, "9.9.9.9", 1) == refusal(policy, "9.9.9.9", 0, ICMP) == ""
    assert refusal(policy, "1.2.3.4", 0, ICMP) == "policy"
    assert refusal(Policy(()), "1.1.1.1") == "policy"


def test_what_is_closed_is_opened_by_a_rule_within_it_only() -> None:
    all_of_it = Policy(parse_rules(["0.0.0.0/0", "::/0"]))
    for net in (*CLOSED, *NEVER):
        assert refusal(all_of_it, str(net[-1])) in {"closed", "never"}, net
    assert refusal(all_of_it, "1.1.1.1") == ""
    assert refusal(Policy(parse_rules(["10.0.0.0/7"])), "10.0.0.1") == "closed"
    assert refusal(Policy(parse_rules(["10.0.0.0/8"])), "10.0.0.1") == ""
    assert refusal(Policy(parse_rules(["169.254.169.254:80"])), "169.254.169.254", 80) == ""


def test_a_private_network_that_the_host_is_in_has_to_be_named_by_itself_and_the_host_by_its_address() -> None:
    mine = (ip_network("10.1.2.3/32"), ip_network("10.1.2.0/24"))
    wide, near, exact = (Policy(parse_rules([text]), mine) for text in ("10.0.0.0/8", "10.1.2.0/24", "10.1.2.3"))
    assert [refusal(wide, address) for address in ("10.9.9.9", "10.1.2.9", "10.1.2.3")] == ["", "closed", "closed"]
    assert [refusal(near, address) for address in ("10.9.9.9", "10.1.2.9", "10.1.2.3")] == ["closed", "", "closed"]
    assert refusal(exact, "10.1.2.3") == ""


def test_a_rule_that_names_no_port_is_not_about_asking_for_names() -> None:
    open_, named = Policy(parse_rules(["1.2.3.4", "example.org"])), Policy(parse_rules(["1.2.3.4:853", "1.2.3.4:53/udp"]))
    assert refusal(open_, "1.2.3.4", 53, UDP) == refusal(open_, "1.2.3.4", 853) == "policy"
    assert refusal(open_, "1.1.1.1", 853, TCP, "example.org") == "policy"
    assert refusal(named, "1.2.3.4", 53, UDP) == refusal(named, "1.2.3.4", 853) == ""


def test_a_domain_is_reached_at_the_addresses_that_it_was_told_for_unless_they_are_closed() -> None:
    policy = Policy(parse_rules(["*.example.org:443", "example.net"]))
    assert refusal(policy, "1.1.1.1", 443, TCP, "a.b.example.org") == ""
    assert refusal(policy, "1.1.1.1", 80, TCP, "a.example.org") == "policy"
    assert refusal(policy, "1.1.1.1", 443, TCP, "example.org", "badexample.org", "example.org.evil.net") == "policy"
    assert refusal(policy, "1.1.1.1", 80, TCP, "example.net") == ""
    assert refusal(policy, "10.0.0.1", 80, TCP, "example.net") == "closed"


def test_names_are_asked_for_by_the_rules_and_answers_are_not_closed() -> None:
    policy = Policy(parse_rules(["*.example.org", "10.0.0.0/8"]))
    assert policy.may_ask("a.example.org")
    assert not policy.may_ask("example.org")
    assert not policy.may_ask("")
    assert FREE.may_ask("anything")
    told = {address: policy.may_be_told(ip_address(address)) for address in ("1.1.1.1", "10.1.1.1", "192.168.0.1", "127.0.0.1", "::1")}
    assert told == {"1.1.1.1": True, "10.1.1.1": True, "192.168.0.1": False, "127.0.0.1": False, "::1": False}
    assert FREE.may_be_told(ip_address("127.0.0.1"))


def test_rules_are_read_in_all_their_forms() -> None:
    texts = [
        "1.2.3.0/24",
        "1.2.3.4:443",
        "2001:db8::1",
        "[2001:db8::1]:53/udp",
        "[2001:db8::/32]:1-2",
        "EXAMPLE.org.",
        "*.a.b:8/tcp",
        " c.d ",
    ]
    assert parse_rules(texts) == (
        Rule(net=ip_network("1.2.3.0/24")),
        Rule(net=ip_network("1.2.3.4"), first=443, last=443),
        Rule(net=ip_network("2001:db8::1")),
        Rule(net=ip_network("2001:db8::1"), first=53, last=53, protocol=UDP),
        Rule(net=ip_network("2001:db8::/32"), first=1, last=2),
        Rule(domain="example.org"),
        Rule(domain="*.a.b", first=8, last=8, protocol=TCP),
        Rule(domain="c.d"),
    )
    assert parse_rules(["[2001:db8::]/32:5"]) == (Rule(net=ip_network("2001:db8::/32"), first=5, last=5),)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no domain"),
        ("*", "no domain"),
        ("*.org", "wildcard of everything"),
        ("a..b", "no domain"),
        ("a b", "no domain"),
        ("-a.b", "no domain"),
        ("é.org", "no domain"),
        ("a." * 130 + "b", "no domain"),
        ("1.2.3", "no address"),
        ("1.2.3.4/33", "no address"),
        ("1.2.3.4/8", "no address"),
        ("1.2.3.4:0", "no range"),
        ("1.2.3.4:9-8", "no range"),
        ("1.2.3.4:65536", "no range"),
        ("1.2.3.4:x", "no port"),
        ("1.2.3.4:1-x", "no port"),
        ("1.2.3.4:²", "no port"),
        ("[::1", "bracket"),
        ("[2001:db8::1]80", "bracket"),
        ("127.0.0.0/8", "never reached"),
        ("127.0.0.1:80", "never reached"),
        (NOWHERE, "never reached"),
        ("224.0.0.1", "never reached"),
        ("::1", "never reached"),
        ("::ffff:10.0.0.1", "never reached"),
    ],
)
def test_what_is_no_rule_is_refused_by_what_is_wrong(text: str, why: str) -> None:
    with pytest.raises(InvalidOptions, match=why):
        parse_rules(["1.1.1.1", text])


def test_all_wrong_rules_are_told_at_once_and_there_are_not_too_many() -> None:
    with pytest.raises(InvalidOptions) as caught:
        parse_rules(["1.1.1.1", "x y", "*"])
    assert [problem.path for problem in caught.value.problems] == ["$.allow[1]", "$.allow[2]"]
    assert len(parse_rules(["1.1.1.1"] * MAX_RULES)) == MAX_RULES
    with pytest.raises(InvalidOptions, match="1025 rules: at most 1024"):
        parse_rules(["1.1.1.1"] * (MAX_RULES + 1))


def test_names_are_given_addresses_of_both_families() -> None:
    four, six = ip_address("1.2.3.4"), ip_address("fd00::1")
    assert parse_hosts(["DB.internal.:1.2.3.4", "db.internal:fd00::1", "x:[fd00::1]"]) == {"db.internal": [four, six], "x": [six]}


@pytest.mark.parametrize("text", ["a", "a:", ":1.2.3.4", "a b:1.2.3.4", "*.a.b:1.2.3.4", "a:1.2.3", "a:b:1.2.3.4", "1.2.3.4"])
def test_what_gives_a_name_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidOptions, match="^hosts: ") as caught:
        parse_hosts(["a:1.1.1.1", text])
    assert caught.value.problems[0].path == "$.hosts[1]"


def test_there_are_not_too_many_names_with_addresses() -> None:
    assert len(parse_hosts([f"a{number}:1.1.1.1" for number in range(MAX_HOSTS)])) == MAX_HOSTS
    with pytest.raises(InvalidOptions, match="more than 256"):
        parse_hosts(["a:1.1.1.1"] * (MAX_HOSTS + 1))
