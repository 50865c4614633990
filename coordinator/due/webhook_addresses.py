"""Which addresses webhooks may reach, checked on the one that is connected to, whatever a name resolved to before."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from shared.config.schema import Config

ADDRESS_REFUSED: Final = (
    "webhooks may not reach this address (coordinator.webhooks.allow, coordinator.webhooks.deny)"
)
_OWN_EVERY: Final = 30.0
"""Seconds for which the addresses of the datastore and the broker are remembered."""
_RESOLVED_WITHIN: Final = 2.0
_IPV4_AT_THE_END: Final = (
    ipaddress.IPv6Network("64:ff9b::/96"),
    ipaddress.IPv6Network("::/96"),
)
"""NAT64, and the form that was used before there was `::ffff:0:0/96`."""
_METADATA: Final = frozenset(
    map(
        ipaddress.ip_address,
        ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192"),
    )
)
"""Where clouds hand out credentials other than by a link-local address."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class WebhookAddresses:
    """The addresses that are refused.

    With authentication on, a job's submitter is not trusted with what only this host or its cluster should reach:
    loopback, link-local (where clouds hand out credentials) and the datastore's and broker's own addresses.
    `members`: the datastore's hosts that it knows of itself, for those that its URL does not name."""

    def __init__(self, config: Config, members: Callable[[], Sequence[str]] = tuple) -> None:
        settings = config.coordinator.webhooks
        middleware = config.coordinator.middleware
        self._guarded = middleware.basic_auth.enabled or middleware.key_auth.enabled
        self._allowed = _networks(settings.allow)
        self._denied = _networks(settings.deny)
        self._own_hosts = _own_hosts(config)
        self._members = members
        self._own: dict[str, frozenset[_Address]] = {}
        self._own_until = 0.0

    async def look(self) -> None:
        """Find out where the datastore and the broker are, if that is not known from lately."""
        if not self._guarded or time.monotonic() < self._own_until:
            return
        hosts = tuple({*self._own_hosts, *self._members()})
        found = await asyncio.gather(*map(_resolved, hosts))
        # One that no name server knows just now keeps the addresses it had.
        self._own |= {
            host: addresses for host, addresses in zip(hosts, found, strict=True) if addresses
        }
        self._own_until = time.monotonic() + _OWN_EVERY

    def refuses(self, text: str) -> bool:
        """Tell whether webhooks may not reach an address."""
        address = _address(text)
        if address is None or _inside(address, self._allowed):
            return False
        if _inside(address, self._denied):
            return True
        return self._guarded and (
            _only_here(address) or any(address in own for own in self._own.values())
        )

    def make_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """Make the socket of a connection, or raise `OSError` where its address is refused; for aiohttp."""
        family, kind, protocol, _, where = info
        if self.refuses(str(where[0])):
            raise OSError(ADDRESS_REFUSED)
        return socket.socket(family, kind, protocol)


def _networks(texts: Sequence[str]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def _address(text: str) -> _Address | None:
    """Return an address as the host that it leads to has it: IPv4 inside IPv6 unwrapped."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv4Address):
        return found
    if int(found) > 1 and _inside(found, _IPV4_AT_THE_END):
        return ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    return found.ipv4_mapped or found.sixtofour or found


def _inside(
    address: _Address, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> bool:
    return any(address in network for network in networks)


def _only_here(address: _Address) -> bool:
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address.is_multicast
        or address in _METADATA
        or (isinstance(address, ipaddress.IPv4Address) and int(address) >> 24 == 0)
    )


def _own_hosts(config: Config) -> list[str]:
    """Return the names of the hosts where the datastore and the broker are."""
    urls = []
    if config.datastore.type == "mongodb":
        urls.append(config.datastore.mongodb.url)
    if config.broker.type == "rabbitmq":
        urls += [config.broker.rabbitmq.url, config.broker.rabbitmq.management_url]
    return [host for url in urls for host in _hosts_in(url)]


def _hosts_in(url: str) -> list[str]:
    """Return the hosts of a URL; MongoDB's may name several."""
    places = urlsplit(url).netloc.rpartition("@")[2].split(",")
    names = (urlsplit(f"//{place}").hostname for place in places)
    return [name for name in names if name]


async def _resolved(host: str) -> frozenset[_Address]:
    found: list[Any] = []
    with contextlib.suppress(OSError):  # a name server that takes too long too
        async with asyncio.timeout(_RESOLVED_WITHIN):
            found = await asyncio.get_running_loop().getaddrinfo(host, None)
    addresses = (_address(str(info[4][0])) for info in found)
    return frozenset(address for address in addresses if address is not None)
