"""Takes commands of the market: decides, writes down, and only then says ACCEPTED.

The same command gets the same answer, for as long as answers are kept; after that a repeat is decided anew and is
harmless, because what became of the run decides it.
"""

from google.protobuf.message import DecodeError

from fallow.provider.v1.market_link_pb2 import (
    COMMAND_OUTCOME_ACCEPTED,
    COMMAND_OUTCOME_REFUSED,
    Command,
    CommandAcknowledgement,
    CommandOutcome,
    LinkReply,
)
from fallow_chassis.clock import Clock
from fallow_chassis.errors import DomainError, invalid_field
from fallow_chassis.logging import get_logger
from fallow_chassis.nats_link import NatsMessage
from fallow_chassis.validation import validate
from fallow_provider.convert import grace_of, key_of, run_of
from fallow_provider.domain.command import Accepted, Known, Refused, decide_run, decide_stop
from fallow_provider.domain.reasons import COMMAND_INVALID
from fallow_provider.domain.run import DEFAULT_GRACE_MS
from fallow_provider.ports import SiteSource
from fallow_provider.store import Store
from fallow_provider.supervisor import Supervisor

_log = get_logger(__name__)


class Commands:
    """See the module."""

    def __init__(
        self,
        store: Store,
        supervisor: Supervisor,
        sites: SiteSource,
        clock: Clock,
        *,
        machine_boot_id: str,
        is_draining: bool,
    ) -> None:
        """``is_draining`` refuses every new run."""
        self._store = store
        self._supervisor = supervisor
        self._sites = sites
        self._clock = clock
        self._machine_boot_id = machine_boot_id
        self._is_draining = is_draining

    async def respond(self, message: NatsMessage) -> bytes:
        """Answer one message of the command subject."""
        try:
            command = Command.FromString(message.payload)
        except DecodeError as error:
            raise invalid_field("command", "is no Command") from error
        return LinkReply(command=self.handle(command)).SerializeToString()

    def handle(self, command: Command) -> CommandAcknowledgement:
        """What becomes of a command; it is on the disk when this returns."""
        if not command.command_id:
            raise invalid_field("command.command_id", "is missing")
        kept = self._store.answer(command.command_id)
        if kept is not None:
            return _acknowledgement(command, *kept)
        with self._store.transaction():
            decision = self._decide(command)
            if isinstance(decision, Refused):
                answer = (int(COMMAND_OUTCOME_REFUSED), decision.reason.reason, decision.detail)
            else:
                self._write(command, decision)
                answer = (int(COMMAND_OUTCOME_ACCEPTED), "", "")
            self._store.save_answer(command.command_id, *answer)
        self._supervisor.changed()
        _log.info(
            "command_taken",
            lease=command.lease,
            action=command.WhichOneof("action"),
            generation=command.key.generation,
            outcome=CommandOutcome.Name(CommandOutcome.ValueType(answer[0])),
            reason=answer[1],
            detail=answer[2],
        )
        return _acknowledgement(command, *answer)

    def _decide(self, command: Command) -> Accepted | Refused:
        """Accept or refuse."""
        try:
            validate(command)
        except DomainError as error:
            return Refused(COMMAND_INVALID, str(error))
        action = command.WhichOneof("action")
        if action is None:
            return Refused(COMMAND_INVALID, "the command has no action that this release knows")
        key = key_of(command.key)
        known = Known(runs=self._store.runs(), highest_generation=self._store.highest_generation(key))
        if action == "run":
            wanted = run_of(command, accepted_at_ms=self._clock.monotonic_ms(), machine_boot_id=self._machine_boot_id)
            return decide_run(wanted, known, self._sites.site(), is_draining=self._is_draining)
        return decide_stop(command.lease, key, known, grace_ms=grace_of(command.stop))

    def _write(self, command: Command, decision: Accepted) -> None:
        """Write down what an accepted command changes."""
        key = key_of(command.key)
        self._store.saw_generation(key)
        for older in decision.superseded:
            self._supervisor.stop(older, DEFAULT_GRACE_MS)
        if command.WhichOneof("action") == "stop" and self._store.run(key) is not None:
            self._supervisor.stop(key, grace_of(command.stop))
        elif decision.run is not None:
            self._store.save_run(decision.run)


def _acknowledgement(command: Command, outcome: int, reason: str, detail: str) -> CommandAcknowledgement:
    """An answer."""
    return CommandAcknowledgement(
        command_id=command.command_id, outcome=CommandOutcome.ValueType(outcome), reason=reason, detail=detail[:1024]
    )
