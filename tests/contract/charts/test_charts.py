"""The Helm charts: linted, rendered for each example, held against Kubernetes' own schemas and against our policies."""

import copy
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from fallow_bidding.settings import BiddingSettings
from fallow_chassis.identity import TokenSigner, TokenVerifier
from fallow_chassis.settings import ServiceSettings
from fallow_order.settings import OrderSettings
from fallow_order.vault import Vault
from fallow_provider.settings import ProviderSettings
from fallow_settlement.settings import SettlementSettings
from tests.contract.charts.policies import POD_KINDS, violations

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT: Final = Path(__file__).resolve().parents[3]
CHARTS: Final = ROOT / "deploy" / "helm"
KUBERNETES: Final = "1.37.0"
# Kinds of others' that Kubernetes' schemas do not know.
FOREIGN: Final = {("monitoring.coreos.com/v1", "ServiceMonitor")}
EXAMPLES: Final = sorted(CHARTS.glob("*/examples/*.yaml"))
SETTINGS: Final[dict[str, type[ServiceSettings]]] = {
    "order": OrderSettings,
    "bidding": BiddingSettings,
    "settlement": SettlementSettings,
    "provider": ProviderSettings,
}
Manifest = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the pinned Helm."""
    return subprocess.run(
        ["sh", "tools/helm.sh", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=850
    )


@pytest.fixture(scope="module", autouse=True)
def _needs_helm() -> None:
    """Skip where Helm is not there and cannot be built."""
    if not list((ROOT / ".build/bin").glob("helm-*")) and shutil.which("go") is None:
        pytest.skip("Helm is built by Go, and there is no go")


def render(chart: str, *options: str) -> list[Manifest]:
    """A chart's manifests; AssertionError with Helm's words where it renders none."""
    ran = helm(
        "template", "market", str(CHARTS / chart), "--namespace", "fallow", "--kube-version", KUBERNETES, *options
    )
    assert ran.returncode == 0, ran.stderr
    return [manifest for manifest in yaml.safe_load_all(ran.stdout) if manifest]


def example(path: Path) -> list[Manifest]:
    """The manifests of an example."""
    return render(path.parents[1].name, "--values", str(path))


def containers(manifest: Manifest) -> list[Manifest]:
    """The containers of what runs pods; none of anything else."""
    if manifest["kind"] not in POD_KINDS:
        return []
    found: list[Manifest] = manifest["spec"]["template"]["spec"]["containers"]
    return found


def is_known(manifest: Manifest) -> bool:
    """Hold a manifest against Kubernetes' schema; False for a kind that is not Kubernetes' own. Raises its findings."""
    if (manifest["apiVersion"], manifest["kind"]) in FOREIGN:
        return False
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    return True


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parents[1].name}-{path.stem}")
def test_a_chart_renders_what_kubernetes_takes_and_we_allow(path: Path) -> None:
    """Goal: no example is refused by a cluster or runs what it should not. Method: lint, render, schema, policies; and
    every setting that a container is told exists in the service that is told it.
    """
    linted = helm("lint", str(path.parents[1]), "--strict", "--values", str(path), "--kube-version", KUBERNETES)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    manifests = example(path)
    assert sum(is_known(manifest) for manifest in manifests) >= 3
    assert [text for manifest in manifests for text in violations(manifest)] == []
    for manifest in manifests:
        for container in containers(manifest):
            service = "provider" if container["name"] == "provider" else _service_of(manifest)
            known = {f"FALLOW_{field.upper()}" for field in SETTINGS[service].model_fields}
            shared = {f"FALLOW_{name.upper()}_ADDRESS" for name in SETTINGS}
            told = {item["name"] for item in container["env"] if item["name"].startswith("FALLOW_")}
            assert told - shared <= known, service
            needed = {f"FALLOW_{field.upper()}" for field in SETTINGS[service].needed}
            assert needed <= told or manifest["kind"] == "Job", service


def _service_of(manifest: Manifest) -> str:
    """The service that a manifest of the platform's chart runs."""
    component: str = manifest["metadata"]["labels"]["app.kubernetes.io/component"]
    return component


Plant = Callable[[Manifest], None]


def _set(*path: str | int, to: Any) -> Plant:
    """What sets a place in the first container."""

    def plant(manifest: Manifest) -> None:
        target: Any = containers(manifest)[0]
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = to

    return plant


def _as_root(manifest: Manifest) -> None:
    """Let the pod run as root."""
    pod = manifest["spec"]["template"]["spec"]
    pod["securityContext"]["runAsUser"] = 0


PLANTED: Final[list[tuple[str, Plant]]] = [
    ("may run as root", _as_root),
    ("may run as root", _set("securityContext", "runAsNonRoot", to=False)),
    ("neither digest nor exact version", _set("image", to="fallow/order:latest")),
    ("neither digest nor exact version", _set("image", to="fallow/order")),
    ("neither digest nor exact version", _set("image", to="registry:5000/fallow/order")),
    ("has no cpu in limits", _set("resources", "limits", to={"memory": "1Gi"})),
    ("has no memory in limits", _set("resources", "limits", to={"cpu": 1})),
    ("has no memory in requests", _set("resources", "requests", to={"cpu": 1})),
    ("has no startupProbe", _set("startupProbe", to=None)),
    ("has no readinessProbe", _set("readinessProbe", to=None)),
    ("has no livenessProbe", _set("livenessProbe", to=None)),
    ("may write to its root", _set("securityContext", "readOnlyRootFilesystem", to=False)),
    ("may gain privileges", _set("securityContext", "allowPrivilegeEscalation", to=True)),
    ("is privileged", _set("securityContext", "privileged", to=True)),
    ("keeps capabilities", _set("securityContext", "capabilities", to={"drop": ["ALL"], "add": ["SYS_ADMIN"]})),
    ("keeps capabilities", _set("securityContext", "capabilities", to={})),
]


def test_every_policy_finds_what_breaks_it() -> None:
    """Goal: a policy that finds nothing is worth nothing. Method: each is broken alone in a manifest that holds all."""
    sound = next(each for each in example(CHARTS / "fallow/examples/small.yaml") if each["kind"] == "Deployment")
    assert violations(sound) == []
    for finding, plant in PLANTED:
        broken = copy.deepcopy(sound)
        plant(broken)
        found = violations(broken)
        assert len(found) == 1, (finding, found)
        assert finding in found[0]
    for name, finding in (("hostPID", "the node's PID"), ("automountServiceAccountToken", "a token")):
        broken = copy.deepcopy(sound)
        broken["spec"]["template"]["spec"][name] = True
        assert [finding in text for text in violations(broken)] == [True]
    broken = copy.deepcopy(sound)
    del broken["spec"]["template"]["spec"]["securityContext"]["seccompProfile"]
    assert [text.endswith("seccomp profile") for text in violations(broken)] == [True]


def test_the_schemas_refuse_what_a_cluster_would() -> None:
    """Goal: the check of schemas can fail. Method: an unknown field and a wrong type in a rendered manifest."""
    sound = next(each for each in example(CHARTS / "fallow/examples/small.yaml") if each["kind"] == "Deployment")
    assert is_known(sound)
    for field, value in (("replica", 3), ("replicas", "three")):
        broken = copy.deepcopy(sound)
        broken["spec"][field] = value
        with pytest.raises(kubernetes_validate.ValidationError):
            is_known(broken)


@pytest.mark.parametrize(
    ("chart", "options", "said"),
    [
        ("fallow", [], "nats.url: where NATS is"),
        (
            "fallow",
            ["--set", "nats.url=nats://n,secrets.chain=c"],
            "chain.contractsConfigMap: what deploy-contracts wrote",
        ),
        ("fallow", ["--set", "nats.url=nats://n,loadBalancer.enabled=true"], "loadBalancer.sourceRanges: who may call"),
        (
            "fallow",
            ["--set", "nats.url=nats://n,ingress.enabled=true,ingress.hosts.order=o.example"],
            "ingress.tlsSecret: gRPC over an ingress needs TLS",
        ),
        ("fallow-provider", [], "market.orderAddress: host:port of the order service"),
    ],
)
def test_a_missing_value_is_named(chart: str, options: list[str], said: str) -> None:
    """Goal: who forgets a value is told which and what it is. Method: a chart without it."""
    ran = helm("template", "market", str(CHARTS / chart), "--kube-version", KUBERNETES, *options)
    assert ran.returncode != 0
    assert said in ran.stderr


def test_a_service_is_given_no_key_of_another() -> None:
    """Goal: who breaks into one service holds one service's keys. Method: what each pod mounts and is told, in full."""
    manifests = example(CHARTS / "fallow/examples/production.yaml")
    for manifest in manifests:
        if manifest["kind"] != "Deployment":
            continue
        service = _service_of(manifest)
        keys = {
            item["key"]
            for volume in manifest["spec"]["template"]["spec"]["volumes"]
            for item in volume.get("secret", {}).get("items", [])
        }
        extra = {"bidding": {"account.seed"}, "settlement": {"key"}}.get(service, set())
        assert keys == {f"{service}.pem", f"{service}.creds"} | extra
        told = {
            (item["valueFrom"]["secretKeyRef"]["name"], item["valueFrom"]["secretKeyRef"]["key"])
            for container in containers(manifest)
            for item in container["env"]
            if "valueFrom" in item
        }
        more = {"order": {("fallow-workload-keys", "keys")}, "settlement": {("fallow-chain", "rpc-url")}}.get(
            service, set()
        )
        assert told == {("fallow-databases", service)} | more
    jobs = [manifest for manifest in manifests if manifest["kind"] == "Job"]
    assert {
        item["valueFrom"]["secretKeyRef"]["name"]
        for job in jobs
        for item in containers(job)[0]["env"]
        if "valueFrom" in item
    } == {"fallow-database-owners"}


GUIDE: Final = ROOT / "docs" / "operating" / "kubernetes.md"


def commands() -> list[str]:
    """The lines of the guide's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_guide_makes_every_secret_that_the_charts_name() -> None:
    """Goal: who follows the guide has a release that starts. Method: what its commands make, against what all pods mount."""
    made: set[tuple[str, str]] = set()
    for line in commands():
        if match := re.match(r"kubectl create (?:secret generic|configmap) (\S+) (.*)", line):
            made |= {(match[1], key) for key in re.findall(r"--from-file=([^=\s]+)", match[2])}
    wanted: set[tuple[str, str]] = set()
    for path in (CHARTS / "fallow/examples/production.yaml", CHARTS / "fallow-provider/examples/nvidia.yaml"):
        for manifest in example(path):
            for container in containers(manifest):
                references = [item.get("valueFrom", {}).get("secretKeyRef") for item in container["env"]]
                wanted |= {(each["name"], each["key"]) for each in references if each}
            for volume in manifest.get("spec", {}).get("template", {}).get("spec", {}).get("volumes", []):
                secret = volume.get("secret", {})
                wanted |= {(secret["secretName"], item["key"]) for item in secret.get("items", [])}
    configured = {("fallow-jwks", "jwks.json"), ("fallow-contracts", "contracts.json")}
    assert made == wanted | configured


def test_the_guides_commands_run(tmp_path: Path) -> None:
    """Goal: no command of the guide lies. Method: its keys are made and read as a service reads them; its Helm commands
    render in the place of installing, which needs a cluster.
    """
    (block,) = re.findall(r"```sh\n(for service.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-euc", block], cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=60)
    for service in ("order", "bidding", "settlement"):
        signer = TokenSigner.load(tmp_path / f"{service}.pem", service)
        TokenVerifier.load(tmp_path / "jwks.json").verify(signer.service_token())
    assert Vault.parse((tmp_path / "workload-keys").read_text("ascii")).current == "key-1"
    installs = [line for line in commands() if line.startswith("helm ")]
    assert len(installs) == 2
    for line in installs:
        options = line.removeprefix("helm upgrade --install ").split()
        ran = helm("template", *options, "--kube-version", KUBERNETES)
        assert ran.returncode == 0, ran.stderr
