"""What services of a node's network say to each other: fields as hcsshim's .proto files number them, and the one that has two meanings."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilityvm.kit.errors import InvalidOptions, Unsupported, UtilityVMError
from utilityvm.wire import ncproxy
from utilityvm.wire.hcn import Dns, HostComputeEndpoint, IpConfig, Route
from utilityvm.wire.protobuf import Message, decode, encode

ENDPOINT = HostComputeEndpoint(name="eth0", namespace="ns", ip_configurations=[IpConfig(ip_address="10.0.0.2", prefix_length=24)])


@pytest.mark.parametrize(
    ("message", "written"),
    [
        (ncproxy.RegisterComputeAgent(agent_address="a", container_id="c"), "0a0161120163"),
        (ncproxy.ConfigureNetworking(container_id="c"), "0a0163"),
        (ncproxy.ConfigureNetworking(container_id="c", request_type=ncproxy.RequestType.TEARDOWN), "0a01631001"),
        (ncproxy.UnregisterComputeAgent(container_id="c"), "0a0163"),
        (ncproxy.AddNIC(container_id="c", nic_id="n", endpoint=b"e"), "0a016312016e1a0165"),
        (ncproxy.DeleteNIC(container_id="c", nic_id="n", endpoint=b"e"), "0a016312016e1a0165"),
        (ncproxy.ModifyNIC(nic_id="n", endpoint=b"e", iov_policy_settings=ncproxy.IovPolicy()), "0a016e1201651a00"),
        (
            ncproxy.IovPolicy(offload_weight=1, queue_pairs_requested=2, interrupt_moderation=300),
            "0801100218ac02",
        ),
        (ncproxy.AssignPCI(container_id="c", device_id="d", virtual_function_index=3, nic_id="n"), "0a0163120164180322016e"),
        (ncproxy.RemovePCI(container_id="c", device_id="d", virtual_function_index=3), "0a01631201641803"),
        (ncproxy.Assigned(id="i"), "0a0169"),
        (ncproxy.Nothing(), ""),
    ],
)
def test_messages_have_the_numbers_of_the_originals_files(message: Message, written: str) -> None:
    assert encode(message).hex() == written
    assert decode(bytes.fromhex(written), type(message)) == message


def test_an_endpoint_is_its_name_to_the_first_agents() -> None:
    assert ncproxy.endpoint("eth0") == b"eth0"
    assert ncproxy.endpoint_of(b"eth0") == HostComputeEndpoint(name="eth0")


def test_an_endpoint_is_a_message_with_json_to_those_of_today() -> None:
    value = b'{"Name":"eth0","HostComputeNamespace":"ns","IpConfigurations":[{"IpAddress":"10.0.0.2","PrefixLength":24}]}'
    field = b"\x0a\x1f" + b"ncproxy/hcn/HostComputeEndpoint" + b"\x12" + bytes([len(value)]) + value
    assert ncproxy.endpoint(ENDPOINT) == field
    assert ncproxy.endpoint_of(field) == ENDPOINT


def test_the_json_of_a_go_program_is_read_with_what_we_do_not_know() -> None:
    told: dict[str, object] = {
        "ID": "id",
        "Name": "eth0",
        "Policies": None,
        "Dns": {"Domain": "d", "ServerList": ["10.0.0.1"]},
        "Routes": [{"NextHop": "10.0.0.1", "DestinationPrefix": "0.0.0.0/0", "Metric": 1}],
        "Health": {"Data": {}},
        "SchemaVersion": {"Major": 2, "Minor": 0},
    }
    field = encode(ncproxy.Any(type_url=ncproxy.HCN_ENDPOINT, value=json.dumps(told).encode()))
    assert ncproxy.endpoint_of(field) == HostComputeEndpoint(
        id="id",
        name="eth0",
        dns=Dns(domain="d", server_list=["10.0.0.1"]),
        routes=[Route(next_hop="10.0.0.1", destination_prefix="0.0.0.0/0", metric=1)],
    )


@given(st.text(min_size=1).filter(lambda name: name[0] != "\n"))
def test_no_name_is_taken_for_a_message(name: str) -> None:
    assert ncproxy.endpoint_of(ncproxy.endpoint(name)).name == name


@pytest.mark.parametrize(
    ("field", "why"),
    [
        (b"\xff", "the endpoint's name is no UTF-8"),
        (b"\x0a\x05a", "the endpoint is neither a name nor a message"),
        (encode(ncproxy.Any(type_url="other", value=b"{}")), "invalid request endpoint type: 'other'"),
        (encode(ncproxy.Any(type_url=ncproxy.HCN_ENDPOINT, value=b"{")), "the endpoint cannot be read"),
        (encode(ncproxy.Any(type_url=ncproxy.HCN_ENDPOINT, value=b'{"Name":1}')), "the endpoint cannot be read"),
        (encode(ncproxy.Any(type_url=ncproxy.HCN_ENDPOINT, value=b'"\xff"')), "the endpoint cannot be read"),
        (encode(ncproxy.Any(type_url=ncproxy.HCN_ENDPOINT, value=b'{"x":' + b"[" * 5000)), "the endpoint cannot be read"),
    ],
)
def test_what_is_neither_is_refused(field: bytes, why: str) -> None:
    with pytest.raises(InvalidOptions, match=why):
        ncproxy.endpoint_of(field)


def test_an_endpoint_of_the_proxys_own_networks_is_refused_by_its_type() -> None:
    with pytest.raises(Unsupported, match="ncproxy/ncproxynetworking/Endpoint: its adapter is a device"):
        ncproxy.endpoint_of(encode(ncproxy.Any(type_url=ncproxy.OWN_ENDPOINT, value=b"{}")))


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda data: b"\x0a" + data))
def test_any_bytes_are_an_endpoint_or_an_error_of_ours(field: bytes) -> None:
    try:
        ncproxy.endpoint_of(field)
    except UtilityVMError:
        return
