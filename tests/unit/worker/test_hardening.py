"""What of the worker's configuration is sent to the engine, and what it refuses by it, in words."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from shared.config.schema import Docker, LimitCeilings, WorkerLimits
from shared.model.language import Limits, Mount, TaskDefinition
from shared.model.quantities import amount
from tests.unit.worker.test_host_folders import nest
from worker.log_shipper import LogLength
from worker.runtime import task_folder
from worker.runtime.docker import binds
from worker.runtime.docker.binds import BindRules, listed_source
from worker.runtime.docker.container_spec import (
    Common,
    Mounted,
    Network,
    add_mounts,
    container_config,
    container_limits,
    security_options,
)
from worker.runtime.docker.images import UsedImages, allowed_image, full_name
from worker.runtime.port import ScarceError, TaskError
from worker.runtime.stages import check_texts

NO_BINDS = BindRules(False, (), None, Path("/private"), True)


def sent(mounts: list[Mount] | None = None, **settings: Any) -> dict[str, Any]:
    """What the engine is told of a container."""
    docker = Docker(**settings)
    mounted = Mounted()
    add_mounts(mounted, enumerate(mounts or []), "n", NO_BINDS)
    common = Common({}, mounted, {}, "", security_options(docker))
    task = TaskDefinition(name="t", image="alpine", run="true")
    host: dict[str, Any] = container_config(task, common, {}, Network("own"), docker)["HostConfig"]
    return host


def test_want_of_descriptors_is_not_the_tasks_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = BindRules(True, (listed_source(str(tmp_path)),), None, Path("/private"), True, True)

    def refuse(_: Path) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(binds, "_open_path", refuse)
    with pytest.raises(ScarceError, match=r"mounts\[0\]: the source .*: Too many open files"):
        rules.source(str(tmp_path), "mounts[0]")


def test_the_defaults() -> None:
    host = sent()
    assert host["CapDrop"] == ["NET_RAW"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["NetworkMode"] == "own"
    assert host["Privileged"] is False
    assert not {"Runtime", "UsernsMode", "ReadonlyRootfs"} & set(host)


@pytest.mark.parametrize(
    ("settings", "key", "value"),
    [
        ({"cap_drop": ("ALL",)}, "CapDrop", ["ALL"]),
        ({"cap_drop": ()}, "CapDrop", []),
        ({"oci_runtime": "runsc"}, "Runtime", "runsc"),
        ({"userns": "host"}, "UsernsMode", "host"),
        ({"readonly_root": True}, "ReadonlyRootfs", True),
        ({"readonly_root": True}, "Tmpfs", {"/tmp": ""}),
        (
            {"apparmor": "strict"},
            "SecurityOpt",
            ["no-new-privileges", "apparmor=strict"],
        ),
        (
            {"seccomp": "unconfined", "no_new_privileges": False},
            "SecurityOpt",
            ["seccomp=unconfined"],
        ),
    ],
)
def test_what_is_asked_for(settings: dict[str, Any], key: str, value: Any) -> None:
    assert sent(**settings)[key] == value


def test_a_tasks_own_tmp_stays_its_own() -> None:
    mount = Mount(type="tmpfs", target="/tmp", opts={"size": "1m"})
    assert sent([mount], readonly_root=True)["Tmpfs"] == {"/tmp": "size=1m"}


def test_a_profile_is_sent_with_its_contents(tmp_path: Path) -> None:
    profile = tmp_path / "p.json"
    profile.write_text('{"defaultAction":\n "SCMP_ACT_ALLOW"}')
    (_, option) = sent(seccomp=str(profile))["SecurityOpt"]
    assert json.loads(option.removeprefix("seccomp=")) == {"defaultAction": "SCMP_ACT_ALLOW"}
    profile.write_text("{")
    with pytest.raises(ValueError, match="Expecting"):
        security_options(Docker(seccomp=str(profile)))


# --- limits ---

CEILINGS = WorkerLimits(cpus="1", max=LimitCeilings(cpus="2", memory="1g", pids=100))


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (
            Limits(memory="100t"),
            "limits.memory: 100t is not allowed: on this worker a task can have at most 1g ",
        ),
        (Limits(memory="0"), "worker.limits.max.memory"),
        (
            Limits(cpus="2.5"),
            "limits.cpus: 2.5 is not allowed: on this worker a task can have at most 2 ",
        ),
        (
            Limits(pids=0),
            "limits.pids: 0 is not allowed: on this worker a task can have at most 100 ",
        ),
        (Limits(pids=-1), "worker.limits.max.pids"),
        (Limits(pids=101), "worker.limits.max.pids"),
    ],
)
def test_what_is_over_a_ceiling_is_refused_in_words(asked: Limits, named: str) -> None:
    with pytest.raises(TaskError) as refused:
        container_limits(asked, CEILINGS, Docker())
    assert named in str(refused.value)


def test_a_ceiling_holds_for_who_asks_for_nothing() -> None:
    found = container_limits(None, CEILINGS, Docker())
    assert found == {"PidsLimit": 100, "NanoCpus": 10**9, "Memory": 2**30}
    own = container_limits(Limits(cpus="2", memory="512m", pids=7), CEILINGS, Docker())
    assert own == {"PidsLimit": 7, "NanoCpus": 2 * 10**9, "Memory": 2**29}


def test_limits_without_ceilings() -> None:
    none = WorkerLimits(max=LimitCeilings(pids=0))
    assert container_limits(None, none, Docker()) == {"PidsLimit": 4096}
    assert container_limits(None, none, Docker(pids_limit=0)) == {"PidsLimit": -1}
    assert container_limits(Limits(pids=0), none, Docker()) == {"PidsLimit": -1}
    assert (
        container_limits(Limits(memory="100t"), WorkerLimits(), Docker())["Memory"] == 100 * 2**40
    )
    with pytest.raises(TaskError, match=r"limits: .* is not an amount of memory"):
        container_limits(Limits(memory="much"), CEILINGS, Docker())


# --- images ---


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/alpine:3", "docker.io/library/alpine:3"),
        ("acme/tool", "docker.io/acme/tool:latest"),
        ("localhost/tool", "localhost/tool:latest"),
        ("r.example:5000/a/b:1", "r.example:5000/a/b:1"),
        ("alpine@sha256:ab", "docker.io/library/alpine@sha256:ab"),
        ("f6648c04cd6c", "docker.io/library/f6648c04cd6c:latest"),
    ],
)
def test_names_in_full(image: str, full: str) -> None:
    assert full_name(image) == full
    assert allowed_image(image, ("*",)) == full


@pytest.mark.parametrize(
    ("pattern", "allowed", "refused"),
    [
        (
            "alpine",
            ["alpine", "alpine:3.18", "docker.io/library/alpine@sha256:ab"],
            ["alpine-evil", "acme/alpine"],
        ),
        ("alpine:3.*", ["alpine:3.18"], ["alpine", "alpine:2", "acme/alpine:3.1"]),
        (
            "ghcr.io/acme/*",
            ["ghcr.io/acme/x", "ghcr.io/acme/x:1"],
            ["ghcr.io/evil/x", "ghcr.io.evil/acme/x", "acme/x"],
        ),
        ("localhost:5000/*", ["localhost:5000/a:1"], ["localhost:5001/a"]),
        ("*/acme/*", ["ghcr.io/acme/x", "acme/x"], ["evil/x"]),
    ],
)
def test_images_by_pattern(pattern: str, allowed: list[str], refused: list[str]) -> None:
    for image in allowed:
        allowed_image(image, ("quay.io/no/such", pattern))
    for image in refused:
        with pytest.raises(
            TaskError, match=r"not allowed by this worker \(runtime\.docker\.images\)"
        ):
            allowed_image(image, ("quay.io/no/such", pattern))


def test_which_images_needed_credentials(tmp_path: Path) -> None:
    used = UsedImages(tmp_path / "images")
    used.note_pulled("r/private:1", private=True)
    used.note_pulled("public:1")
    assert [used.is_private(name) for name in ("r/private:1", "public:1", "never")] == [
        True,
        False,
        False,
    ]
    assert set(used.unused(-5)) == {"r/private:1", "public:1"}


# --- what no process can be given ---


def test_a_variable_that_is_too_long_is_named() -> None:
    check_texts({"X": "x" * 131_069}, [])
    with pytest.raises(TaskError) as refused:
        check_texts({"A": "a", "X": "é" * 100_000}, ["true"])
    assert str(refused.value) == (
        "env.X has 200,002 bytes, and a process can be given 131,071 at most: pass it in a file instead "
        "(files: {name: {template: …}})"
    )
    with pytest.raises(TaskError, match=r"^an argument of the command has 131,072 bytes"):
        check_texts({}, ["x" * 131_072])
    with pytest.raises(TaskError, match=r"^env and command have .* \(env.X29 is the largest, with"):
        check_texts({f"X{number}": "x" * (100_000 + number) for number in range(30)}, [])


def test_line_ends_of_a_web_form(tmp_path: Path) -> None:
    task_folder.make(tmp_path / "tork", "#!/bin/sh\r\necho a\r\n")
    assert (tmp_path / "tork/entrypoint").read_bytes() == b"#!/bin/sh\necho a\n"


# --- sizes ---


@pytest.mark.slow
def test_the_size_of_a_folder_of_any_depth(folder: Path) -> None:
    assert task_folder.size_of(folder / "missing") == (0, 0)
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/f").write_bytes(b"x" * 100_000)
    (folder / "a/link").symlink_to("/usr")
    size, files = task_folder.size_of(folder)
    assert 100_000 <= size < 200_000
    assert files == 4
    deep = folder / "deep"
    deep.mkdir()
    nest(deep, task_folder.DEEPEST - 1, "n" * 200)
    assert task_folder.size_of(folder)[0] >= 100_000
    assert task_folder.remove_folder(deep)


@pytest.mark.slow
def test_folders_too_deep_in_one_another_are_not_measured(folder: Path) -> None:
    """Each is looked up from the top: that takes time in proportion to the square of the depth."""
    run = folder / "run"
    run.mkdir()
    nest(run, 20_000)
    began = time.thread_time()
    try:
        with pytest.raises(TaskError, match="more than 1,000 deep in one another"):
            task_folder.size_of(run)
        took = time.thread_time() - began
    finally:  # or pytest itself could not
        removed = task_folder.remove_folder(run)
    assert took < 2
    assert removed


def test_no_more_is_measured_than_tells_that_it_is_too_much(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "file").touch()
    assert task_folder.size_of(tmp_path, 60 * 4096) == (61 * 4096, 61)


def test_each_file_counts_in_the_size_of_a_folder(tmp_path: Path) -> None:
    """A disk has only so many of them, and each takes its time to be removed."""
    for number in range(300):
        (tmp_path / str(number)).touch()
    assert task_folder.size_of(tmp_path) == (300 * 4096, 300)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (2**30, "1 GiB"),
        (1536 * 2**20, "1.5 GiB"),
        (2**20, "1 MiB"),
    ],
)
def test_amounts_in_words(size: int, words: str) -> None:
    assert amount(size) == words


def test_a_log_is_cut_after_a_line_and_says_so() -> None:
    length = LogLength(20)
    assert length.within(b"0123456789\n") == b"0123456789\n"
    assert length.words() == ""
    assert length.within(b"abc\ndef\nghijklmno\n") == b"abc\ndef\n"
    assert length.within(b"x\n") == b""
    assert (
        length.words()
        == "[12 bytes of this log dropped: it is longer than 20 bytes (worker.limits.log)]\n"
    )
    one_line = LogLength(4)
    assert one_line.within(b"abc") == b"abc"
    assert one_line.within(b"defgh") == b""
    assert one_line.words().startswith("\n[5 bytes")
    assert LogLength(0).within(b"x" * 1000) == b"x" * 1000
