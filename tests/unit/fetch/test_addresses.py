"""The rule of which addresses may be connected to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.errors import InvalidRequest, SourceRefused
from trivet.fetch.addresses import BLOCKS, AddressRules, Block, Entry, Kind, classify, embedded_ipv4, literal

URL = "http://source/"
NOTHING = AddressRules.of((), (80, 443))

NOT_PUBLIC = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "169.254.1.1",
    "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1",
    "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250",
    "240.0.0.1", "255.255.255.255", "168.63.129.16",
    "::", "::1", "::7f00:1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1",
    "64:ff9b::a9fe:a9fe", "64:ff9b::8.8.8.8", "64:ff9b:1::7f00:1", "100::1", "2001::1", "2001:0:4136:e378::1",
    "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:a9fe:a9fe::1", "2002:808:808::1", "3fff::1",
    "5f00::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "fe80::1", "fec0::1", "ff02::1", "ff0e::1", "4000::1",
    "2a00:1450::5efe:7f00:1", "2a00:1450::200:5efe:a00:1",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700:4700::1111",
    "2a00:1450:4001::1",
]

#: The forms of 127.0.0.1 and 169.254.169.254 that C libraries, browsers and URL parsers have been known to read.
ODD_HOSTS = [
    "127.1", "127.0.1", "0", "0x0", "2130706433", "017700000001", "0x7f000001", "0x7F.0x0.0x0.0x1", "0177.0.0.1",
    "0177.0.0.01", "127.0.0.01", "127.0.0.0x1", "0x7f.1", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376",
    "169.254.43518", "4294967295", "1.2.3.4.5", "127.0.0.1.", "127.0.0.1..", "256.256.256.256", "١٢٧.٠.٠.١",
    "127。0。0。1", "127.0.0.1%00.example.com", "%31%32%37.0.0.1", "127.0.0.1\t", "127.0.0.1 ", "①②⑦.0.0.1",
    "[::1]", "::1%lo", "fe80::1%1",
    "localhost\x00.example.com", "a b", "", ".", "-", "exa\\mple", "exam/ple", "user@host", "host:80", "xn--\u00fc",
]  # fmt: skip


def never(host: str, port: int) -> Sequence[str]:
    raise AssertionError(f"{host}:{port} must not be looked up")


def to(*addresses: str) -> Callable[[str, int], Sequence[str]]:
    return lambda _host, _port: addresses


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused_as_a_literal_and_behind_a_name(address: str) -> None:
    with pytest.raises(SourceRefused):
        NOTHING.admit(address, 80, never, URL)
    with pytest.raises(SourceRefused) as refused:
        NOTHING.admit("name.example", 80, to(address), URL)
    assert address not in str(refused.value), "the message must not map the network behind a name"


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_admitted(address: str) -> None:
    assert NOTHING.admit(address, 443, never, URL) == (address,)
    assert NOTHING.admit("name.example", 80, to(address), URL) == (address,)


@pytest.mark.parametrize("host", ODD_HOSTS)
def test_an_odd_form_of_a_host_is_refused_and_never_looked_up(host: str) -> None:
    with pytest.raises(SourceRefused):
        NOTHING.admit(host, 80, never, URL)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "a-b.example", "xn--mller-kva.de", "x_y.example", "0xa.example", "1.2.example"]
)
def test_a_plain_name_is_looked_up(host: str) -> None:
    assert NOTHING.admit(host, 80, to("8.8.8.8"), URL) == ("8.8.8.8",)


def test_one_refused_address_among_public_ones_refuses_the_host() -> None:
    with pytest.raises(SourceRefused):
        NOTHING.admit("name.example", 80, to("8.8.8.8", "10.0.0.1"), URL)
    with pytest.raises(SourceRefused):
        NOTHING.admit("name.example", 80, to("8.8.8.8", "::ffff:8.8.4.4"), URL)


def test_a_port_outside_the_rule_is_refused_before_any_look_up() -> None:
    for host in ("8.8.8.8", "name.example"):
        with pytest.raises(SourceRefused, match="port 22"):
            NOTHING.admit(host, 22, never, URL)


@pytest.mark.parametrize(
    ("entry", "host", "port", "address", "admitted"),
    [
        ("files.internal", "files.internal", 80, "10.0.0.1", True),
        ("files.internal", "FILES.internal.", 80, "10.0.0.1", True),
        ("files.internal", "other.internal", 80, "10.0.0.1", False),
        ("files.internal", "files.internal", 9000, "10.0.0.1", False),
        ("files.internal:9000", "files.internal", 9000, "10.0.0.1", True),
        ("files.internal:9000", "files.internal", 9001, "10.0.0.1", False),
        ("files.internal:9000", "files.internal", 80, "10.0.0.1", False),
        ("files.internal", "files.internal", 80, "169.254.169.254", False),
        ("files.internal", "files.internal", 80, "100.100.100.200", False),
        ("files.internal", "files.internal", 80, "0.0.0.0", False),
        ("files.internal", "files.internal", 80, "224.0.0.1", False),
        ("files.internal", "files.internal", 80, "::ffff:10.0.0.1", False),
        ("10.0.0.0/8", "any.internal", 80, "10.1.2.3", True),
        ("10.0.0.0/8", "any.internal", 80, "11.1.2.3", True),
        ("10.0.0.0/8", "any.internal", 80, "192.168.0.1", False),
        ("10.0.0.0/8", "any.internal", 8080, "10.1.2.3", False),
        ("10.0.0.0/8:8080", "any.internal", 8080, "10.1.2.3", True),
        ("10.0.0.0/8:8080", "any.example", 8080, "8.8.8.8", False),
        ("example.com:8443", "example.com", 8443, "8.8.8.8", True),
        ("127.0.0.1:5000", "localhost", 5000, "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.1", 80, "127.0.0.1", True),
        ("[::1]:5000", "::1", 5000, "::1", True),
        ("::1", "::1", 80, "::1", True),
        ("0.0.0.0/0", "any.example", 80, "10.0.0.1", True),
        ("0.0.0.0/0", "any.example", 80, "169.254.169.254", False),
        ("100.64.0.0/10", "any.example", 80, "100.100.100.200", False),
        ("::/0", "any.example", 80, "fe80::1", False),
        ("169.254.169.254", "169.254.169.254", 80, "169.254.169.254", True),
        ("169.254.0.0/16", "any.example", 80, "169.254.169.254", True),
        ("64:ff9b::/96", "any.example", 80, "64:ff9b::808:808", True),
        ("64:ff9b::/96", "any.example", 80, "64:ff9b::a9fe:a9fe", False),
        ("64:ff9b::/96", "any.example", 80, "64:ff9b::a00:1", False),
        ("::ffff:0:0/96", "any.example", 80, "::ffff:127.0.0.1", False),
        ("2002::/16", "any.example", 80, "2002:7f00:1::1", False),
    ],
)  # fmt: skip
def test_the_allow_list_lifts_what_it_names_and_nothing_else(
    entry: str, host: str, port: int, address: str, admitted: bool
) -> None:
    rules = AddressRules.of((entry,), (80, 443))
    if admitted:
        assert rules.admit(host, port, to(address), URL) == (address,)
    else:
        with pytest.raises(SourceRefused):
            rules.admit(host, port, to(address), URL)


@pytest.mark.parametrize(
    "text", ["", " ", "host:0", "host:99999", "10.0.0.0/99", "10.0.0.1/8", "a:b:c", "[::1", "0x7f.1", "ho st", "*"]
)
def test_an_entry_that_cannot_be_read_names_itself(text: str) -> None:
    with pytest.raises(InvalidRequest, match="TRIVET_ALLOW_ADDRESSES"):
        Entry.parse(text)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_public_only_where_the_standard_library_says_so_too(address: IPv4Address) -> None:
    if classify(address) is None:
        assert address.is_global
        assert not address.is_multicast


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_is_public_only_in_global_unicast(address: IPv6Address) -> None:
    if classify(address) is None:
        assert address in ip_network("2000::/3")
        assert address.is_global
        assert embedded_ipv4(address) is None


@given(st.sampled_from(BLOCKS), st.data())
def test_no_address_of_a_listed_block_is_public(block: Block, data: st.DataObject) -> None:
    address = data.draw(st.ip_addresses(network=block.network))
    found = classify(address)
    assert found is not None
    if block.kind is Kind.METADATA:
        assert found.kind is Kind.METADATA


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_in_ipv6_clothes_is_never_public_and_is_seen_through(inner: IPv4Address) -> None:
    number = int(inner)
    for carrier in (
        IPv6Address(int(IPv6Address("::ffff:0:0")) | number),
        IPv6Address(int(IPv6Address("64:ff9b::")) | number),
        IPv6Address(int(IPv6Address("2002::")) | number << 80),
        IPv6Address(int(IPv6Address("2a00:1450::200:5efe:0:0")) | number),
        IPv6Address(int(IPv6Address("2001::")) | (number ^ 0xFFFFFFFF)),
    ):
        assert classify(carrier) is not None
        assert embedded_ipv4(carrier) == inner


@given(st.text(max_size=40) | st.from_regex(r"[0-9a-fx.:]{1,20}", fullmatch=True))
def test_a_host_is_an_address_a_name_or_refused_and_a_name_never_ends_in_a_number(host: str) -> None:
    try:
        found = literal(host.lower())
    except ValueError:
        return
    if found is None:
        last = host.rsplit(".", 1)[-1]
        assert host.isascii()
        assert not last.isdigit()
    else:
        assert found == ip_address(host)


@given(st.ip_addresses(), st.integers(1, 65535))
def test_whatever_is_admitted_without_an_allow_list_is_public_and_on_a_usual_port(
    address: IPv4Address | IPv6Address, port: int
) -> None:
    try:
        (admitted,) = NOTHING.admit("name.example", port, to(str(address)), URL)
    except SourceRefused:
        return
    assert port in (80, 443)
    assert ip_address(admitted).is_global
