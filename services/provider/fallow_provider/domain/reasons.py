"""Every way in which the agent refuses a command, fails a run or answers an error.

A reason of a refusal stands in ``CommandAcknowledgement.reason``, one of a failure in ``RunStatus.reason``, one of an
error in ``ErrorInfo.reason``; the words are the same, and so is the list in ``docs/errors.md``.
"""

from typing import Final

from fallow_chassis.errors import ErrorReason

COMMAND_INVALID: Final = ErrorReason(
    "COMMAND_INVALID",
    "INVALID_ARGUMENT",
    "The command lacks what it needs, or names one thing twice.",
    "Mend the command; the same command will be refused again.",
)
GENERATION_OLD: Final = ErrorReason(
    "GENERATION_OLD",
    "FAILED_PRECONDITION",
    "A higher generation of the group is known; the highest wins.",
    "Use the lease's current generation.",
)
GENERATION_ENDED: Final = ErrorReason(
    "GENERATION_ENDED",
    "FAILED_PRECONDITION",
    "The generation has ended on this provider and never runs again.",
    "Raise the generation.",
)
NODE_MISSING: Final = ErrorReason(
    "NODE_MISSING",
    "FAILED_PRECONDITION",
    "The provider has no node of that id.",
    "Read the provider's inventory and place the replica anew.",
)
DEVICE_MISSING: Final = ErrorReason(
    "DEVICE_MISSING",
    "FAILED_PRECONDITION",
    "The node has no device of that id.",
    "Read the provider's inventory and place the replica anew.",
)
DEVICE_FAILED: Final = ErrorReason(
    "DEVICE_FAILED",
    "FAILED_PRECONDITION",
    "The device has failed, or works with warnings and takes no new lease.",
    "Read the provider's inventory and place the replica anew.",
)
DEVICE_BUSY: Final = ErrorReason(
    "DEVICE_BUSY",
    "FAILED_PRECONDITION",
    "The device's share is held by another generation that has not stopped yet.",
    "Wait until that generation is reported stopped, or choose another device.",
)
DRAINING: Final = ErrorReason(
    "DRAINING",
    "FAILED_PRECONDITION",
    "The agent takes no new leases by its owner's wish.",
    "Choose another provider.",
)
IMAGE_UNSUPPORTED: Final = ErrorReason(
    "IMAGE_UNSUPPORTED",
    "FAILED_PRECONDITION",
    "The runtime driver cannot run this image; the exec driver runs only `exec:host`.",
    "Use an image that the node's driver runs.",
)
IMAGE_UNAVAILABLE: Final = ErrorReason(
    "IMAGE_UNAVAILABLE",
    "FAILED_PRECONDITION",
    "The image could not be pulled: not found, or the registry refused the credentials.",
    "Check the reference and the credentials.",
)
WORKLOAD_UNSUPPORTED: Final = ErrorReason(
    "WORKLOAD_UNSUPPORTED",
    "FAILED_PRECONDITION",
    "The workload asks for something that the node's runtime driver cannot give.",
    "Read the detail; drop what it names or choose a provider with another driver.",
)
WORKLOAD_UNAVAILABLE: Final = ErrorReason(
    "WORKLOAD_UNAVAILABLE",
    "FAILED_PRECONDITION",
    "The order service would not hand out the workload, or could not be reached in time.",
    "Read the detail; the lease moves to the next best provider.",
)
START_FAILED: Final = ErrorReason(
    "START_FAILED",
    "FAILED_PRECONDITION",
    "The container engine would not start the container.",
    "Read the detail; check the command, its arguments and the limits.",
)
DEVICE_NOT_GIVEN: Final = ErrorReason(
    "DEVICE_NOT_GIVEN",
    "FAILED_PRECONDITION",
    "The container did not get exactly the devices that were leased: the engine cannot give them, or gave others.",
    "The lease moves to the next best provider; its operator mends what the detail names, such as the CDI specification.",
)
READINESS_TIMEOUT: Final = ErrorReason(
    "READINESS_TIMEOUT",
    "DEADLINE_EXCEEDED",
    "The workload started but its readiness check did not pass in time.",
    "Check the workload's log and its readiness check.",
)
EXITED: Final = ErrorReason(
    "EXITED",
    "FAILED_PRECONDITION",
    "A container of the workload stopped by itself and its restart policy does not start it again.",
    "Check the workload's log and the exit status in the detail.",
)
SELF_STOPPED: Final = ErrorReason(
    "SELF_STOPPED",
    "FAILED_PRECONDITION",
    "The agent stopped the generation: no heartbeat was acknowledged for longer than the lease allows.",
    "Check the provider's connection; the order is leased anew.",
)
LEASE_NOT_FOUND: Final = ErrorReason(
    "LEASE_NOT_FOUND",
    "NOT_FOUND",
    "The lease is not known here.",
    "Check the lease's name and that this provider holds it.",
)
SERVICE_NOT_FOUND: Final = ErrorReason(
    "SERVICE_NOT_FOUND",
    "NOT_FOUND",
    "The workload has no service of that name.",
    "Use one of the services that the metadata lists.",
)
REPLICA_NOT_FOUND: Final = ErrorReason(
    "REPLICA_NOT_FOUND",
    "NOT_FOUND",
    "The service has no replica of that number, or has several services and none was named.",
    "Name one of the containers that the metadata lists.",
)
EXEC_REFUSED: Final = ErrorReason(
    "EXEC_REFUSED",
    "FAILED_PRECONDITION",
    "The command could not be run in the container: it does not run, is paused, or its runtime cannot.",
    "Read the message; try again once the workload runs.",
)
SESSIONS_FULL: Final = ErrorReason(
    "SESSIONS_FULL",
    "RESOURCE_EXHAUSTED",
    "The lease, or the agent, has as many open sessions as it may have.",
    "Close one, then open another.",
)
SESSION_IDLE: Final = ErrorReason(
    "SESSION_IDLE",
    "ABORTED",
    "Nothing went either way for longer than a session may be silent; its command was killed.",
    "Open another session.",
)
SESSION_OVER: Final = ErrorReason(
    "SESSION_OVER",
    "ABORTED",
    "The lease's generation has ended on this provider, and its sessions with it.",
    "Look at the order's leases; open a session on the newest.",
)
GRANT_EXPIRED: Final = ErrorReason(
    "GRANT_EXPIRED",
    "UNAUTHENTICATED",
    "The grant that opened the session has run out; its command was killed.",
    "Get a new grant and open another session.",
)

REASONS: Final[tuple[ErrorReason, ...]] = (
    COMMAND_INVALID,
    GENERATION_OLD,
    GENERATION_ENDED,
    NODE_MISSING,
    DEVICE_MISSING,
    DEVICE_FAILED,
    DEVICE_BUSY,
    DRAINING,
    IMAGE_UNSUPPORTED,
    IMAGE_UNAVAILABLE,
    WORKLOAD_UNSUPPORTED,
    WORKLOAD_UNAVAILABLE,
    START_FAILED,
    DEVICE_NOT_GIVEN,
    READINESS_TIMEOUT,
    EXITED,
    SELF_STOPPED,
    LEASE_NOT_FOUND,
    SERVICE_NOT_FOUND,
    REPLICA_NOT_FOUND,
    EXEC_REFUSED,
    SESSIONS_FULL,
    SESSION_IDLE,
    SESSION_OVER,
    GRANT_EXPIRED,
)
"""All of them."""
