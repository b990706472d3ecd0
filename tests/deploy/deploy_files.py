"""The files of deploy/: where they are, and what is in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator, Draft202012Validator

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
OVERLAY = DEPLOY / "kubernetes-submit"
SCRIPTS = sorted([*DEPLOY.rglob("*.sh"), *DEPLOY.rglob("*.sbatch")])
FILES = sorted(
    path
    for path in DEPLOY.rglob("*")
    if path.is_file() and path.parent.name != "secrets" and path.suffix not in (".sql", ".pyc") and path.name != ".env"
)
"""Files that were written by hand; secrets that somebody made here are not."""


def ident(path: Path) -> str:
    return str(path.relative_to(DEPLOY))


def documents(path: Path) -> list[Any]:
    """The documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


def schema(name: str) -> Any:
    return json.loads((Path(__file__).parent / "schemas" / f"{name}.json").read_text())


def compose_validator() -> Draft7Validator:
    """Of a compose file, by the specification's own schema."""
    return Draft7Validator(schema("compose"))


def kuberay_validator(kind: str) -> Draft202012Validator:
    """Of a resource of KubeRay, by its definition's own schema; a key that this does not know is a slip of the pen."""
    found = schema("kuberay")
    return Draft202012Validator({"$defs": _closed(found["$defs"]), "$ref": f"#/$defs/{kind}"})


def _closed(node: Any) -> Any:
    """A schema in which an object has the properties that are listed, and no others."""
    if isinstance(node, list):
        return [_closed(one) for one in node]
    if not isinstance(node, dict):
        return node
    inside = {key: _closed(value) for key, value in node.items()}
    listed = isinstance(node.get("properties"), dict) and node.get("type") == "object"
    return {**inside, "additionalProperties": False} if listed else inside


def compose(name: str = "compose.yaml") -> Any:
    return documents(DEPLOY / "compose" / name)[0]


def manifests() -> list[tuple[str, Any]]:
    """Every resource of Kubernetes, those of the overlay as it makes them, with a name to tell it by."""
    plain = [
        (f"{path.name}-{found['kind']}-{found['metadata']['name']}", found)
        for path in sorted(KUBERNETES.glob("*.yaml"))
        for found in documents(path)
        if found["kind"] != "Kustomization"
    ]
    return [*plain, ("submit-Deployment-dashboard", submitting())]


def submitting() -> Any:
    """The dashboard with the page Jobs: the Deployment, and the overlay's patch of it."""
    (base,) = [found for found in documents(KUBERNETES / "dashboard.yaml") if found["kind"] == "Deployment"]
    return patched(base, documents(OVERLAY / "dashboard.yaml")[0])


def patched(base: Any, patch: Any) -> Any:
    """A resource after a strategic merge patch: what is listed with names is merged by them, other lists replaced."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return {**base, **{key: patched(base.get(key), value) for key, value in patch.items()}}
    if not (isinstance(base, list) and patch and all(isinstance(one, dict) and "name" in one for one in patch)):
        return patch
    known = {one["name"]: one for one in base}
    return list((known | {one["name"]: patched(known.get(one["name"]), one) for one in patch}).values())


def pods(node: Any) -> Iterator[dict[str, Any]]:
    """The templates of pods, however deep they lie."""
    if isinstance(node, dict):
        if isinstance(node.get("spec"), dict) and "containers" in node["spec"]:
            yield node
        for value in node.values():
            yield from pods(value)
    elif isinstance(node, list):
        for value in node:
            yield from pods(value)


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def security_headers(text: str) -> dict[str, str]:
    """The block `header` of a Caddyfile."""
    block = text[re.search(r"\theader \{|    header \{", text).end() :]  # type: ignore[union-attr]
    lines = [line.strip() for line in block[: block.index("}")].splitlines()]
    return dict(line.split(maxsplit=1) for line in lines if line and not line.startswith(("#", "-")))
