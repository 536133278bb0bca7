"""What the agent can be told from outside: the shared settings and its own, all ``FALLOW_…`` variables."""

from typing import Literal

from pydantic import Field

from fallow_chassis.settings import ServiceSettings


class ProviderSettings(ServiceSettings):
    """The agent has no database, no identity key and no NATS settings: the market tells it all but its own."""

    needed = ("state_directory", "site_file", "api_key_file", "order_address", "bidding_address", "jwks")

    state_directory: str = Field(default="", description="A private folder for the state, the proof key, the logs.")
    site_file: str = Field(default="", description="TOML file: name, region, nodes, declared devices, prices.")
    api_key_file: str = Field(default="", description="File with the owner's API key.")
    order_address: str = Field(default="", description="host:port of the order service.")
    bidding_address: str = Field(default="", description="host:port of the bidding service.")
    door_address: str = Field(
        default="", description="host:port at which others reach the agent's gRPC; empty takes where it listens."
    )
    heartbeat_interval_seconds: float = Field(default=5.0, ge=0.1, le=60, description="Time between heartbeats.")
    device_read_seconds: float = Field(
        default=5.0,
        ge=0.1,
        le=60,
        description="How often the cards that were found are read; an Xid has it done at once.",
    )
    runtime: Literal["auto", "docker", "podman", "exec"] = Field(
        default="auto", description="Driver; auto takes docker or podman where one answers, else exec with a warning."
    )
    docker_socket: str = Field(default="/var/run/docker.sock", description="Socket of the Docker Engine API.")
    podman_socket: str = Field(default="/run/podman/podman.sock", description="Socket of the Podman service.")
    docker_network: Literal["bridge", "host"] = Field(
        default="bridge", description="A network for each lease; host gives up their network isolation."
    )
    docker_runtime: str = Field(
        default="", description="OCI runtime of containers, such as runsc for gVisor; empty takes the engine's own."
    )
    lease_networks: str = Field(
        default="10.224.0.0/12",
        pattern=r"^\d+\.\d+\.\d+\.\d+/([89]|1\d|2[0-4])$",
        description="Addresses from which each lease's network gets 256.",
    )
    publish_host: str = Field(default="127.0.0.1", description="Address of this machine that ports are published on.")
    endpoint_host: str = Field(
        default="", description="Host in the endpoints that tenants are told; empty takes publish_host."
    )
    draining: bool = Field(default=False, description="True refuses every new lease; what runs goes on.")
    stop_on_exit: bool = Field(
        default=False,
        description="True stops all containers when the agent is asked to stop; its next life starts them again.",
    )
