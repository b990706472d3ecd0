"""The manifests for Kubernetes: valid, closed, and the same where they say the same."""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import pytest
from deploy_files import (
    DEPLOY,
    KUBERNETES,
    OVERLAY,
    compose,
    containers,
    documents,
    kuberay_validator,
    manifests,
    pods,
    security_headers,
    submitting,
)

VERSION = "1.33"
MANIFESTS = manifests()
OURS = [pytest.param(found, id=name) for name, found in MANIFESTS if found["apiVersion"] == "ray.io/v1"]
STANDARD = [pytest.param(found, id=name) for name, found in MANIFESTS if found["apiVersion"] != "ray.io/v1"]
PODS = [pytest.param(pod, id=f"{name}-{number}") for name, found in MANIFESTS for number, pod in enumerate(pods(found))]


@pytest.mark.parametrize("manifest", STANDARD)
def test_a_manifest_is_what_kubernetes_publishes(manifest: Any) -> None:
    assert kubernetes_validate.validate(manifest, VERSION, strict=True) == VERSION


@pytest.mark.parametrize("manifest", OURS)
def test_a_resource_of_kuberay_is_what_its_types_say(manifest: Any) -> None:
    kuberay_validator(manifest["kind"]).validate(manifest)
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", manifest["metadata"]["name"])
    assert len(manifest["metadata"]["name"]) <= 50, "KubeRay makes names of services of it"


@pytest.mark.parametrize(
    "change",
    [
        {"authOption": {"mode": "token"}},
        {"authOptions": {"mode": "tokens"}},
        {"rayVersion": 2.6},
        {"headGroupSpec": {}},
        {"workerGroupSpecs": [{"groupName": "cpu", "minReplicas": 0, "maxReplicas": "8", "template": {}}]},
    ],
    ids=["key", "value", "type", "lacking", "deep"],
)
@pytest.mark.parametrize("kind", ["RayCluster", "RayJob"])
def test_a_slip_in_a_resource_of_kuberay_is_seen(kind: str, change: dict[str, Any]) -> None:
    resource = documents(KUBERNETES / f"{kind.lower()}.yaml")[-1]
    assert kuberay_validator(kind).is_valid(resource)
    cluster = resource["spec"] if kind == "RayCluster" else resource["spec"]["rayClusterSpec"]
    cluster |= change
    assert not kuberay_validator(kind).is_valid(resource)


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_template_is_what_kubernetes_publishes(pod: dict[str, Any]) -> None:
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", **pod.get("metadata", {})}, **pod}
    whole["metadata"] = {"name": "x", **pod.get("metadata", {})}
    kubernetes_validate.validate(whole, VERSION, strict=True)


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_is_restricted(pod: dict[str, Any]) -> None:
    """What the profile that namespace.yaml enforces asks for, and limits."""
    assert pod["spec"]["automountServiceAccountToken"] is False
    context = pod["spec"]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == 10001
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(pod):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
        for kind in ("requests", "limits"):
            assert set(container["resources"][kind]) >= {"cpu", "memory"}


@pytest.mark.parametrize("pod", PODS)
def test_secrets_come_by_reference_and_into_no_variable(pod: dict[str, Any]) -> None:
    names = {volume["name"] for volume in pod["spec"].get("volumes", [])}
    for container in containers(pod):
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= names
        for variable in container.get("env", []):
            assert "secretKeyRef" not in str(variable)
            assert ":" not in variable["value"].partition("//")[2].partition("@")[0], "a password in a URL"
    assert not [found for _, found in MANIFESTS if found["kind"] == "Secret"]


def test_clusters_ask_for_a_token() -> None:
    specs = [found.value if hasattr(found, "value") else found.values[0]["spec"] for found in OURS]
    clusters = [spec.get("rayClusterSpec", spec) for spec in specs]
    assert [cluster["authOptions"] for cluster in clusters] == [{"mode": "token"}] * 2


def test_a_job_s_cluster_is_the_shared_one_and_the_spec() -> None:
    shared = documents(KUBERNETES / "raycluster.yaml")[0]["spec"]
    spec, job = documents(KUBERNETES / "rayjob.yaml")
    own = job["spec"]["rayClusterSpec"]
    head = own["headGroupSpec"]["template"]["spec"]
    head["containers"][0]["volumeMounts"].remove({"name": "spec", "mountPath": "/spec", "readOnly": True})
    head["volumes"].remove({"name": "spec", "configMap": {"name": spec["metadata"]["name"]}})
    assert own == shared


def test_the_spec_of_the_job_is_one() -> None:
    import tomllib

    from archsearch.search import SearchSpec

    spec, job = documents(KUBERNETES / "rayjob.yaml")
    assert "/spec/spec.toml" in job["spec"]["entrypoint"]
    read = SearchSpec.from_dict(tomllib.loads(spec["data"]["spec.toml"]))
    assert read.name == job["metadata"]["name"]


def test_checkpoints_lie_on_the_volume_of_all_nodes() -> None:
    """Of the job's spec, and of what the README has others write."""
    import tomllib

    from archsearch.search import SearchSpec

    spec, job = documents(KUBERNETES / "rayjob.yaml")
    place = SearchSpec.from_dict(tomllib.loads(spec["data"]["spec.toml"])).resources.checkpoints
    assert place is not None
    assert f'checkpoints = "{place}"' in (DEPLOY / "README.md").read_text().replace("\n", " ")
    clusters = [documents(KUBERNETES / "raycluster.yaml")[0]["spec"], job["spec"]["rayClusterSpec"]]
    for cluster in clusters:
        for pod in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            template = pod["template"]["spec"]
            claimed = [volume["name"] for volume in template["volumes"] if "persistentVolumeClaim" in volume]
            mounts = template["containers"][0]["volumeMounts"]
            shared = [mount["mountPath"] for mount in mounts if mount["name"] in claimed]
            assert [path for path in shared if place.startswith(f"file://{path}/")] == ["/data"]
    for name in ("head", "worker"):
        assert "weights:/data" in compose()["services"][name]["volumes"]


def test_nothing_comes_in_that_no_policy_names() -> None:
    policies = {found["metadata"]["name"]: found["spec"] for found in documents(KUBERNETES / "network.yaml")}
    assert policies["closed"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    for name in set(policies) - {"closed"}:
        for rule in policies[name]["ingress"]:
            assert rule["from"], "an empty list lets everybody in"
    ray = policies["ray-among-itself"]
    assert ray["podSelector"]["matchLabels"] == {"ray.io/is-ray-node": "yes"}
    jobs_port = [rule for rule in ray["ingress"] if {"protocol": "TCP", "port": 8265} in rule.get("ports", [])]
    names = [peer["namespaceSelector"]["matchLabels"] for peer in jobs_port[0]["from"] if "namespaceSelector" in peer]
    assert names == [{"kubernetes.io/metadata.name": "kuberay-system"}]


def test_the_dashboard_is_reached_through_its_login_alone() -> None:
    found = {item["kind"]: item for item in documents(KUBERNETES / "dashboard.yaml")}
    pod = found["Deployment"]["spec"]["template"]
    ports = [port for container in containers(pod) for port in container.get("ports", [])]
    assert ports == [{"name": "http", "containerPort": 8443}]
    assert "--host" not in found["Deployment"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert found["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == "http"
    assert found["Ingress"]["spec"]["tls"]


def test_the_headers_are_those_of_compose() -> None:
    caddyfile = documents(KUBERNETES / "dashboard.yaml")[0]["data"]["Caddyfile"]
    ours = (DEPLOY / "compose" / "caddy" / "Caddyfile").read_text()
    assert security_headers(caddyfile) == security_headers(ours)
    assert set(security_headers(ours)) >= {
        "Content-Security-Policy",
        "X-Frame-Options",
        "X-Content-Type-Options",
        "Referrer-Policy",
        "Strict-Transport-Security",
    }


def test_the_jobs_page_is_switched_on_by_the_overlay_alone() -> None:
    (plain,) = [found for found in documents(KUBERNETES / "dashboard.yaml") if found["kind"] == "Deployment"]
    assert "--allow-submit" not in str(plain)
    assert "ray_token" not in str(plain)
    pod = submitting()["spec"]["template"]
    assert pod["metadata"]["labels"]["archsearch/submits"] == "yes"
    main = next(one for one in pod["spec"]["containers"] if one["name"] == "dashboard")
    heads = [f"{found['metadata']['name']}-head-svc" for found in documents(KUBERNETES / "raycluster.yaml")]
    assert main["args"][main["args"].index("--address") + 1] == f"http://{heads[0]}:8265"
    variables = {one["name"]: one["value"] for one in main["env"]}
    assert variables["RAY_AUTH_MODE"] == "token"
    assert variables["ARCHSEARCH_STORAGE"].startswith("postgresql://archsearch_reader@")
    assert variables["ARCHSEARCH_SUBMIT_STORAGE"].startswith("postgresql://archsearch_writer@")
    copied = {one["command"][-1] for one in pod["spec"]["initContainers"]}
    assert copied == {variables["PGPASSFILE"], variables["RAY_AUTH_TOKEN_PATH"]}
    volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
    assert len(volumes) == len(pod["spec"]["volumes"])
    assert volumes["token"]["secret"]["secretName"] == documents(KUBERNETES / "raycluster.yaml")[0]["metadata"]["name"]


def test_kustomize_names_files_that_exist() -> None:
    overlay = documents(OVERLAY / "kustomization.yaml")[0]
    assert [(OVERLAY / name).resolve() for name in overlay["resources"]] == [KUBERNETES]
    assert {one["path"] for one in overlay["patches"]} == {
        path.name for path in OVERLAY.glob("*.yaml") if path.name != "kustomization.yaml"
    }
    listed = documents(KUBERNETES / "kustomization.yaml")[0]["resources"]
    assert [name for name in listed if not (KUBERNETES / name).is_file()] == []
    assert {path.name for path in KUBERNETES.glob("*.yaml")} - set(listed) == {"kustomization.yaml", "rayjob.yaml"}
