"""What settlement needs from others."""

from typing import Protocol

from fallow_settlement.chain import Block, Log, TransactionReceipt


class Market(Protocol):
    """Bidding's doors for orders whose funds are used up."""

    async def set_order_suspended(self, order_id: str, *, suspended: bool, number: int) -> None:
        """Pause an order or let it go on; one whose number is not above the last changes nothing."""
        ...

    async def end_order(self, order_id: str) -> None:
        """Ask to end matching and leases of an order for want of funds; idempotent. Raises what the call raises."""
        ...


class ChainNode(Protocol):
    """The chain, as a node tells it. All raise ChainUnavailableError, and NodeError where the node refuses."""

    async def head(self) -> int:
        """The number of the newest block."""
        ...

    async def block(self, number: int) -> Block | None:
        """The canonical block of a number."""
        ...

    async def receipt(self, transaction_hash: str) -> TransactionReceipt | None:
        """What became of a transaction; None while it is in no block."""
        ...

    async def transaction_count(self, address: str) -> int:
        """How many transactions of an address are mined."""
        ...

    async def priority_fee(self) -> int:
        """The suggested tip in wei."""
        ...

    async def call(self, to: str, data: bytes, sender: str = "") -> bytes:
        """A contract's answer."""
        ...

    async def send(self, raw: bytes) -> None:
        """Send signed bytes."""
        ...

    async def logs(self, block_hash: str, address: str, topic: str) -> list[Log]:
        """A contract's logs in one block."""
        ...
