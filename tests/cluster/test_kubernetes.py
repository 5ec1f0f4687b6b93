"""The Kubernetes files: right by schema, and right by each other."""

import copy
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from cluster_kit import FOLDER, ROOT, load
from kuberay_schema import SCHEMAS
from typer.main import get_command

from jobs.cli import app
from jobs.job.catalog_spec import load_catalog

FILES = sorted(path.name for path in FOLDER.glob("*.yaml"))
KUBERNETES = "1.37.0"
METRICS = "0.0.0.0:9200"


def check(document: dict[str, Any]) -> None:
    """Refuse a document that its schema, or that of a pod in it, does not allow."""
    schema = SCHEMAS.get(document["kind"])
    if schema is None:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        return
    jsonschema.validate(document, schema)
    for spec in pods(document):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "any"}, "spec": spec}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def pods(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every pod's spec in a document."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for item in value.values():
            yield from pods(item)
    elif isinstance(value, list):
        for item in value:
            yield from pods(item)


def cluster_specs() -> dict[str, Any]:
    return {
        "RayCluster": load("ray-cluster.yaml")["spec"],
        "RayJob": load("ray-job.yaml")["spec"]["rayClusterSpec"],
        "RayCronJob": load("ray-cron-job.yaml")["spec"]["jobTemplate"]["rayClusterSpec"],
    }


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_what_its_schema_allows(name: str):
    check(load(name))


def _misspell_worker(document: dict[str, Any]) -> None:
    group = document["spec"]["workerGroupSpecs"][0]
    group["maxReplica"] = group.pop("maxReplicas")


def _misspell_pod(document: dict[str, Any]) -> None:
    pod = next(pods(document))
    pod["securityContexts"] = pod.pop("securityContext")


def _number_as_param(document: dict[str, Any]) -> None:
    document["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


@pytest.mark.parametrize("change", [_misspell_worker, _misspell_pod, _number_as_param])
def test_a_mistake_in_a_file_would_be_seen(change: Callable[[dict[str, Any]], None]):
    document = copy.deepcopy(load("ray-cluster.yaml"))
    change(document)
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(document)


def test_a_cron_job_with_a_misspelt_setting_would_be_seen():
    document = load("cron-job.yaml")
    document["spec"]["concurrencyPolicies"] = document["spec"].pop("concurrencyPolicy")
    with pytest.raises(kubernetes_validate.ValidationError):
        check(document)


@pytest.mark.parametrize("kind", ["RayJob", "RayCronJob"])
def test_a_job_gets_the_same_cluster_as_the_one_that_stays(kind: str):
    specs = cluster_specs()
    assert specs[kind] == specs["RayCluster"]


@pytest.mark.parametrize("name", FILES)
def test_no_pod_is_root_and_each_has_its_memory_limit_and_the_same_disks(name: str):
    for pod in pods(load(name)):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert "memory" in container["resources"]["limits"]
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounts == {"jobs": "/jobs", "data": "/data"}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        claim = volumes["data"]["persistentVolumeClaim"]["claimName"]
        assert claim == load("storage.yaml")["metadata"]["name"]
        assert volumes["jobs"]["configMap"]["name"] == load("job-files.yaml")["metadata"]["name"]


def test_gpu_machines_come_from_none_may_be_spot_and_go_when_idle():
    spec = cluster_specs()["RayCluster"]
    (group,) = spec["workerGroupSpecs"]
    pod = group["template"]["spec"]
    assert spec["enableInTreeAutoscaling"] is True
    assert group["minReplicas"] == 0 < group["maxReplicas"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    tolerated = {toleration["key"] for toleration in pod["tolerations"]}
    assert set(pod["nodeSelector"]) | {"nvidia.com/gpu"} <= tolerated
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_disk_can_be_written_by_several_machines():
    assert load("storage.yaml")["spec"]["accessModes"] == ["ReadWriteMany"]


def test_one_image_everywhere_and_it_is_this_release():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    texts = [(FOLDER / name).read_text() for name in FILES]
    texts += [(ROOT / "cluster/launcher/aws.yaml").read_text()]
    texts += [(ROOT / "cluster/Dockerfile").read_text()]
    images = {image for text in texts for image in re.findall(r"registry\.example/\S+", text)}
    assert images == {f"registry.example/clora-batch:{version}"}


def test_the_ray_of_the_clusters_is_the_pinned_one():
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert {spec["rayVersion"] for spec in cluster_specs().values()} == {pinned.group(1)}


def test_the_catalog_s_spec_holds_asks_for_gpus_and_has_only_places_on_the_shared_disk(
    tmp_path: Path,
):
    (text,) = load("job-files.yaml")["data"].values()
    items = tmp_path / "items.jsonl"
    items.write_text('{"item": "mug", "loras": ["mug"], "subject": "mug"}\n')
    values = yaml.safe_load(text)
    places = [values[name] for name in ("items", "loras", "output", "base_model")]
    assert all(place.startswith("/data/") for place in places)
    path = tmp_path / "catalog.yaml"
    path.write_text(text.replace(values["items"], str(items)))
    spec = load_catalog(path)
    assert spec.axes is not None
    assert spec.axes.num_rows == 4
    # A cluster that sleeps has no GPU, and a job that does not say so would take the processor.
    assert spec.job.resources.gpus_per_actor == 1


@pytest.mark.parametrize("name", ["ray-job.yaml", "ray-cron-job.yaml"])
def test_ray_jobs_run_that_job_file_and_clean_up(name: str):
    spec = load(name)["spec"]
    spec = spec.get("jobTemplate", spec)
    command = ["python", "-m", "jobs", "catalog", "/jobs/catalog.yaml"]
    assert shlex.split(spec["entrypoint"]) == [*command, "--metrics-port", METRICS]
    assert spec["shutdownAfterJobFinishes"] is True
    assert yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]


def told_by_cron(tmp_path: Path) -> list[str]:
    """Run the container's command with a ``clora`` that only says what it was given."""
    (tmp_path / "clora").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "clora").chmod(0o755)
    (pod,) = pods(load("cron-job.yaml"))
    (container,) = pod["containers"]
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = [*container["command"], *container["args"]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_night_is_submitted_under_its_date_to_the_cluster_that_stays(tmp_path: Path):
    before = datetime.now(UTC).date().isoformat()
    command, job, *options = told_by_cron(tmp_path)
    after = datetime.now(UTC).date().isoformat()
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert (command, job) == ("submit", "/jobs/catalog.yaml")
    assert given["--id"] in {f"nightly-{day}" for day in (before, after)}
    name = load("ray-cluster.yaml")["metadata"]["name"]
    assert given["--metrics-port"] == METRICS
    ports = cluster_specs()["RayCluster"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert {"name": "clora-metrics", "containerPort": 9200} in ports["ports"]
    assert given["--address"] == f"http://{name}-head-svc:8265"
    known = get_command(app).commands["submit"].params  # pyright: ignore[reportAttributeAccessIssue]
    assert set(given) <= {option for parameter in known for option in parameter.opts}


def test_the_night_has_the_cluster_s_token_never_overlaps_and_stops_at_bad_input():
    document = load("cron-job.yaml")
    (pod,) = pods(document)
    environment = {entry["name"]: entry for entry in pod["containers"][0]["env"]}
    assert environment["RAY_AUTH_MODE"]["value"] == "token"
    reference = environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert reference["name"] == cluster_specs()["RayCluster"]["authOptions"]["secretName"]
    assert document["spec"]["concurrencyPolicy"] == "Forbid"
    (rule,) = document["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [2]
    assert rule["onExitCodes"]["containerName"] == pod["containers"][0]["name"]
