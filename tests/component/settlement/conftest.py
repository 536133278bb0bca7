"""Settlement on a database of its own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from fallow_chassis.postgres import Database
from fallow_chassis.testing import DatabaseFactory, ManualClock, SequentialIds
from fallow_settlement.chain import JsonRpcNode
from fallow_settlement.settings import Contracts
from fallow_settlement.signer import Signer
from tests.component.settlement.chain import LocalChain, deployed, running_chain
from tests.component.settlement.market import Market


@pytest.fixture
async def database(
    database_factory: DatabaseFactory, clock: ManualClock, ids: SequentialIds
) -> AsyncIterator[Database]:
    """A migrated database of the test's own."""
    opened = await Database.connect(
        await database_factory("fallow_settlement"), pool_size=6, ids=ids, clock=clock, source="services/settlement"
    )
    yield opened
    await opened.close()


@pytest.fixture
def market(database: Database, clock: ManualClock) -> Market:
    """A market in miniature on that database."""
    return Market(database, clock)


@pytest.fixture(scope="session")
def local_chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalChain]:
    """The embedded chain, one for the worker; each test deploys contracts of its own."""
    with running_chain(tmp_path_factory.mktemp("chain")) as chain:
        yield chain


@pytest.fixture
async def contracts(local_chain: LocalChain, tmp_path: Path) -> Contracts:
    """Contracts of the test's own."""
    return await deployed(local_chain, tmp_path)


@pytest.fixture
async def node(local_chain: LocalChain, contracts: Contracts) -> AsyncIterator[JsonRpcNode]:
    """A client of the chain."""
    async with JsonRpcNode(local_chain.url, contracts.chain_id) as opened:
        yield opened


@pytest.fixture
def signer(local_chain: LocalChain, contracts: Contracts) -> Signer:
    """The anchorer: the account that deployed the contracts."""
    return Signer.load(local_chain.development_account, contracts.chain_id)
