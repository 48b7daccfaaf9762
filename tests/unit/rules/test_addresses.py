"""How addresses of clients are read, whoever wrote them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rules.addresses import parse_address
from app.rules.text import clean_text


@pytest.mark.parametrize(
    ("text", "address"),
    [
        pytest.param("10.0.0.1", "10.0.0.1", id="IPv4 stays as it is"),
        pytest.param("6.6.6.6:4711", "6.6.6.6", id="IPv4 loses its port"),
        pytest.param("6.6.6.6:", "6.6.6.6", id="IPv4 loses an empty port"),
        pytest.param("::1", "::1", id="IPv6 without brackets has no port to lose"),
        pytest.param("2001:db8::1:5000", "2001:db8::1:5000", id="its last group is no port"),
        pytest.param("::", "::", id="the address of nothing is one"),
        pytest.param("[2001:db8::1]:46938", "2001:db8::1", id="IPv6 loses brackets and port"),
        pytest.param("[2001:db8::1]", "2001:db8::1", id="IPv6 loses brackets without port"),
        pytest.param("[2001:db8::1]:", "2001:db8::1", id="IPv6 loses an empty port"),
        pytest.param("2001:DB8:0:0::1", "2001:db8::1", id="IPv6 has one spelling"),
        pytest.param("[::ffff:10.0.0.1]:80", "10.0.0.1", id="IPv4 in IPv6 with port is IPv4"),
        pytest.param("::FFFF:10.0.0.1", "10.0.0.1", id="IPv4 in IPv6 in capitals is IPv4"),
        pytest.param("::ffff:a00:1", "10.0.0.1", id="IPv4 in IPv6 in hexadecimal is IPv4"),
        pytest.param("fe80::1%eth0", "fe80::1%eth0", id="a zone stays"),
        pytest.param("[fe80::1%eth0]:80", "fe80::1%eth0", id="a zone stays without the port"),
        pytest.param("::ffff:10.0.0.1%eth0", "10.0.0.1", id="IPv4 has no zone"),
        pytest.param("10.1.2.3, 172.18.0.1", "10.1.2.3", id="the first of a list counts"),
        pytest.param("10.1.2.3,172.18.0.1", "10.1.2.3", id="also without a space"),
        pytest.param("6.6.6.6:4711, 10.0.0.1:80", "6.6.6.6", id="the first loses its port"),
        pytest.param("[::1]:80, 10.0.0.1", "::1", id="the first loses its brackets"),
        pytest.param(", 10.1.2.3, 172.18.0.1", "10.1.2.3", id="an empty place is passed over"),
        pytest.param("unknown, 10.0.0.1", "unknown", id="a first that is no address is no other"),
        pytest.param(" 10.0.0.1:80", "10.0.0.1", id="a space before it does not matter"),
        pytest.param("\t[::1]:80 ", "::1", id="a tab and a space around it do not matter"),
        pytest.param("[ ::1 ]:80", "::1", id="spaces in brackets do not matter"),
    ],
)
def test_an_address_is_without_port_and_in_one_spelling(text: str, address: str) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        pytest.param("", "", id="nothing is nothing"),
        pytest.param("@", "@", id="a Unix socket is @"),
        pytest.param("unknown", "unknown", id="a word stays"),
        pytest.param("_hidden:1", "_hidden", id="a hidden name loses its port"),
        pytest.param("client.example:80", "client.example", id="a host loses its port"),
        pytest.param("010.0.0.1", "010.0.0.1", id="a leading zero is no address"),
        pytest.param("10.0.0.256:80", "10.0.0.256", id="256 is no part of an address"),
        pytest.param("10.0.0.1:80:90", "10.0.0.1:80:90", id="two ports are none"),
        pytest.param("[v6]:port", "[v6]:port", id="a port is a number"),
        pytest.param("[]:80", "", id="empty brackets are nothing"),
        pytest.param("fe80::1%\u202eeth0", "fe80::1%eth0", id="a zone is cleaned"),
        pytest.param("a\x1b[31m\nb", "a[31mb", id="control characters are taken out"),
        pytest.param("x" * 100, "x" * 64, id="a long word is cut"),
        pytest.param("::1%" + "z" * 100, "::1%" + "z" * 60, id="a long zone is cut"),
    ],
)
def test_what_is_no_address_stays_clean_and_bounded(text: str, kept: str) -> None:
    assert parse_address(text) == kept


@given(text=st.text(st.characters()) | st.text("0123456789abcdef:.[]% ,"))
def test_any_address_is_bounded_and_clean(text: str) -> None:
    address = parse_address(text)

    assert address == clean_text(address, 64)


@given(address=st.ip_addresses(), port=st.integers(1, 65535))
def test_no_port_makes_another_address(address: object, port: int) -> None:
    text = f"[{address}]" if ":" in str(address) else str(address)

    assert parse_address(f"{text}:{port}") == parse_address(str(address))
