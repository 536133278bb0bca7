"""What every workload that a chart renders must hold, whatever the values: pure functions from a manifest to findings."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

Manifest = Mapping[str, Any]

POD_KINDS: Final = frozenset({"Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "Job"})
SERVING_KINDS: Final = POD_KINDS - {"Job"}
PROBES: Final = ("startupProbe", "readinessProbe", "livenessProbe")
EXACT_IMAGE: Final = re.compile(r".+(@sha256:[0-9a-f]{64}|:[0-9]+\.[0-9]+\.[0-9]+[A-Za-z0-9.-]*)")


def violations(manifest: Manifest) -> list[str]:
    """What a manifest breaks, one line each with the kind and the name; none for what runs no pod."""
    if manifest["kind"] not in POD_KINDS:
        return []
    place = f"{manifest['kind']} {manifest['metadata']['name']}"
    pod = manifest["spec"]["template"]["spec"]
    found = list(_pod(pod))
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        found += [f"container {container['name']} {text}" for text in _container(container, pod)]
        if manifest["kind"] in SERVING_KINDS:
            found += [f"container {container['name']} has no {probe}" for probe in PROBES if not container.get(probe)]
    return [f"{place}: {text}" for text in found]


def _pod(pod: Manifest) -> Iterator[str]:
    """What a pod breaks beside its containers."""
    for name in ("hostPID", "hostIPC"):
        if pod.get(name):
            yield f"shares the node's {name.removeprefix('host')}"
    if pod.get("automountServiceAccountToken") is not False:
        yield "takes a token of the Kubernetes API"
    if pod.get("securityContext", {}).get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "runs without the runtime's seccomp profile"


def _container(container: Manifest, pod: Manifest) -> Iterator[str]:
    """What a container breaks."""
    if not EXACT_IMAGE.fullmatch(container["image"]):
        yield f"has an image by neither digest nor exact version: {container['image']}"
    own = container.get("securityContext", {})
    security = {**pod.get("securityContext", {}), **own}
    if security.get("runAsNonRoot") is not True or security.get("runAsUser", 0) == 0:
        yield "may run as root"
    if own.get("privileged"):
        yield "is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "may gain privileges"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "may write to its root"
    if own.get("capabilities", {}).get("drop") != ["ALL"] or own.get("capabilities", {}).get("add"):
        yield "keeps capabilities"
    resources = container.get("resources", {})
    for bound in ("requests", "limits"):
        yield from (f"has no {what} in {bound}" for what in ("cpu", "memory") if what not in resources.get(bound, {}))
