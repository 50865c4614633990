"""Credentials for registries from a Docker config file; a fault in one entry disturbs no other registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import structlog
from docker import auth
from docker.errors import DockerException
from docker.utils.config import find_config_file

from shared.errors import RuntimeUnavailable
from worker.runtime.docker.credential_helpers import HelperError, ask_helper

log = structlog.get_logger(__name__)


class CredentialsError(Exception):
    """The file, or what it names, gives no credentials; the text says why."""


class Credentials:
    """What a Docker config file has now: somebody may log in at any time."""

    def __init__(self, named: str) -> None:
        """`named`: the configured file; empty for the one that the docker command uses."""
        self._named = named

    def check(self) -> None:
        """Raise RuntimeUnavailable where the configured file can't be read; warn where the usual one can't."""
        try:
            self._read()
        except CredentialsError as error:
            if self._named:
                raise RuntimeUnavailable(f"runtime.docker.config: {error}") from None
            log.warning("images are pulled without the credentials of this file", reason=str(error))

    def of(self, image: str) -> dict[str, Any]:
        """Return what the engine is told for the pull of an image; empty where there is nothing. Raises
        CredentialsError."""
        try:
            registry = auth.resolve_repository_name(image.partition("@")[0])[0]
        except DockerException:  # no image's name, which the engine says better
            return {}
        try:
            config = self._read()
        except CredentialsError:
            if self._named:
                raise
            return {}  # warned of at the start
        return self._found(config, registry)

    @property
    def _file(self) -> str:
        return self._named or str(find_config_file(None) or "")

    def _read(self) -> dict[str, Any]:
        """Return the file's contents; empty where there is no usual one. Raises CredentialsError."""
        if not self._file:
            return {"auths": {}, "credHelpers": {}, "credsStore": None}
        try:
            config = json.loads(Path(self._file).expanduser().read_bytes())
        except OSError as error:
            raise CredentialsError(f"{self._file}: {error.strerror}") from None
        except ValueError as error:
            raise CredentialsError(f"{self._file} is no JSON: {error}") from None
        if not isinstance(config, dict):
            raise CredentialsError(f"{self._file} is no Docker config file: it is no JSON object")
        return {
            "auths": self._section(config, "auths"),
            "credHelpers": self._section(config, "credHelpers"),
            "credsStore": config.get("credsStore"),
        }

    def _section(self, config: dict[str, Any], name: str) -> dict[str, Any]:
        section = config.get(name)
        if section is None:
            return {}
        if not isinstance(section, dict):
            raise CredentialsError(f"{self._file}: {name} is no JSON object")
        return section

    def _found(self, config: dict[str, Any], registry: str) -> dict[str, Any]:
        helpers = config["credHelpers"]
        usual = auth.INDEX_URL if registry == auth.INDEX_NAME else registry
        server = next((name for name in (usual, registry) if helpers.get(name)), usual)
        helper = helpers.get(server) or config["credsStore"]
        if helper and (kept := self._kept(helper, server, registry)):
            return kept
        entries = config["auths"]
        names = [key for key in entries if auth.resolve_index_name(key) == registry]
        if not names:
            return {}
        key = registry if registry in names else names[0]
        return self._entry(registry, key, entries[key])

    def _kept(self, helper: str, server: str, registry: str) -> dict[str, str] | None:
        try:
            return ask_helper(helper, server)
        except HelperError as error:
            raise CredentialsError(
                f"{self._file} names the helper docker-credential-{helper} for {registry}, which {error}"
            ) from None

    def _entry(self, registry: str, key: str, entry: Any) -> dict[str, Any]:
        try:
            return _login(key, entry)
        except (DockerException, ValueError, TypeError, AttributeError, KeyError):
            raise CredentialsError(
                f"{self._file} has an entry for {registry} that is not a user name and a password"
            ) from None


def _login(key: str, entry: Any) -> dict[str, Any]:
    """Return an entry as the engine takes it. Raises one error or another for what is none."""
    if entry.get("username") and not (entry.get("auth") or entry.get("identitytoken")):
        name, password = entry["username"], entry["password"]
        if not (isinstance(name, str) and isinstance(password, str)):
            raise TypeError
        return {"username": name, "password": password, "serveraddress": key}
    return dict(auth.AuthConfig.parse_auth({key: entry}, raise_on_error=True)[key])
