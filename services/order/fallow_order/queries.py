"""Reads for Get, List and Watch; each is one consistent view."""

from fallow_chassis.errors import DomainError
from fallow_chassis.postgres import Database
from fallow_order import session_store, store
from fallow_order.domain.order import Change, Order
from fallow_order.domain.reasons import ACCOUNT_NOT_FOUND, ORDER_NOT_FOUND
from fallow_order.domain.session import Account, ApiKey


class OrderQueries:
    """What an account may read of its own orders; another's are as if they were not there."""

    def __init__(self, database: Database) -> None:
        """Read from a database."""
        self._database = database

    async def get(self, account: str, order_id: str) -> Order:
        """One order; ORDER_NOT_FOUND."""
        order, _ = await self.get_with_changes(account, order_id, after=0, limit=0)
        return order

    async def get_with_changes(
        self, account: str, order_id: str, *, after: int, limit: int
    ) -> tuple[Order, list[Change]]:
        """One order and its changes after a sequence number, both of one instant; ORDER_NOT_FOUND."""
        async with self._database.read() as connection:
            order = await store.load_order(connection, order_id)
            if order is None or order.account != account:
                raise DomainError(ORDER_NOT_FOUND, "there is no such order", metadata={"order": f"orders/{order_id}"})
            changes = await store.load_changes(connection, order_id, after, limit) if limit else []
        return order, changes

    async def list(
        self,
        account: str,
        *,
        before_id: str,
        wanted: store.OrderFilter,
        limit: int,
    ) -> list[Order]:
        """A page of orders, newest first."""
        async with self._database.read() as connection:
            return await store.list_orders(connection, account, before_id=before_id, wanted=wanted, limit=limit)


class SessionQueries:
    """What an account may read of itself."""

    def __init__(self, database: Database) -> None:
        """Read from a database."""
        self._database = database

    async def account(self, account_id: str) -> Account:
        """One account; ACCOUNT_NOT_FOUND."""
        async with self._database.read() as connection:
            account = await session_store.load_account(connection, account_id)
        if account is None:
            raise DomainError(ACCOUNT_NOT_FOUND, "there is no such account")
        return account

    async def api_keys(self, account_id: str, *, before_id: str, limit: int) -> list[ApiKey]:
        """A page of API keys, newest first."""
        async with self._database.read() as connection:
            return await session_store.list_api_keys(connection, account_id, before_id=before_id, limit=limit)
