"""Settings of the embedded stack. The only module of the stack that reads the environment."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def environment_with(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that we start: ours, with these on top."""
    return {**os.environ, **variables}


class StackSettings(BaseSettings):
    """`FALLOW_HOME`, `FALLOW_PROVIDERS` and so on; options of `fallow up` go before them."""

    model_config = SettingsConfigDict(
        env_prefix="FALLOW_", extra="ignore", env_ignore_empty=True, validate_by_name=True, validate_by_alias=True
    )

    home: Path = Field(default=Path(".fallow"), description="Folder that keeps all data of the stack.")
    providers: int = Field(default=1, ge=1, le=32, description="Provider services to run, each with its own devices.")
    event_stream: Literal["jetstream", "kafka"] = Field(default="jetstream", description="What carries events.")
    kafka_libraries: Path = Field(
        default=Path(".fallow") / "kafka" / "lib", description="Apache Kafka's jars, as `make kafka` fetches them."
    )
    runtime: Literal["auto", "docker", "exec"] = Field(default="auto", description="How providers run workloads.")
    docker_socket: str = Field(
        default="/var/run/docker.sock",
        validation_alias=AliasChoices("FALLOW_DOCKER_SOCKET", "DOCKER_HOST"),
        description="Socket of the container engine, for providers and the demo's image; a path or `unix://` and a path.",
    )
    block_ms: int = Field(default=500, ge=50, le=60_000, description="Time between blocks of the local chain.")
    heartbeat_seconds: float = Field(default=1.0, gt=0, le=60, description="Time between heartbeats of a provider.")
    charge_interval_seconds: float = Field(default=2.0, gt=0, description="Time between two charges of a lease.")
    batch_interval_seconds: float = Field(default=2.0, gt=0, description="Time between two batches.")

    @field_validator("docker_socket")
    @classmethod
    def _socket_path(cls, value: str) -> str:
        """The path of a `unix://` address, whole, since providers have a working directory of their own.

        The address of another kind stays as it is, for the sentence that says that no engine answers there.
        """
        path = value.removeprefix("unix://")
        return value if "://" in path else str(Path(path).absolute())
