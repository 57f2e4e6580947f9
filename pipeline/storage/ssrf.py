"""Protection from server-side request forgery (SSRF): an HTTP client that refuses addresses a table's links must not reach.

Anyone may have written a table's links. Refused are the worker itself (loopback, unspecified), link-local addresses
(169.254.0.0/16, fe80::/10: where clouds serve the instance's credentials), multicast, reserved addresses, and the metadata
services at other addresses. Private networks (10/8, 172.16/12, 192.168/16, fc00::/7) are allowed, since they often hold a
user's own image servers. If they also hold services without a password, don't allow http for tables of strangers.

The check runs when a socket is opened, so it sees the address really dialled, also after a redirect and whatever a name
resolves to at that time. A proxy that the user configures (client_kwargs) opens its own connections, unchecked.
"""

import socket
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import aiohttp

try:
    USER_AGENT = f"UGRIE/{version('ugrie')}"
except PackageNotFoundError:  # it runs from a folder, not installed
    USER_AGENT = "UGRIE"

# Where clouds serve credentials besides link-local addresses: Alibaba, Azure, Oracle (twice), EC2 and EKS (all of fd00:ec2::/32: metadata,
# Pod Identity, DNS, time), Google, Scaleway.
METADATA = tuple(
    ip_network(each)
    for each in ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:c1::a9fe:a9fe", "fd00:ec2::/32", "fd20:ce::/64", "fd00:42::42")
)
THIS_NETWORK = ip_network("0.0.0.0/8")
CARRIERS = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"), ip_network("::/96"))  # NAT64, IPv4-compatible


class RefusedAddressError(PermissionError):
    """A link leads to an address that tables must not reach."""


def is_refused(address: str) -> bool:
    """Return whether tables must not reach an address, also if an IPv6 address embeds it."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and (embedded := _embedded(ip)):
        return any(map(_is_refused, embedded))
    return _is_refused(ip)


def _embedded(ip: IPv6Address) -> list[IPv4Address]:
    """Return the IPv4 addresses embedded in an IPv6 address."""
    if ip.ipv4_mapped:
        return [ip.ipv4_mapped]
    if ip.sixtofour:
        return [ip.sixtofour]
    if ip.teredo:
        return list(ip.teredo)
    if int(ip) > 1 and any(ip in network for network in CARRIERS):
        return [IPv4Address(int(ip) & 0xFFFFFFFF)]
    return []


def _is_refused(ip: IPv4Address | IPv6Address) -> bool:
    special = ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast or ip.is_reserved
    return special or ip in THIS_NETWORK or any(ip in network for network in METADATA)


def addresses_of(uri: str) -> tuple[tuple[str, int], ...]:
    """Resolve a link given by the user, who may mean this machine, to (address, port) pairs; none if it has no address."""
    link = urlsplit(uri)
    port = link.port or (443 if link.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(link.hostname, port, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return tuple(sorted({(str(where[0]), int(where[1])) for *_, where in found}))


@dataclass(frozen=True)
class WebClient:
    """Factory of fsspec's HTTP sessions (`get_client`), which connect to allowed and `trusted` (address, port) pairs only."""

    trusted: tuple[tuple[str, int], ...] = ()
    connections: int = 100
    idle_seconds: float = 10.0
    user_agent: str = USER_AGENT

    async def __call__(self, **settings: Any) -> "aiohttp.ClientSession":
        import aiohttp
        from multidict import CIMultiDict

        settings.setdefault("timeout", aiohttp.ClientTimeout(total=None, sock_connect=self.idle_seconds, sock_read=self.idle_seconds))
        headers = CIMultiDict({"User-Agent": self.user_agent})
        headers.update(settings.get("headers") or {})  # the user's own, in upper or lower case
        settings["headers"] = headers
        connector = aiohttp.TCPConnector(socket_factory=self.open_socket, limit=self.connections)
        return aiohttp.ClientSession(connector=connector, **settings)

    def open_socket(self, address: Any) -> socket.socket:
        """Open a socket for an entry of getaddrinfo. Raises RefusedAddressError."""
        family, kind, protocol, _, target = address
        if is_refused(target[0]) and (target[0], target[1]) not in self.trusted:
            # The same text for all addresses of a name: aiohttp then raises this error. Texts that differ become a plain OSError.
            raise RefusedAddressError("the link leads to an address that tables may not reach (this machine, its link, a metadata service)")
        return socket.socket(family, kind, protocol)
