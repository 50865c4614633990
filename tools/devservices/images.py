"""The `tools/images` command: container images, pulled where that works, else made here.

A stand-in holds what the machine itself has: a static busybox under all its names (or the shell and
the usual small programs with their libraries), for the names that people expect bash in also bash.
Only `python:...` takes a Debian system of its own, by debootstrap, and only when asked for; it trusts
the authorities that the machine trusts.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from docker import DockerClient
from docker.errors import DockerException, ImageNotFound

from devservices import docker_engine, packages
from devservices.image_tree import Tree
from devservices.processes import ServiceError

USUAL = ("alpine:3.18.3", "ubuntu:mantic")
"""The images that the tests and the examples name."""

WITH_BASH = ("ubuntu", "debian", "bash")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SMALL_PROGRAMS = (
    *("sh", "cat", "cp", "cut", "date", "dd", "echo", "env", "expr", "false", "grep", "head"),
    *("hostname", "id", "kill", "ls", "mkdir", "mv", "od", "printf", "pwd", "rm", "sed", "seq"),
    *("sha256sum", "sleep", "sort", "stat", "tail", "tee", "test", "touch", "tr", "true", "wc"),
    *("whoami", "yes"),
)
PULL_SECONDS = 120
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def main(arguments: Sequence[str] | None = None) -> int:
    """Have each named image; the exit code is 1 where one can't be had."""
    parser = argparse.ArgumentParser(prog="tools/images", description=__doc__)
    parser.add_argument("images", nargs="*", default=[], help=f"the usual: {', '.join(USUAL)}")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only what goes wrong")
    chosen = parser.parse_args(arguments)
    try:
        for name in chosen.images or USUAL:
            how = have(name)
            if not chosen.quiet:
                print(f"{name}: {how}", flush=True)
    except ServiceError as fault:
        print(fault, file=sys.stderr)
        return 1
    return 0


def have(name: str, host: str | None = None) -> str:
    """See that an engine (at `host`, or the usual) has an image of this name; returns how it came.

    Raises ServiceError where there is no engine or no way to make one.
    """
    if ":" not in name.rpartition("/")[2]:
        name += ":latest"
    with docker_engine.client(host, seconds=PULL_SECONDS) as engine:
        try:
            engine.images.get(name)
        except ImageNotFound:
            return "pulled" if _pulled(engine, name) else _stand_in(engine, name)
        except (DockerException, OSError) as fault:
            raise ServiceError(f"no Docker engine answers: {fault}") from fault
        return "already present"


def _pulled(engine: DockerClient, name: str) -> bool:
    try:
        engine.images.pull(name)
    except (DockerException, OSError):
        return False
    return True


def _stand_in(engine: DockerClient, name: str) -> str:
    repository = name.rpartition("/")[2].partition(":")[0]
    if repository == "python":
        _import(engine, name, _debian_with_python(), "python3", f"PIP_CERT={AUTHORITIES}")
        return "could not be pulled; built from a minimal Debian with Python"
    tree = Tree()
    source = _fill(tree)
    if repository in WITH_BASH:
        tree.program("/bin/bash", packages.find("bash") or "/bin/bash")
        source += " and bash"
    _import(engine, name, tree.archive(), "sh")
    return f"could not be pulled; built from this machine's {source}"


def _fill(tree: Tree) -> str:
    """Put the small programs in; returns what they were taken from."""
    busybox = _static_busybox()
    if busybox is None:
        for small in SMALL_PROGRAMS:
            if path := packages.find(small):
                tree.program(f"/bin/{small}", path)
        return "shell and small programs"
    tree.file("/bin/busybox", Path(busybox).read_bytes(), 0o755)
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout
    for applet in set(listed.split()) - {"busybox"}:
        tree.link(f"/bin/{applet}", "busybox")
    tree.link("/usr/bin/env", "/bin/busybox")
    return "busybox"


def _static_busybox() -> str | None:
    try:
        packages.ensure({"busybox": "busybox-static"})
    except ServiceError:
        return None
    busybox = packages.find("busybox") or "busybox"
    linked = subprocess.run(["ldd", busybox], capture_output=True, check=False).returncode == 0
    return None if linked else busybox


def _debian_with_python() -> bytes:
    packages.ensure({"debootstrap": "debootstrap"})
    with tempfile.TemporaryDirectory(prefix="haulier-image-") as folder:
        root = Path(folder) / "root"
        _checked(
            "debootstrap",
            "--variant=minbase",
            "--include=python3,python3-venv,ca-certificates",
            _release(),
            str(root),
        )
        (root / "usr/bin/python").symlink_to("python3")
        shutil.copyfile(AUTHORITIES, root / AUTHORITIES.relative_to("/"))
        for leftover in (root / "var/cache/apt/archives").glob("*.deb"):
            leftover.unlink()
        return _checked("tar", "-C", str(root), "--one-file-system", "-c", ".")


def _release() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return values.get("VERSION_CODENAME", "stable").strip('"')


def _import(engine: DockerClient, name: str, archive: bytes, command: str, *env: str) -> None:
    changes = [
        f'CMD ["{command}"]',
        *(f"ENV {each}" for each in (f"PATH={PATH}", *env)),
        "LABEL haulier.stand-in=true",
    ]
    repository, _, tag = name.rpartition(":")
    try:
        engine.api.import_image_from_data(archive, repository=repository, tag=tag, changes=changes)
        _tag(engine, repository, tag)
    except (DockerException, OSError) as fault:
        raise ServiceError(f"the engine took no image {name}: {fault}") from fault


def _tag(engine: DockerClient, repository: str, tag: str) -> None:
    """Give an imported image its tag, where the engine (Podman) called it `latest`."""
    try:
        engine.images.get(f"{repository}:{tag}")
    except ImageNotFound:
        engine.images.get(f"{repository}:latest").tag(repository, tag)


def _checked(*command: str) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise ServiceError(f"{command[0]} failed: {said[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
