"""Network addresses that a link in a table must not lead to, and the web client that never dials them.

A table's links are anybody's. What they may not reach is the worker itself (loopback, unspecified), its link (169.254.0.0/16,
fe80::/10: where clouds keep the instance's credentials), multicast, reserved addresses, and the metadata services that lie
elsewhere. Private networks (10/8, 172.16/12, 192.168/16, fc00::/7) may be reached: image servers of one's own are common
there. Whoever has other services in them that need no password should not allow http for tables of strangers.

The check is made when a socket is opened, so it sees each address that is really dialled: also after a redirect, and
whatever a name resolved to this time. A proxy that a user sets up (client_kwargs) dials for itself.
"""

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import aiohttp

METADATA = {ip_address(each) for each in ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")}
THIS_NETWORK = ip_network("0.0.0.0/8")
CARRIERS = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"), ip_network("::/96"))  # NAT64 and the old compatible form


class RefusedAddressError(PermissionError):
    """A link leads to an address that tables may not reach."""


def is_refused(address: str) -> bool:
    """Whether tables may not reach an address, in whatever form of IPv6 it is carried."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and (carried := _carried(ip)):
        return any(map(_is_refused, carried))
    return _is_refused(ip)


def _carried(ip: IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for."""
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
    kinds = ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast or ip.is_reserved
    return kinds or ip in METADATA or ip in THIS_NETWORK


def addresses_of(uri: str) -> tuple[tuple[str, int], ...]:
    """The addresses and port of a link that the user gave, who may well mean this machine; none where it has no address."""
    link = urlsplit(uri)
    port = link.port or (443 if link.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(link.hostname, port, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return tuple(sorted({(str(where[0]), int(where[1])) for *_, where in found}))


@dataclass(frozen=True)
class WebClient:
    """What fsspec makes its web sessions with (`get_client`): it dials only what tables may reach, and `trusted` addresses."""

    trusted: tuple[tuple[str, int], ...] = ()
    connections: int = 100
    idle_seconds: float = 10.0

    async def __call__(self, **settings: Any) -> aiohttp.ClientSession:
        settings.setdefault("timeout", aiohttp.ClientTimeout(total=None, sock_connect=self.idle_seconds, sock_read=self.idle_seconds))
        connector = aiohttp.TCPConnector(socket_factory=self.open_socket, limit=self.connections)
        return aiohttp.ClientSession(connector=connector, **settings)

    def open_socket(self, address: Any) -> socket.socket:
        """A socket for an entry of getaddrinfo. Raises RefusedAddressError."""
        family, kind, protocol, _, where = address
        if is_refused(where[0]) and (where[0], where[1]) not in self.trusted:
            # The same words for each address of a name: then what is raised for all of them is this error too.
            raise RefusedAddressError("the link leads to an address that tables may not reach (this machine, its link, a metadata service)")
        return socket.socket(family, kind, protocol)
