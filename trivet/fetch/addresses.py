"""Which addresses a source may be fetched from: public ones, and those that the settings list.

`ipaddress.is_global` is not enough: it lets NAT64, 6to4, site-local, multicast and Azure's host address through.
So IPv4 is public outside a deny list after the IANA special-purpose registries, and IPv6 is public inside
2000::/3 (global unicast, RFC 4291) outside another. An address that carries an IPv4 address in it is never public;
where the settings list its block, the address inside is judged too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from trivet.errors import InvalidRequest, SourceRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: (host, port) → addresses as text, in the order in which they should be tried; raises `OSError` if there are none.
Resolver = Callable[[str, int], Sequence[str]]


class Kind(Enum):
    """What it takes to allow a block that is not public."""

    #: The host's name in the settings, or its address, or a CIDR around it.
    LOCAL = "local"
    #: Its address or a CIDR around it.
    SPECIAL = "special"
    #: An entry that names nothing but metadata addresses, so that 0.0.0.0/0 does not open them.
    METADATA = "metadata"


@dataclass(frozen=True, slots=True)
class Block:
    """A range of addresses that is not public."""

    network: Network
    name: str
    kind: Kind


def _blocks(kind: Kind, name: str, *networks: str) -> tuple[Block, ...]:
    return tuple(Block(ip_network(network), name, kind) for network in networks)


#: Searched in order: the metadata addresses lie inside wider blocks.
BLOCKS: tuple[Block, ...] = (
    *_blocks(Kind.METADATA, "a link-local or metadata address", "169.254.0.0/16", "fe80::/10"),
    *_blocks(
        Kind.METADATA,
        "a metadata address of a cloud",
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure's host, a public address by the registry
        "192.0.0.192/32",  # Oracle, older images
        "fd00:ec2::/32",  # AWS: instance metadata, DNS, time
        "fd20:ce::254/128",  # Google
        "fd00:42::42/128",  # Scaleway
        "fd00:c1::/32",  # Oracle
    ),
    *_blocks(Kind.LOCAL, "a loopback address", "127.0.0.0/8", "::1/128"),
    *_blocks(Kind.LOCAL, "a private address", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
    *_blocks(Kind.LOCAL, "an address shared by a carrier's or cluster's hosts", "100.64.0.0/10"),
    *_blocks(Kind.SPECIAL, "an unspecified address", "0.0.0.0/8", "::/128"),
    *_blocks(Kind.SPECIAL, "a multicast address", "224.0.0.0/4", "ff00::/8"),
    *_blocks(
        Kind.SPECIAL,
        "a reserved address",
        "192.0.0.0/24",
        "198.18.0.0/15",
        "240.0.0.0/4",
        "2001::/23",  # IETF protocol assignments, Teredo and ORCHID among them
    ),
    *_blocks(
        Kind.SPECIAL,
        "a documentation address",
        "192.0.2.0/24",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "2001:db8::/32",
        "3fff::/20",
    ),
    *_blocks(
        Kind.SPECIAL,
        "an address that stands for an IPv4 address",
        "192.88.99.0/24",  # 6to4 relays
        "::/96",
        "::ffff:0:0/96",
        "::ffff:0:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
    ),
    *_blocks(Kind.SPECIAL, "a site-local address", "fec0::/10"),
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_UNASSIGNED = Block(IPv6Network("::/0"), "outside the global unicast range", Kind.SPECIAL)
_IPV4_AT_END = tuple(map(IPv6Network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")))
_ISATAP = (0x00005EFE, 0x02005EFE)

_HOST_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,252})", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*", re.ASCII)


def classify(address: Address) -> Block | None:
    """The block that keeps the address from being public, or None if it is public."""
    for block in BLOCKS:
        if address.version == block.network.version and address in block.network:
            return block
    if isinstance(address, IPv6Address):
        if address not in _GLOBAL_UNICAST:
            return _UNASSIGNED
        if int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
            return Block(IPv6Network((int(address), 128)), "an address that stands for an IPv4 address", Kind.SPECIAL)
    return None


def embedded_ipv4(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address carries (mapped, compatible, NAT64, 6to4, Teredo, ISATAP), if any."""
    if isinstance(address, IPv4Address) or int(address) <= 1:
        return None
    if any(address in network for network in _IPV4_AT_END) or int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address.sixtofour is not None:
        return address.sixtofour
    return address.teredo[1] if address.teredo is not None else None


def literal(host: str) -> Address | None:
    """The host as an address, or None for a name.

    `ValueError` for an address in another form than the usual one (`0x7f.1`, `2130706433`, `127.1`, leading zeros,
    a zone), which resolvers read each in their own way, and for what can be no host name.
    """
    try:
        address = ip_address(host)
    except ValueError:
        if not _HOST_NAME.fullmatch(host):
            raise ValueError("has characters that no host name has") from None
        if _NUMBER.fullmatch(host.rsplit(".", 1)[-1]):
            raise ValueError("is an address in an unusual form") from None
        return None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError("is an address with a zone")
    return address


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of the allow-list: a host name or a network, on one port or on the usual ones."""

    host: str = ""
    network: Network | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Entry:
        """`host`, `host:port`, address, `address:port`, `[v6]:port` or CIDR; `InvalidRequest` for anything else."""
        found = re.fullmatch(r"\[(?P<six>[^\]]+)\](?::(?P<p6>\d+))?|(?P<host>[^:]+)(?::(?P<p>\d+))?|(?P<bare>.+)", text)
        parts = found.groupdict() if found else {}
        name = (parts.get("six") or parts.get("host") or parts.get("bare") or "").strip().rstrip(".").lower()
        digits = parts.get("p6") or parts.get("p")
        port = int(digits) if digits else None
        try:
            if port is not None and not 0 < port < 65536:
                raise ValueError("its port is out of range")
            if "/" in name:
                return cls(network=ip_network(name), port=port)
            address = literal(name)
        except ValueError as error:
            raise InvalidRequest(
                f"Setting TRIVET_ALLOW_ADDRESSES has the entry {text!r}, which cannot be read: {error}.",
                hint="Use host, host:port, an address or a CIDR.",
            ) from None
        return cls(host=name, port=port) if address is None else cls(network=ip_network(address), port=port)

    def on_port(self, port: int) -> bool:
        """Whether the entry speaks of this port."""
        return self.port is None or self.port == port

    def lifts(self, host: str, address: Address, block: Block) -> bool:
        """Whether the entry allows this address although it is in `block`."""
        if self.network is None:
            return block.kind is Kind.LOCAL and self.host == host
        if self.network.version != address.version or address not in self.network:
            return False
        return block.kind is not Kind.METADATA or self._within(block.network)

    def names(self, host: str, addresses: Iterable[Address]) -> bool:
        """Whether the entry names this host, or every one of its addresses."""
        network = self.network
        return self.host == host if network is None else all(address in network for address in addresses)

    def _within(self, network: Network) -> bool:
        mine = self.network
        if isinstance(mine, IPv4Network) and isinstance(network, IPv4Network):
            return mine.subnet_of(network)
        return isinstance(mine, IPv6Network) and isinstance(network, IPv6Network) and mine.subnet_of(network)


@dataclass(frozen=True, slots=True)
class AddressRules:
    """The whole rule: which host, port and addresses may be connected to."""

    entries: tuple[Entry, ...]
    ports: frozenset[int]

    @classmethod
    def of(cls, allow_addresses: Iterable[str], ports: Iterable[int]) -> AddressRules:
        """Rules from the settings `allow_addresses` and `source_ports`."""
        return cls(tuple(Entry.parse(text) for text in allow_addresses), frozenset(ports))

    def admit(self, host: str, port: int, resolve: Resolver, url: str) -> tuple[str, ...]:
        """The addresses to connect to for `host`, which is a name or an address without brackets.

        A host is refused if *any* of its addresses is: a name with one public and one private address is an attack
        or a mistake. `url` is for the message, redacted. Raises `SourceRefused`, and what `resolve` raises.
        """
        host = host.rstrip(".").lower()
        try:
            address = literal(host)
        except ValueError as error:
            raise SourceRefused(
                f"{url} was refused: its host {error}.", hint="Write the host as a name or in the usual form."
            ) from None
        if not self._may_use(port):
            raise self._port_refused(port, url)
        addresses = [address] if address is not None else [ip_address(text) for text in resolve(host, port)]
        if port not in self.ports and not any(e.port == port and e.names(host, addresses) for e in self.entries):
            raise self._port_refused(port, url)
        for each in addresses:
            block = self._refusal(host, port, each)
            if block is not None:
                # A name's address stays out of the message: it would map the network behind it for whoever asks.
                raise SourceRefused(
                    f"{url} was refused: its host {'has' if address is None else 'is'} {block.name}.",
                    hint=f"If it may be used, put the {'host' if block.kind is Kind.LOCAL else 'address itself'} into "
                    "TRIVET_ALLOW_ADDRESSES, here and for the workers.",
                )
        return tuple(map(str, addresses))

    def _may_use(self, port: int) -> bool:
        """Whether the port can be right at all, so that a name is not even looked up for a port that never is."""
        return port in self.ports or any(entry.port == port for entry in self.entries)

    def _port_refused(self, port: int, url: str) -> SourceRefused:
        usual = ", ".join(map(str, sorted(self.ports)))
        return SourceRefused(
            f"{url} was refused: port {port} is not one of {usual}.",
            hint="If it may be used, put host:port into TRIVET_ALLOW_ADDRESSES, or the port into TRIVET_SOURCE_PORTS, "
            "here and for the workers.",
        )

    def _refusal(self, host: str, port: int, address: Address) -> Block | None:
        block = classify(address)
        if block is None:
            return None
        if not any(entry.on_port(port) and entry.lifts(host, address, block) for entry in self.entries):
            return block
        inner = embedded_ipv4(address)
        return None if inner is None else self._refusal(host, port, inner)
