"""What only containers can show: small tasks and sidecars with each of their fields, limits that hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.acceptance.definitions import IMAGE, job, named, seconds, task
from tests.acceptance.processes import Standalone
from tests.services.fixtures import Registry

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker"), pytest.mark.timeout(180)]

PRIVATE = "language/alpine:3.18.3"

SERVE = r"""
while read -r line && [ ${#line} -gt 1 ]; do :; done
printf 'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' ${#ANSWER} "$ANSWER"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, docker_host: str) -> Iterator[Standalone]:
    made = Standalone(tmp_path_factory.mktemp("docker"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def private(docker_engine: docker.DockerClient, registry: Registry) -> str:
    """An image that only the registry has, for those who have its password."""
    name = f"{registry.address}/{PRIVATE}"
    docker_engine.images.get(IMAGE).tag(name)
    credentials = {"username": registry.username, "password": registry.password}
    pushed = docker_engine.images.push(name, auth_config=credentials)
    assert '"error"' not in pushed, pushed
    docker_engine.images.remove(name)
    return name


def run(server: Standalone, *tasks: dict[str, Any], **fields: Any) -> Any:
    """Run a job to its end."""
    return server.wait_job(server.submit(job(*tasks, **fields)))


def credentials() -> dict[str, str]:
    return {"username": "{{ inputs.username }}", "password": "{{ secrets.password }}"}


# --- images ---------------------------------------------------------------------------------------------------------


def test_an_odd_entry_of_the_credentials_file_fails_the_task_once(
    standalone: Callable[..., Standalone], tmp_path: Path
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"auths": {"localhost:5998": {"auth": ""}}}))
    server = standalone(docker=True, HAULIER_RUNTIME_DOCKER_CONFIG=str(file))
    image = "localhost:5998/private:1"
    (failed,) = run(server, task(image=image))["execution"]
    assert failed["state"] == "FAILED"
    assert "redelivered" not in failed["error"]
    assert image in failed["error"]
    assert f"{file} has an entry for localhost:5998 that is not" in failed["error"]
    (fine,) = run(server, task())["execution"]
    assert fine["state"] == "COMPLETED", "the file disturbs no other image"


# --- pre and post -------------------------------------------------------------------------------------------------


def test_small_tasks_have_all_their_fields(
    server: Standalone, private: str, registry: Registry
) -> None:
    pre = [
        {
            "name": "pre {{ inputs.n }}",
            "description": "with a script, its environment and files",
            "image": "{{ inputs.image }}",
            "registry": credentials(),
            "env": {"A": "{{ inputs.n }}"},
            "files": {"d/f.txt": "{{ as it is }}\n"},
            "run": 'echo "pre $A"; cat d/f.txt; echo shared > /data/x',
            "timeout": "1m",
        },
        {"image": IMAGE, "cmd": ["echo", "cmd {{ inputs.n }}"]},
        {"image": IMAGE, "entrypoint": ["echo", "{{ never }}"], "cmd": ["entrypoint"]},
    ]
    main = task(
        'cat /data/x; printf main > "$TORK_OUTPUT"; echo used > /data/x',
        mounts=[{"type": "volume", "target": "/data"}],
        pre=pre,
        post=[{"image": IMAGE, "run": 'cat /data/x; printf post > "$TORK_OUTPUT"'}],
        var="v",
    )
    done = run(
        server,
        main,
        inputs={"n": "7", "image": private, "username": registry.username},
        secrets={"password": registry.password},
        output="{{ tasks.v }}",
    )
    assert done["state"] == "COMPLETED", done
    assert done["result"] == "main"
    lines = [line for line in server.log_of(done["id"]).splitlines() if "ull" not in line]
    assert lines[-6:] == [
        "pre 7",
        "{{ as it is }}",
        "cmd 7",
        "{{ never }} entrypoint",
        "shared",
        "used",
    ]
    (ran,) = done["execution"]
    assert ran["pre"][0]["name"] == "pre 7"
    assert ran["pre"][0]["description"] == "with a script, its environment and files"
    assert ran["pre"][0]["registry"]["password"] == "[REDACTED]"


@pytest.mark.parametrize("place", ["pre", "post"])
def test_a_small_task_past_its_timeout_fails_the_task(server: Standalone, place: str) -> None:
    slow = {"name": "slow one", "image": IMAGE, "run": "sleep 60", "timeout": "500ms"}
    done = run(server, task("true", **{place: [slow]}))
    assert done["state"] == "FAILED"
    assert "500ms" in done["error"]
    (ran,) = done["execution"]
    assert seconds(ran["failedAt"]) - seconds(ran["startedAt"]) < 15


# --- sidecars -----------------------------------------------------------------------------------------------------


def test_sidecars_have_all_their_fields(
    server: Standalone, private: str, registry: Registry
) -> None:
    sidecars = [
        {
            "name": "First {{ inputs.n }}",
            "description": "answers with its environment",
            "image": "{{ inputs.image }}",
            "registry": credentials(),
            "env": {"ANSWER": "one-{{ inputs.n }}"},
            "files": {"serve.sh": SERVE},
            "run": "while true; do nc -l -p 8080 -e sh serve.sh; done",
            "probe": {"path": "/ready", "port": 8080, "timeout": "20s"},
        },
        {
            "name": "second",
            "image": IMAGE,
            "entrypoint": ["sh", "-c"],
            "cmd": ["while true; do nc -l -p 80 -e sh /data/serve.sh; done"],
            "env": {"ANSWER": "two"},
            "probe": {},
        },
    ]
    main = task(
        'wget -qO- http://first-7:8080/ >> "$TORK_OUTPUT"; wget -qO- http://second/ >> "$TORK_OUTPUT"',
        mounts=[{"type": "volume", "target": "/data"}],
        pre=[{"image": IMAGE, "files": {"serve.sh": SERVE}, "run": "cp serve.sh /data/"}],
        sidecars=sidecars,
        timeout="90s",
    )
    done = run(
        server,
        main,
        inputs={"n": "7", "image": private, "username": registry.username},
        secrets={"password": registry.password},
    )
    assert done["state"] == "COMPLETED", (done, server.log_of(done["id"]))
    assert named(done, "task")[0]["result"] == "one-7two"


def test_a_sidecar_that_never_answers_fails_the_task_in_its_time(server: Standalone) -> None:
    silent = {
        "name": "silent",
        "image": IMAGE,
        "run": "sleep 60",
        "probe": {"port": 9, "timeout": "1s"},
    }
    done = run(server, task("echo never", sidecars=[silent]))
    assert done["state"] == "FAILED"
    assert "silent" in done["error"]
    assert "never" not in server.log_of(done["id"]).splitlines()


def test_a_sidecar_has_a_time_limit_of_its_own(server: Standalone) -> None:
    short = {"name": "short", "image": IMAGE, "run": "sleep 60", "timeout": "1s"}
    done = run(server, task("sleep 60", sidecars=[short]))
    assert done["state"] == "FAILED"
    assert "sidecar 'short': timed out after 1s" in done["error"]
    (ran,) = done["execution"]
    assert seconds(ran["failedAt"]) - seconds(ran["startedAt"]) < 15
    long = {**short, "timeout": "1m"}
    assert run(server, task("echo done", sidecars=[long]))["state"] == "COMPLETED"


# --- what a container may use -------------------------------------------------------------------------------------


def test_limits_hold_inside(server: Standalone) -> None:
    script = """
    cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max 2>/dev/null ||
    cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us
    """
    limits = {"cpus": ".5", "memory": "64m", "pids": 50}
    done = run(server, task(script, limits=limits, name="own"), defaults={"limits": {"pids": 9}})
    assert done["state"] == "COMPLETED", done
    memory, pids, cpu = server.log_of(done["id"]).split()[:3]
    assert (memory, pids, cpu) == (str(64 * 1024 * 1024), "50", "50000")


def test_limits_of_the_defaults_merge_field_by_field(server: Standalone) -> None:
    done = run(
        server,
        task("true", name="own", limits={"memory": "96m"}),
        {"name": "all", "parallel": {"tasks": [task("true", name="inner")]}},
        defaults={"limits": {"memory": "64m", "pids": 99}},
    )
    assert done["state"] == "COMPLETED"
    assert named(done, "own")[0]["limits"] == {"memory": "96m", "pids": 99}
    assert named(done, "inner")[0]["limits"] == {"memory": "64m", "pids": 99}


def test_more_memory_than_allowed_is_said_to_be_the_reason(server: Standalone) -> None:
    hungry = "head -c 200m /dev/zero | tail"
    done = run(server, task(hungry, limits={"memory": "16m"}))
    assert done["state"] == "FAILED"
    assert "memory" in done["error"]


def test_a_task_is_retried_on_a_container_of_its_own(server: Standalone) -> None:
    script = 'ls /left 2>/dev/null; touch /left; test "$HAULIER_ATTEMPT" = 2'
    done = run(server, task(script, retry={"limit": 1, "initialDelay": "10ms"}))
    assert done["state"] == "COMPLETED"
    assert server.log_of(done["id"]) == ""
