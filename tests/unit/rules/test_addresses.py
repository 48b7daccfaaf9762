"""How addresses of clients are read, whoever wrote them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rules.addresses import find_client, parse_address, parse_ip
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


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("6.6.6.6:4711", "6.6.6.6"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("[::ffff:10.0.0.1]:80", "10.0.0.1"),
        pytest.param("fe80::1%eth0", "fe80::1", id="a zone is no part of what is compared"),
    ],
)
def test_an_address_is_compared_without_port_and_zone(text: str, address: str) -> None:
    assert parse_ip(text) == ip_address(address)


@pytest.mark.parametrize("text", ["", "@", "unknown", "10.0.0.0/8", "010.0.0.1", "10.0.0.1:80:90"])
def test_text_that_is_no_address_is_compared_with_none(text: str) -> None:
    assert parse_ip(text) is None


PROXY, CLIENT = "192.0.2.9", "6.6.6.6"


@pytest.mark.parametrize(
    ("forwarded_for", "trusted", "client"),
    [
        pytest.param(CLIENT, 0, PROXY, id="a header is not believed where there is no proxy"),
        pytest.param("", 1, PROXY, id="without a header it is who opened the connection"),
        pytest.param(CLIENT, 1, CLIENT, id="the proxy names the client"),
        pytest.param(f"{CLIENT}:4711", 1, CLIENT, id="with its port"),
        pytest.param("[2001:db8::1]:4711", 1, "2001:db8::1", id="in brackets"),
        pytest.param("[::ffff:6.6.6.6]:4711", 1, CLIENT, id="as IPv4 in IPv6"),
        pytest.param(f"10.0.0.1, {CLIENT}", 1, CLIENT, id="what the client sent is not believed"),
        pytest.param(f"10.0.0.1,{CLIENT},192.0.2.8", 2, CLIENT, id="proxies count from the right"),
        pytest.param(CLIENT, 2, CLIENT, id="a request went around the outer proxy"),
        pytest.param(f"10.0.0.1, unknown, {CLIENT}", 2, CLIENT, id="the next proxy can be read"),
        pytest.param("10.0.0.1, unknown", 1, PROXY, id="no value of ours can be read"),
        pytest.param("10.0.0.1,", 1, PROXY, id="an empty value is one of ours"),
        pytest.param(f"{CLIENT}, ", 2, CLIENT, id="an empty value is passed over to the right"),
    ],
)
def test_the_client_is_whom_our_own_proxies_name(
    forwarded_for: str, trusted: int, client: str
) -> None:
    assert find_client(f"{PROXY}:80", forwarded_for, trusted) == client


@pytest.mark.parametrize("peer", ["", "@", "unix:/run/rns.sock"])
def test_a_client_without_a_readable_address_has_none(peer: str) -> None:
    assert find_client(peer, "", 0) == ""
    assert find_client(peer, "unknown", 1) == ""
    assert find_client(peer, CLIENT, 1) == CLIENT


@given(header=st.text("0123456789abcdef:.[]% ,x"), trusted=st.integers(0, 3))
def test_nothing_that_a_client_sends_before_our_proxies_changes_its_address(
    header: str, trusted: int
) -> None:
    ours = ", ".join(["6.6.6.6:4711", "10.0.0.2", "10.0.0.3"][:trusted])
    expected = CLIENT if trusted else PROXY

    assert find_client(PROXY, f"{header}, {ours}" if ours else header, trusted) == expected
