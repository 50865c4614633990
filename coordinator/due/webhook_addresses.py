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
NOT_RESOLVED: Final = (
    "the datastore or the broker has this name, which could not be resolved so far"
)
_OWN_EVERY: Final = 30.0
"""Seconds for which the addresses of the datastore and the broker are remembered."""
_RESOLVED_WITHIN: Final = 2.0
_IPV4_AT_THE_END: Final = (
    ipaddress.IPv6Network("64:ff9b::/96"),
    ipaddress.IPv6Network("::ffff:0:0:0/96"),
    ipaddress.IPv6Network("::/96"),
)
"""NAT64, what SIIT translates, and the form that was used before there was `::ffff:0:0/96`."""
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
"""In it a network chooses its own NAT64 prefix (RFC 8215), of a length that nobody else knows."""
_METADATA: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "fd00:ec2::/32",
            "fd00:42::42",
            "fd20:ce::254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
        ),
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
        self._nowhere: frozenset[str] = frozenset()

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
        self._nowhere = frozenset(_same_case(host) for host in hosts if host not in self._own)
        self._own_until = time.monotonic() + _OWN_EVERY

    def check_name(self, host: str) -> None:
        """Raise `OSError` for a host of the datastore's or the broker's of which it is not known yet where it is: it
        can't be told by its address."""
        if _same_case(host) in self._nowhere:
            raise socket.gaierror(socket.EAI_AGAIN, NOT_RESOLVED)

    def refuses(self, text: str) -> bool:
        """Tell whether webhooks may not reach an address."""
        address = _address(text)
        if address is None:
            return False
        inner = _ipv4_in(address)
        allowed = all(_inside(each, self._allowed) for each in inner or {address})
        # What is meant there is a guess: a network says best itself that its own prefix is harmless.
        if allowed or (address in _LOCAL_NAT64 and _inside(address, self._allowed)):
            return False
        found = {address, *inner}
        if any(_inside(each, self._denied) for each in found):
            return True
        return self._guarded and any(
            _only_here(each) or any(each in own for own in self._own.values()) for each in found
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
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _ipv4_in(address: _Address) -> frozenset[ipaddress.IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address may lead to: what tunnels and translators take from it."""
    if isinstance(address, ipaddress.IPv4Address) or int(address) <= 1:
        return frozenset()
    number = int(address)
    if address in _LOCAL_NAT64:
        return _behind_local_nat64(number)
    if _inside(address, _IPV4_AT_THE_END):
        return frozenset({ipaddress.IPv4Address(number & 0xFFFFFFFF)})
    found = {address.ipv4_mapped, address.sixtofour, *(address.teredo or ())}
    if number >> 32 & 0xFDFFFFFF == 0x5EFE:  # ISATAP
        found.add(ipaddress.IPv4Address(number & 0xFFFFFFFF))
    return frozenset(each for each in found if each is not None)


def _behind_local_nat64(number: int) -> frozenset[ipaddress.IPv4Address]:
    """Return what an address means where the prefix has 48, 56, 64 and 96 bits (RFC 6052), as far as that is
    anybody's."""
    read = (
        (number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF,
        (number >> 64 & 0xFF) << 24 | number >> 32 & 0xFFFFFF,
        number >> 24 & 0xFFFFFFFF,
        number & 0xFFFFFFFF,
    )
    some = [each for each in read if each >> 24] or [0]
    return frozenset(map(ipaddress.IPv4Address, some))


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
        or _inside(address, _METADATA)
        or (isinstance(address, ipaddress.IPv4Address) and int(address) >> 24 == 0)
    )


def _same_case(name: str) -> str:
    return name.lower().removesuffix(".")


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
    addresses = [_address(str(info[4][0])) for info in found]
    return frozenset(
        each
        for address in addresses
        if address is not None
        for each in (address, *_ipv4_in(address))
    )
