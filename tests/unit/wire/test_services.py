"""Hvsocket services and the ports that stand for them."""

import pytest

from utilityvm.wire import services


@pytest.mark.parametrize("port", [0, 1, 80, 0x4000_0000, 0xFFFF_FFFF])
def test_a_port_s_service_is_that_port_s_again_in_any_case_of_letters(port: int) -> None:
    assert services.port_of(services.service_id(port)) == port
    assert services.port_of(services.service_id(port).upper()) == port


@pytest.mark.parametrize("service", ["", "80", "acef5661-84a1-4e44-856b-6245e69f4620", "00000050-facb-11e6-bd58-64006a7986d3x"])
def test_other_services_are_no_port_s(service: str) -> None:
    assert services.port_of(service) is None


def test_a_vm_needs_some_ports_itself() -> None:
    assert [bool(services.needed_for(port)) for port in (1, 2, 109, 564, 0x3FFF_FFFF, 0x4000_0000, 0x7FFF_FFFF, 0x8000_0000)] == [
        True,
        False,
        True,
        True,
        False,
        True,
        True,
        False,
    ]
