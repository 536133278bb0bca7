"""Which lease a command means."""

from fallow_sdk.client import Client
from fallow_sdk.errors import FallowError


async def newest_lease(client: Client, target: str) -> str:
    """The lease that is named, or the newest of the order that is named."""
    if target.startswith("leases/"):
        return target
    leases = await client.list_leases(target)
    if not leases:
        raise FallowError(
            "NOT_FOUND",
            "LEASE_NOT_FOUND",
            f"{target} has no lease yet",
            action=f"See what it waits for by `fallow order explain {target}`.",
        )
    return leases[0].name
