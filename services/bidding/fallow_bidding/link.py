"""The provider link: answers ``fallow.provider.*.heartbeat`` and ``.inventory`` requests over NATS.

The provider is named by the subject, which its credentials bind it to.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import asyncpg
from google.protobuf.message import DecodeError

from fallow.provider.v1 import market_link_pb2
from fallow_bidding.commands.link import LinkCommands
from fallow_bidding.convert.link import error_reply
from fallow_bidding.domain.reasons import LINK_MESSAGE_INVALID
from fallow_chassis.errors import UNAVAILABLE, DomainError
from fallow_chassis.logging import get_logger
from fallow_chassis.nats_link import NatsLink, NatsMessage
from fallow_chassis.retry import is_retryable

QUEUE: Final = "bidding"
HEARTBEAT_SUBJECT: Final = "fallow.provider.*.heartbeat"
INVENTORY_SUBJECT: Final = "fallow.provider.*.inventory"

_log = get_logger(__name__)
M = TypeVar("M", market_link_pb2.Heartbeat, market_link_pb2.InventoryReport)
Take = Callable[[str, M], Awaitable[market_link_pb2.LinkReply]]


class LinkServer:
    """Decodes, calls the use-case, encodes; a message that cannot be taken is answered with a LinkError."""

    def __init__(self, link: NatsLink, commands: LinkCommands) -> None:
        """Take the link and the use-cases."""
        self._link = link
        self._commands = commands

    async def start(self) -> None:
        """Listen; replicas of this service share the messages."""
        await self._link.serve(HEARTBEAT_SUBJECT, QUEUE, self.heartbeat)
        await self._link.serve(INVENTORY_SUBJECT, QUEUE, self.inventory)

    async def heartbeat(self, message: NatsMessage) -> bytes:
        """A sign of life."""
        return await _answer(message, market_link_pb2.Heartbeat, self._commands.take_heartbeat)

    async def inventory(self, message: NatsMessage) -> bytes:
        """A report of nodes and devices."""
        return await _answer(message, market_link_pb2.InventoryReport, self._commands.take_inventory)


async def _answer(message: NatsMessage, kind: type[M], take: "Take[M]") -> bytes:
    """Take one message; what passes by itself is answered as UNAVAILABLE, so that the agent sends it again."""
    provider_id = message.subject.split(".")[2]
    try:
        try:
            decoded = kind.FromString(message.payload)
        except DecodeError as error:
            raise DomainError(LINK_MESSAGE_INVALID, f"not a {kind.DESCRIPTOR.name}") from error
        reply = await take(provider_id, decoded)
    except (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError):
        # Postgres keeps every text but one with the character NUL; nothing of the message was stored.
        _log.warning("link_message_refused", subject=message.subject, reason=LINK_MESSAGE_INVALID.reason)
        reply = error_reply(DomainError(LINK_MESSAGE_INVALID, "a text holds the character NUL"))
    except DomainError as error:
        _log.warning("link_message_refused", subject=message.subject, reason=error.reason.reason)
        reply = error_reply(error)
    except Exception as error:
        if not is_retryable(error):
            raise
        reply = error_reply(DomainError(UNAVAILABLE, "the market cannot write now; send it again"))
    return reply.SerializeToString()
