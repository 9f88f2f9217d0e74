"""Which URLs the gateway may open: one parser, one table of addresses, one resolution.

A URL that came from a caller or from somebody's answer can point into our own network. Three steps keep it out:

    parse_url   text -> SafeUrl; only the plain spelling of a URL passes: no two readers can differ about its host
    admit       parse_url, and scheme, port, literal address and name are allowed (no DNS)
    resolve     host -> addresses; every record must be public, and the caller connects to those very addresses

`app.media.download` calls `resolve` from inside its dialer: there is no way from a checked name to an unchecked socket.
Origins that the operator named (`allowed_origins`) skip `admit` and the verdict on addresses, for exactly that origin.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import quote

from app.errors import InvalidImageUrl

IPAddress = IPv4Address | IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]  # (host, port) -> addresses as text; OSError if there is none

MAX_URL_LENGTH = 8192  # longer than any signed URL of the large object stores
_PORTS = {"http": 80, "https": 443}

# IPv4: everything is public except these. Not `ip.is_global`: what that says has changed between Python releases.
_NOT_PUBLIC_V4: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(network), why)
    for network, why in (
        ("0.0.0.0/8", "this network, RFC 791"),
        ("10.0.0.0/8", "private, RFC 1918"),
        ("100.64.0.0/10", "carrier-grade NAT, RFC 6598; Alibaba's metadata is 100.100.100.200"),
        ("127.0.0.0/8", "loopback, RFC 1122"),
        ("168.63.129.16/32", "Azure's host agent, a public-looking address that only guests reach"),
        ("169.254.0.0/16", "link-local, RFC 3927; the metadata service of most clouds"),
        ("172.16.0.0/12", "private, RFC 1918"),
        ("192.0.0.0/24", "IETF protocol assignments, RFC 6890; Oracle's metadata is 192.0.0.192"),
        ("192.0.2.0/24", "documentation, RFC 5737"),
        ("192.88.99.0/24", "6to4 relay anycast, RFC 7526"),
        ("192.168.0.0/16", "private, RFC 1918"),
        ("198.18.0.0/15", "benchmarking, RFC 2544"),
        ("198.51.100.0/24", "documentation, RFC 5737"),
        ("203.0.113.0/24", "documentation, RFC 5737"),
        ("224.0.0.0/4", "multicast, RFC 5771"),
        ("240.0.0.0/4", "reserved, RFC 1112, and the broadcast address, RFC 919"),
    )
)

# IPv6: nothing is public except 2000::/3 (RFC 4291, the only block from which IANA assigns), less these. What lies
# outside of it (::1, fc00::/7, fe80::/10, ff00::/8 and whatever will be invented) is listed for the log's sake. Tunnels
# that carry an IPv4 address are refused whole: they are deprecated, and no picture is served from one.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NOT_PUBLIC_V6: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(network), why)
    for network, why in (
        ("::/128", "unspecified, RFC 4291"),
        ("::1/128", "loopback, RFC 4291"),
        ("::/96", "IPv4-compatible, RFC 4291, deprecated"),
        ("64:ff9b:1::/48", "local-use NAT64, RFC 8215"),
        ("100::/64", "discard only, RFC 6666"),
        ("2001::/32", "Teredo tunnel, RFC 4380"),
        ("2001::/23", "IETF protocol assignments, RFC 2928: benchmarking (RFC 5180), ORCHID (RFC 4843, 7343)"),
        ("2001:db8::/32", "documentation, RFC 3849"),
        ("2002::/16", "6to4 tunnel, RFC 3056, deprecated by RFC 7526"),
        ("3fff::/20", "documentation, RFC 9637"),
        ("5f00::/16", "segment routing identifiers, RFC 9602"),
        ("fc00::/7", "unique local, RFC 4193"),
        ("fe80::/10", "link-local, RFC 4291"),
        ("fec0::/10", "site-local, RFC 3879, deprecated"),
        ("ff00::/8", "multicast, RFC 4291"),
    )
)
# Addresses that are an IPv4 address in another spelling: the IPv4 address is judged in their place. NAT64's well-known
# prefix is what DNS64 answers for ordinary sites on an IPv6-only network, so it cannot be refused whole.
_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_ISATAP = (0x00005EFE, 0x02005EFE)  # RFC 5214: upper half of the interface identifier; the lower is an IPv4 address

# Zones that never lead to a public server (RFC 6761, 6762, 7686, 9476, ICANN's .internal) and habits of intranets.
_PRIVATE_ZONES = frozenset(
    {"localhost", "localdomain", "local", "internal", "intranet", "private", "corp", "home", "lan"}
    | {"test", "example", "invalid", "onion", "alt"}
)

_FORM = re.compile(
    r"(?P<scheme>https?)://(?P<authority>[^/?#]+)(?P<tail>[/?#].*)?", re.ASCII | re.IGNORECASE | re.DOTALL
)
_AUTHORITY = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[1-9][0-9]{0,4}))?", re.ASCII
)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)  # a last label that some readers take for an IPv4 address
_ODD = re.compile(r"[\x00-\x20\x7f\\]")  # control characters, space, backslash
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


class Unresolvable(InvalidImageUrl):
    """The host has no address now. Unlike a refused URL it may have one later."""


@dataclass(frozen=True, slots=True)
class SafeUrl:
    """A URL that has one reading. Lower-case host without brackets, the port always told, no user, no fragment."""

    scheme: str
    host: str
    port: int
    path: str  # with the query, percent-encoded, never empty
    ip: IPAddress | None  # if the host is one

    @property
    def netloc(self) -> str:
        """Host and port as they stand in a URL and in a Host header."""
        host = f"[{self.host}]" if isinstance(self.ip, IPv6Address) else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port (the default port left out)."""
        return f"{self.scheme}://{self.netloc}"

    def __str__(self) -> str:
        return self.origin + self.path


@dataclass(frozen=True, slots=True)
class Target:
    """A checked URL and the addresses that its host has for this one connection, in the resolver's order."""

    url: SafeUrl
    addresses: tuple[IPAddress, ...]

    @property
    def address(self) -> IPAddress:
        """The address to try first."""
        return self.addresses[0]


def parse_url(url: str) -> SafeUrl:
    """The one reading of `url`, whatever its scheme's port or address. Raises InvalidImageUrl if there could be two."""
    form = _FORM.fullmatch(url) if len(url) <= MAX_URL_LENGTH else None
    if form is None:
        raise InvalidImageUrl("The URL is not a plain http or https URL.")
    tail = form["tail"] or "/"
    if _ODD.search(url) or (tail[0] != "/" and "@" in tail):
        raise InvalidImageUrl("The URL holds characters that have to be percent-encoded.")
    authority = _AUTHORITY.fullmatch(form["authority"])
    if authority is None:
        raise InvalidImageUrl("The URL's host is not a plain host name or address (no user, no escapes, ASCII only).")
    scheme = form["scheme"].lower()
    port = int(authority["port"] or _PORTS[scheme])
    if port > 65535:
        raise InvalidImageUrl("The URL's port is not a port.")
    host, ip = _read_host(authority["v6"], authority["name"])
    try:
        path = quote(tail.partition("#")[0], safe=_PRINTABLE)
    except UnicodeEncodeError:
        raise InvalidImageUrl("The URL holds characters that are no text.") from None
    return SafeUrl(scheme, host, port, path if path.startswith("/") else f"/{path}", ip)


def _read_host(v6: str | None, name: str | None) -> tuple[str, IPAddress | None]:
    try:
        if v6 is not None:
            address: IPAddress = IPv6Address(v6)
            return str(address), address
        assert name is not None
        host = name.lower()
        labels = host.split(".")
        if _NUMERIC.fullmatch(
            labels[-1]
        ):  # decimal, octal, hexadecimal or short spellings of an address are refused here
            address = IPv4Address(host)
            return str(address), address
    except ValueError:
        raise InvalidImageUrl("The URL's host is not an address in its plain spelling.") from None
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidImageUrl("The URL's host is not a host name.")
    return host, None


def why_not_public(ip: IPAddress) -> str | None:
    """What an address is, if it is not one of the public internet; None if it is."""
    if isinstance(ip, IPv4Address):
        return next((why for network, why in _NOT_PUBLIC_V4 if ip in network), None)
    low = int(ip) & 0xFFFFFFFF
    if ip in _MAPPED or ip in _NAT64 or (int(ip) >> 32) & 0xFFFFFFFF in _ISATAP:
        embedded = why_not_public(IPv4Address(low))
        if embedded is not None:
            return f"carries {IPv4Address(low)}: {embedded}"
        if ip in _MAPPED or ip in _NAT64:
            return None
    for network, why in _NOT_PUBLIC_V6:
        if ip in network:
            return why
    return None if ip in _GLOBAL_UNICAST else "not global unicast, RFC 4291"


def is_public(ip: str | IPAddress) -> bool:
    """Whether an address belongs to the public internet. Text that is no address does not."""
    try:
        return why_not_public(ip_address(ip)) is None
    except ValueError:
        return False


def is_public_name(host: str) -> bool:
    """Whether a host name could lead to the public internet, by its looks."""
    labels = host.split(".")
    return len(labels) > 1 and labels[-1] not in _PRIVATE_ZONES and not host.endswith(".home.arpa")  # RFC 8375


def is_handable(url: str) -> bool:
    """Whether a URL may be handed on as it is: https on its own port, to a host that looks public. Asks no DNS."""
    try:
        parsed = parse_url(url)
    except InvalidImageUrl:
        return False
    if parsed.scheme != "https" or parsed.port != 443:
        return False
    return is_public_name(parsed.host) if parsed.ip is None else is_public(parsed.ip)


class SystemResolver:
    """getaddrinfo in threads of its own: a caller's slow name servers must not hold up the threads that all share."""

    def __init__(self, threads: int = 16) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolver")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _getaddrinfo, host, port)
        return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


def _getaddrinfo(host: str, port: int) -> list[tuple[object, object, int, str, tuple[object, ...]]]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


class Guard:
    """The rules for one kind of URL. Use one guard for URLs of callers and another for results, whose provider may have
    origins of its own: what is allowed to a provider is not allowed to a caller."""

    def __init__(
        self, allowed_origins: frozenset[str] = frozenset(), allow_http: bool = False, resolver: Resolver | None = None
    ) -> None:
        try:
            self.allowed_origins = frozenset(parse_url(origin).origin for origin in allowed_origins)
        except InvalidImageUrl as error:
            raise ValueError(f"{sorted(allowed_origins)}: {error}") from None
        self.allow_http = allow_http
        self._resolver = resolver or SystemResolver()

    def trusts(self, url: SafeUrl) -> bool:
        """Whether the operator named this very origin."""
        return url.origin in self.allowed_origins

    def admit(self, url: str) -> SafeUrl:
        """The URL, if it may be opened as far as one can tell without DNS. Raises InvalidImageUrl."""
        parsed = parse_url(url)
        if self.trusts(parsed):
            return parsed
        if parsed.scheme != "https" and not self.allow_http:
            raise InvalidImageUrl("The URL has to be https.")
        if parsed.port not in _PORTS.values():
            raise InvalidImageUrl("The URL's port is not allowed.")
        if parsed.ip is not None:
            _refuse_unless_public(parsed.host, [parsed.ip])
        elif not is_public_name(parsed.host):
            raise InvalidImageUrl("The URL's address is not public.", detail=f"{parsed.host}: a name of a private zone")
        return parsed

    async def resolve(self, host: str, port: int) -> tuple[IPAddress, ...]:
        """All addresses of a host. A single one that is not public refuses the host. Raises InvalidImageUrl."""
        addresses = await self._look_up(host, port)
        _refuse_unless_public(host, addresses)
        return addresses

    async def check(self, url: str) -> Target:
        """The URL with the addresses to connect to, resolved once. Raises InvalidImageUrl."""
        parsed = self.admit(url)
        look_up = self._look_up if self.trusts(parsed) else self.resolve
        return Target(parsed, await look_up(parsed.host, parsed.port))

    async def _look_up(self, host: str, port: int) -> tuple[IPAddress, ...]:
        try:
            return (ip_address(host),)
        except ValueError:
            pass  # a name
        try:
            addresses = tuple(ip_address(text) for text in await self._resolver(host, port))
        except (OSError, ValueError) as error:  # ValueError covers what the idna codec throws
            raise Unresolvable("The URL's host cannot be resolved.", detail=f"{host}: {error}") from None
        if not addresses:
            raise Unresolvable("The URL's host cannot be resolved.", detail=f"{host}: no address")
        return addresses


def _refuse_unless_public(host: str, addresses: Sequence[IPAddress]) -> None:
    for ip in addresses:
        why = why_not_public(ip)
        if why is not None:
            raise InvalidImageUrl("The URL's address is not public.", detail=f"{host} is {ip}: {why}")
