"""Where a request comes from, and whether it was meant for this server: `Host`, `Origin`, trusted proxies."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware as AioMiddleware

from coordinator.api.context import api_of
from coordinator.api.http import HttpError, RouteHandler
from shared.config.schema import Config

_SERVICE: Final = re.compile(r".+\.svc(?:\.(?P<cluster>.+))?")
"""Names of services inside Kubernetes, with their cluster's domain or without."""
_USUAL_CLUSTER: Final = "cluster.local"
_RESOLVER: Final = Path("/etc/resolv.conf")
_HOST: Final = re.compile(r"[\w.:\[\]%*-]+")
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})

Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]


def client_address(request: web.BaseRequest) -> str:
    """Return the address that a request comes from: the peer's, or what a trusted proxy says."""
    networks = api_of(request).trusted_proxies
    found = request.remote or ""
    if not networks:
        return found
    said = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
    for each in reversed([part.strip() for part in said if part.strip()]):
        if not _inside(found, networks) or _address(each) is None:
            break
        found = each
    return found


def client_network(request: web.BaseRequest) -> str:
    """Return what counts as one client where there are limits: its address, of IPv6 the /64 that each host has for
    itself."""
    found = client_address(request)
    address = _address(found)
    if not isinstance(address, ipaddress.IPv6Address) or address.is_link_local:
        return found
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def came_by_https(request: web.BaseRequest) -> bool:
    """Tell whether the client came by HTTPS, so far as is known."""
    if request.secure:
        return True
    trusted = _inside(request.remote or "", api_of(request).trusted_proxies)
    return trusted and request.headers.get("X-Forwarded-Proto", "").lower() == "https"


def _inside(text: str, networks: Networks) -> bool:
    address = _address(text)
    return address is not None and any(address in network for network in networks)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def searched_domains() -> frozenset[str]:
    """Return the domains in which this host looks for names; inside Kubernetes `svc.` and the cluster's is one."""
    try:
        lines = _RESOLVER.read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    words = [line.split() for line in lines]
    return frozenset(
        domain.lower().rstrip(".")
        for line in words
        if line[:1] == ["search"]
        for domain in line[1:]
    )


class HostNames:
    """The names by which this server may be asked for."""

    def __init__(self, listed: Sequence[str], own: str = "") -> None:
        self._listed = tuple(name.lower() for name in listed)
        self._own = {socket.gethostname().lower(), own.lower()}
        self._searched = searched_domains()

    def include(self, host: str) -> bool:
        """Tell whether `host`, a `Host` header, is one of them: no web page can have made it one."""
        name = _name_in(host)
        if name is None:
            return False
        if "." not in name or ":" in name or _address(name) is not None or name in self._own:
            return True
        return self._is_service(name) or any(
            fnmatch.fnmatchcase(name, each) for each in self._listed
        )

    def _is_service(self, name: str) -> bool:
        """Tell whether a name is a service's in Kubernetes: whoever owns a domain can name a host `x.svc` in it, and on
        a private network anybody may own one that nobody can register."""
        found = _SERVICE.fullmatch(name)
        if found is None:
            return False
        cluster = found["cluster"]
        return cluster in (None, _USUAL_CLUSTER) or f"svc.{cluster}" in self._searched

    def listed(self, host: str) -> bool:
        """Tell whether it is one of those that the configuration lists."""
        name = _name_in(host)
        return name is not None and any(fnmatch.fnmatchcase(name, each) for each in self._listed)


def _name_in(host: str) -> str | None:
    """Return the name in a `Host` header, in small letters, without port and final dot; None where it is no name."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if parts.netloc != host or not parts.hostname or not _HOST.fullmatch(host):
        return None
    return parts.hostname.removesuffix(".")


def own_names_only(config: Config) -> AioMiddleware:
    """Return the middleware: 421 for another server's name, 403 for a change that another site's page asks for.

    Without it a web page could reach a server on its reader's machine or network by a name of its own, which it has
    resolve to that address (DNS rebinding)."""
    names = HostNames(config.coordinator.hosts, config.coordinator.address.rpartition(":")[0])
    cors = config.coordinator.middleware.cors

    def foreign(request: web.Request) -> bool:
        origin = request.headers.get("Origin")
        if request.method in _READING or origin is None:
            return False
        if cors.enabled and (origin in cors.origins or "*" in cors.origins):
            return False
        site = origin.partition("://")[2].lower()
        return not site or (
            site != request.headers.get("Host", "").lower() and not names.listed(site)
        )

    @web.middleware
    async def checked(request: web.Request, handler: RouteHandler) -> web.StreamResponse:
        hosts = request.headers.getall("Host", [])
        health = request.path == "/health" or request.path.startswith("/health/")
        if not health and not all(names.include(host) for host in hosts if host):
            message = (
                "this server does not go by that name; if it should, add it to coordinator.hosts"
            )
            raise HttpError(421, message)
        if foreign(request):
            raise HttpError(403, "a page of another site may not change anything here (Origin)")
        return await handler(request)

    return checked
