"""What is in `deploy/`: one service of workers that scales, stores that only their users reach, and units that systemd
understands."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from coordinator.queue_stats import QueueDemand
from shared.config.flat_settings import settings
from worker.daemon import STORED_WITHIN

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())["services"]
    return found


def test_workers_are_one_service_that_scales(services: dict[str, Any]) -> None:
    assert [name for name in services if "worker" in name] == ["worker"]
    worker = services["worker"]
    # What two containers of one service could not both have.
    assert not {"container_name", "hostname", "ports"} & worker.keys()
    assert "HAULIER_WORKER_NAME" not in worker["environment"]


def test_coordinators_scale_where_a_range_of_ports_is_given(services: dict[str, Any]) -> None:
    coordinator = services["coordinator"]
    assert not {"container_name", "hostname"} & coordinator.keys()
    assert "HAULIER_COORDINATOR_NAME" not in coordinator["environment"]
    assert coordinator["ports"] == ["127.0.0.1:${HAULIER_PORT:-8000}:8000"]


@pytest.mark.parametrize("port", ["8000", "8000-8009"])
def test_composes_schema_knows_all_of_the_file(port: str) -> None:
    import jsonschema

    vendored = resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((vendored / "compose-spec.json").read_text())
    text = (DEPLOY / "docker-compose.yml").read_text().replace("${HAULIER_PORT:-8000}", port)
    check = jsonschema.Draft202012Validator(schema)
    whole = yaml.safe_load(text)
    assert list(check.iter_errors(whole)) == []
    whole["services"]["worker"]["helthcheck"] = {}
    assert list(check.iter_errors(whole)) != []


def test_only_coordinators_share_a_network_with_the_datastore(services: dict[str, Any]) -> None:
    of = {name: set(service.get("networks", [])) for name, service in services.items()}
    assert {name for name in of if of[name] & of["mongodb"]} == {"mongodb", "coordinator"}
    assert {name for name in of if "api" in of[name]} == {"coordinator"}


def test_each_service_has_a_health_check_and_time_to_stop(services: dict[str, Any]) -> None:
    daemons = {name: service for name, service in services.items() if name != "passwords"}
    assert [name for name, service in daemons.items() if "healthcheck" not in service] == []
    grace = settings()["worker.drain_timeout"].default + STORED_WITHIN
    assert int(services["worker"]["stop_grace_period"].removesuffix("s")) > grace
    (unit,) = [unit for unit in UNITS if "worker" in unit.name]
    given = re.search(r"TimeoutStopSec=(\d+)", unit.read_text())
    assert given is not None
    assert int(given.group(1)) > grace


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Path]:
    """What the first start writes, by the path at which a service finds it."""
    broker, datastore = tmp_path / "broker", tmp_path / "datastore"
    for folder in (broker, datastore):
        folder.mkdir()
    write_passwords(broker, datastore)
    files = [*broker.iterdir(), *datastore.iterdir()]
    return {f"/run/{file.parent.name}/{file.name}": file for file in files}


def write_passwords(broker: Path, datastore: Path, **chosen: str) -> None:
    script: list[str | Path] = ["sh", DEPLOY / "passwords", broker, datastore]
    subprocess.run(script, check=True, env={"PATH": os.environ["PATH"], **chosen})


def test_passwords_are_made_once_and_for_their_reader_alone(made: dict[str, Path]) -> None:
    first = {name: file.read_text() for name, file in made.items()}
    assert {stat.S_IMODE(file.stat().st_mode) for file in made.values()} == {0o600}
    secrets = [text for name, text in first.items() if "url" not in name]
    assert len(secrets) == len(set(secrets)) == 4
    assert {len(text) for text in secrets} == {64}
    # The second start, after one that died before its last file.
    made["/run/datastore/url"].unlink()
    broker, datastore = (made[f"/run/{each}/password"].parent for each in ("broker", "datastore"))
    write_passwords(broker, datastore, RABBITMQ_PASSWORD="x")
    assert {name: file.read_text() for name, file in made.items()} == first


def test_passwords_may_be_chosen(tmp_path: Path) -> None:
    write_passwords(tmp_path, tmp_path, RABBITMQ_PASSWORD="abc", HAULIER_ENCRYPTION_KEY="k")
    assert (tmp_path / "encryption_key").read_text() == "k"
    assert (tmp_path / "management_url").read_text() == "http://haulier:abc@rabbitmq:15672"


def test_services_find_their_passwords(services: dict[str, Any], made: dict[str, Path]) -> None:
    """Each file that a service names is written, on a volume of its own, and of the right kind."""
    known = settings()
    for service in services.values():
        mounted = [volume.split(":")[1] for volume in service["volumes"]]
        text = json.dumps(service)
        for file in re.findall(r"/run/(?:broker|datastore)/\w+", text):
            assert file in made
            assert str(Path(file).parent) in mounted
        for variable in service["environment"]:
            if variable.startswith("HAULIER_") and variable.endswith("_FILE"):
                name = variable.removeprefix("HAULIER_").removesuffix("_FILE")
                assert any(
                    setting.may_be_file and path.replace(".", "_").upper() == name
                    for path, setting in known.items()
                )
    assert "/run/datastore" not in json.dumps(services["worker"])
    url = urlsplit(made["/run/datastore/url"].read_text())
    assert url.password == made["/run/datastore/password"].read_text()
    url = urlsplit(made["/run/broker/url"].read_text())
    assert url.password == made["/run/broker/password"].read_text()


def test_no_service_has_a_password_that_everybody_knows(services: dict[str, Any]) -> None:
    assert re.findall(r"\$\{\w*(?:PASSWORD|KEY)\w*:-[^}]", json.dumps(services)) == []
    assert "--keyFile" in services["mongodb"]["command"]


def manifests() -> list[Any]:
    """Every object of the manifests for Kubernetes."""
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    return [each for file in files for each in yaml.safe_load_all(file.read_text())]


OLDEST = "1.29"
"""The oldest Kubernetes that the manifests are for: it knows sidecars."""


def valid(manifest: Any) -> None:
    """Raise where Kubernetes does not know all of an object. Of KEDA's, the pod alone is looked at."""
    if manifest["kind"] == "ScaledJob":
        template = manifest["spec"]["jobTargetRef"]
        spec = {"template": template["template"], "backoffLimit": template["backoffLimit"]}
        manifest = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {}, "spec": spec}
    if manifest["kind"] != "ScaledObject":
        import kubernetes_validate

        kubernetes_validate.validate(manifest, OLDEST, strict=True)


def test_kubernetes_knows_all_of_the_manifests() -> None:
    import kubernetes_validate

    kinds = [manifest["kind"] for manifest in manifests()]
    assert {"Deployment", "Service", "PodDisruptionBudget", "ScaledObject", "ScaledJob"} <= {*kinds}
    for manifest in manifests():
        valid(manifest)
    (deployment, *_) = (each for each in manifests() if each["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagee"):
        valid(deployment)


def test_scalers_ask_what_the_api_answers() -> None:
    for manifest in manifests():
        for trigger in manifest["spec"].get("triggers", []) if "spec" in manifest else []:
            assert trigger["metadata"]["url"].endswith("/queues/default/scale")
            assert trigger["metadata"]["valueLocation"] in QueueDemand.__struct_fields__


# --- the chart ----------------------------------------------------------------------------------------------------

CHART = DEPLOY / "chart"


def paths(values: Any, prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from paths(value, f"{prefix}{name}.")


def test_the_charts_version_is_the_packages() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]


def test_the_charts_templates_use_the_values_that_there_are() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    texts = [file.read_text() for file in (CHART / "templates").iterdir()]
    text = "\n".join(texts).replace("$worker.", ".Values.worker.")
    used = set(re.findall(r"\.Values\.([\w.]+)", text))
    known = set(paths(values))
    assert used <= known
    leaves = {path for path in known if not any(other.startswith(path + ".") for other in known)}
    assert {path for path in leaves if not any(path.startswith(each) for each in used)} == set()
    for one in texts:
        assert "{{" not in re.sub(r"\{\{.*?\}\}", "", one, flags=re.DOTALL)


@pytest.mark.parametrize(
    "sets",
    [
        [],
        ["worker.engine=dind"],
        ["keda.enabled=true"],
        ["keda.enabled=true", "keda.kind=ScaledJob"],
    ],
    ids=" ".join,
)
def test_the_chart_is_rendered_to_what_kubernetes_knows(sets: list[str]) -> None:
    helm = shutil.which("helm")
    if helm is None:
        pytest.skip("there is no helm (a Go module: helm.sh/helm)")
    command = [helm, "template", "haulier", str(CHART), "--namespace", "haulier"]
    command += [word for each in sets for word in ("--set", each)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rendered = [each for each in yaml.safe_load_all(done.stdout) if each]
    for manifest in rendered:
        valid(manifest)
    kinds = sorted(each["kind"] for each in rendered)
    scaled = {"ScaledJob"} if "keda.kind=ScaledJob" in sets else {"Deployment"}
    assert scaled <= {*kinds}
    assert "MONGODB" not in str([each for each in rendered if "worker" in each["metadata"]["name"]])


def pods() -> dict[str, Any]:
    """The pods of the manifest for Kubernetes, by the names of their deployments."""
    documents = yaml.safe_load_all((DEPLOY / "kubernetes" / "haulier.yaml").read_text())
    return {
        document["metadata"]["name"]: document["spec"]["template"]["spec"]
        for document in documents
        if document["kind"] == "Deployment"
    }


def test_pods_are_asked_how_they_are_and_have_time_to_stop() -> None:
    for pod in pods().values():
        (container,) = pod["containers"]
        assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
        assert container["readinessProbe"]["httpGet"]["path"] == "/health"
    grace = settings()["worker.drain_timeout"].default + STORED_WITHIN
    assert pods()["haulier-worker"]["terminationGracePeriodSeconds"] > grace


def test_a_workers_pod_learns_nothing_of_the_datastore() -> None:
    (worker,) = pods()["haulier-worker"]["containers"]
    assert "MONGODB" not in str(worker)
    assert [source for source in worker["envFrom"] if "secretRef" in source] == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_always_starts_a_process_again(unit: Path) -> None:
    # Exit code 2 also means no Docker engine yet or a busy port, and systemd gives up after 5 starts in 10 s.
    text = unit.read_text()
    assert "Restart=always" in text
    assert "RestartPreventExitStatus" not in text
    given = re.search(r"RestartSec=(\d+)", text)
    assert given is not None
    assert int(given.group(1)) * 4 > 10


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_the_units(unit: Path, tmp_path: Path) -> None:
    here = tmp_path / unit.name
    here.write_text(unit.read_text().replace("/opt/haulier/bin/haulier", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", here], capture_output=True, text=True, check=False
    )
    assert unit.name not in done.stderr, done.stderr
