"""The facts that settlement states: escrows by order, batches by number, each counted from 1."""

from dataclasses import replace
from typing import Final

from google.protobuf.message import Message

from fallow.settlement.v1 import events_pb2
from fallow_chassis.events import EventDraft
from fallow_chassis.postgres import UnitOfWork
from fallow_settlement.chain_store import Batch
from fallow_settlement.convert import batch_message, charge_message, escrow_message
from fallow_settlement.domain.charge import Charge
from fallow_settlement.domain.escrow import Escrow, EscrowState

ESCROWS_TOPIC: Final = "fallow.settlement.escrows.v1"
BATCHES_TOPIC: Final = "fallow.settlement.batches.v1"


def _state(unit: UnitOfWork, escrow: Escrow, message: Message) -> None:
    """Emit a fact about an escrow whose version was raised for it."""
    subject = f"escrows/{escrow.order_id}"
    unit.emit(EventDraft(ESCROWS_TOPIC, escrow.order_id, escrow.version, message, subject=subject))


def _next(escrow: Escrow) -> Escrow:
    """The escrow with the version of its next event."""
    return replace(escrow, version=escrow.version + 1)


def state_topped_up(unit: UnitOfWork, before: Escrow, escrow: Escrow) -> Escrow:
    """EscrowToppedUp, or EscrowResumed where it was suspended before; returns the escrow with the event counted."""
    after = _next(escrow)
    is_resumed = before.state is EscrowState.SUSPENDED
    message = escrow_message(after)
    _state(
        unit,
        after,
        events_pb2.EscrowResumed(escrow=message) if is_resumed else events_pb2.EscrowToppedUp(escrow=message),
    )
    return after


def state_resized(unit: UnitOfWork, escrow: Escrow) -> Escrow:
    """EscrowResized; returns the escrow with the event counted."""
    after = _next(escrow)
    _state(unit, after, events_pb2.EscrowResized(escrow=escrow_message(after)))
    return after


def state_low(unit: UnitOfWork, escrow: Escrow, runway_ms: int | None) -> Escrow:
    """EscrowLow; returns the escrow with the event counted."""
    after = _next(escrow)
    _state(unit, after, events_pb2.EscrowLow(escrow=escrow_message(after, runway_ms)))
    return after


def state_suspended(unit: UnitOfWork, escrow: Escrow) -> Escrow:
    """EscrowSuspended; returns the escrow with the event counted."""
    after = _next(escrow)
    _state(unit, after, events_pb2.EscrowSuspended(escrow=escrow_message(after)))
    return after


def state_closed(unit: UnitOfWork, escrow: Escrow) -> Escrow:
    """EscrowClosed; returns the escrow with the event counted."""
    after = _next(escrow)
    _state(unit, after, events_pb2.EscrowClosed(escrow=escrow_message(after)))
    return after


def state_charged(unit: UnitOfWork, escrow: Escrow, charge: Charge) -> Escrow:
    """ChargePosted; returns the escrow with the event counted."""
    after = _next(escrow)
    _state(unit, after, events_pb2.ChargePosted(charge=charge_message(charge)))
    return after


def state_anchored(unit: UnitOfWork, batch: Batch) -> Batch:
    """BatchAnchored; returns the batch with the event counted."""
    after = replace(batch, version=batch.version + 1)
    message = events_pb2.BatchAnchored(batch=batch_message(after))
    unit.emit(EventDraft(BATCHES_TOPIC, str(batch.number), after.version, message, subject=f"batches/{batch.number}"))
    return after


def state_finalized(unit: UnitOfWork, batch: Batch) -> Batch:
    """BatchFinalized; returns the batch with the event counted."""
    after = replace(batch, version=batch.version + 1)
    message = events_pb2.BatchFinalized(batch=batch_message(after))
    unit.emit(EventDraft(BATCHES_TOPIC, str(batch.number), after.version, message, subject=f"batches/{batch.number}"))
    return after
