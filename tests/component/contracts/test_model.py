"""Anchor and vault against a model in plain Python that keeps every batch's whole ancestry: random lives, nothing differs."""

import random
from dataclasses import dataclass, field

import pytest

from fallow_receipts import Header, MerkleTree, Payout, id_to_word
from tests.component.contracts.test_escape import DAY
from tests.component.contracts.test_vault import TENANT_REF, balance, claim_values
from tests.component.contracts.world import CHALLENGE_SECONDS, ESCAPE_SECONDS, House, World, header_values

ACCOUNTS = [f"01k9v3d6h4m8p2q5r7s9t1{index:04d}" for index in range(300)]
"""More than a bitmap's word, so that every depth of a tree occurs."""
STEPS = 120
LIMIT = 120


@dataclass
class Batch:
    """One anchored batch as the model has it."""

    header: Header
    tree: MerkleTree
    payouts: list[Payout]
    balances: list[Payout]
    time: int
    lineage: frozenset[int]
    """Its own number and those of all that its payouts were built on; empty where they never counted."""


@dataclass
class Model:
    """What must be true, worked out the long way."""

    house: House
    draw: random.Random
    time: int
    batches: list[Batch] = field(default_factory=list)
    vetoed: set[int] = field(default_factory=set)
    owed: dict[str, int] = field(default_factory=dict)
    claimed: dict[str, int] = field(default_factory=dict)
    by_balance: int = 0
    """What was paid by balances."""
    paid_by_day: dict[int, int] = field(default_factory=dict)
    deposited: int = 0
    alive: int = 0
    escaped: int = 0
    cap: int = 0
    paid: int = 0
    waits: int = 0
    outcomes: set[str] = field(default_factory=set)

    def counts(self, batch: Batch) -> bool:
        """Whether its payouts count: it was built on nothing that was vetoed."""
        return bool(batch.lineage) and not batch.lineage & self.vetoed

    @property
    def parent(self) -> int:
        """The last batch that counts."""
        return max((batch.header.batch_id for batch in self.batches if self.counts(batch)), default=0)

    def step(self) -> None:
        """One thing that somebody does."""
        kinds = [self.wait, self.deposit, self.settle, self.settle, self.claim, self.claim, self.claim]
        kinds += [self.veto] if self.draw.random() < 0.5 else []
        kinds += [self.escape, self.claim_balance] if self.draw.random() < 0.3 or self.escaped else []
        self.draw.choice(kinds)()

    def wait(self) -> None:
        """Time passes."""
        self.waits += 1
        longest = ESCAPE_SECONDS if self.waits % 6 == 0 else DAY
        seconds = self.draw.choice([60, CHALLENGE_SECONDS, CHALLENGE_SECONDS, longest])
        self.house.world.clock.advance(seconds=seconds)
        self.time += seconds
        if seconds == ESCAPE_SECONDS and self.draw.random() < 0.5:
            self.escape()

    def deposit(self) -> None:
        """Money in, or a vault that takes none."""
        amount = self.draw.randint(50, 400)
        if self.escaped:
            tenant = self.house.world.account("tenant")
            self.house.vault.expect_revert("vault: wound down", "deposit", amount, TENANT_REF, sender=tenant)
            return
        self.house.fund(amount, TENANT_REF)
        self.deposited += amount

    def settle(self) -> None:
        """A batch over what is owed now: on the right parent, or, as one that was on its way, on a vetoed one."""
        for account in self.draw.sample(ACCOUNTS, self.draw.choice([1, 3, 280])):
            self.owed[account] = self.owed.get(account, 0) + self.draw.randint(1, 50)
        wallet = self.house.world.account("alice").address
        payouts = [Payout(account, wallet, total) for account, total in sorted(self.owed.items())]
        balances = [
            Payout(account, wallet, self.owed.get(account, 0) + self.draw.randint(1, 20))
            for account in self.draw.sample(ACCOUNTS, 5)
        ]
        stale = [batch.header.batch_id for batch in self.batches if not self.counts(batch)]
        is_late = bool(stale) and self.draw.random() < 0.3
        parent = self.draw.choice(stale) if is_late else self.parent
        header, tree = self.house.settle(payouts, balances, payout_parent=parent)
        below = self.batches[parent - 1].lineage if parent and not is_late else frozenset[int]()
        lineage = frozenset[int]() if is_late else below | {header.batch_id}
        self.batches.append(Batch(header, tree, payouts, balances, self.time, lineage))
        if not is_late:
            self.alive = self.time
        self.outcomes.add("late" if is_late else "settled")

    def veto(self) -> None:
        """A veto of any batch."""
        if not self.batches:
            return
        batch = self.draw.choice(self.batches)
        values = header_values(batch.header)
        if not self.counts(batch):
            self.house.anchor.expect_revert("anchor: nothing to veto", "veto", values, sender=self.house.guardian)
            return
        self.house.anchor.send("veto", values, sender=self.house.guardian)
        self.vetoed.add(batch.header.batch_id)
        self.outcomes.add("vetoed")

    def _refusal(self, batch: Batch) -> str:
        """Why nothing is paid by a batch now; empty where something may be."""
        if self.escaped and batch.header.batch_id != self.escaped:
            return "vault: wound down by another root"
        if not self.counts(batch):
            return "vault: vetoed"
        return "vault: in challenge window" if self.time < batch.time + CHALLENGE_SECONDS else ""

    def claim(self) -> None:
        """A claim by any batch for anyone in it."""
        if not self.batches:
            return
        batch = self.draw.choice(self.batches[-4:])
        index = self.draw.randrange(len(batch.payouts))
        payout = batch.payouts[index]
        values = claim_values(batch.header, payout, batch.tree.proof(index))
        reason = self._refusal(batch)
        due = payout.total_micros - self.claimed.get(payout.account, 0)
        today, cash = self.time // DAY, balance(self.house, self.house.vault.address)
        if not reason and due > 0:
            due = min(due, cash)
            reason = "" if due else "vault: no cash"
        if not reason and due > 0 and not self.escaped:
            left = LIMIT - self.paid_by_day.get(today, 0)
            reason = "" if left > 0 else "vault: daily limit"
            due = min(due, left)
        if not reason and due > 0 and self.paid + due > max(self.cap, batch.header.payout_total):
            reason = "vault: above payout total"
        self.outcomes.add(reason or ("paid" if due > 0 else "nothing"))
        if reason:
            self.house.vault.expect_revert(reason, "claim", *values, sender=self.house.owner)
            return
        answer = self.house.vault.call("claim", *values, sender=self.house.owner)
        assert answer == max(0, due)
        self.house.vault.send("claim", *values, sender=self.house.owner)
        if due > 0:
            self.claimed[payout.account] = self.claimed.get(payout.account, 0) + due
            self.paid += due
            self.cap = max(self.cap, batch.header.payout_total)
            if not self.escaped:
                self.paid_by_day[today] = self.paid_by_day.get(today, 0) + due

    def escape(self) -> None:
        """Anybody calls for the end."""
        target = self.parent
        if not self.escaped and self.time < self.alive + ESCAPE_SECONDS:
            reason = "vault: the operator is there"
        elif self.escaped and self.counts(self.batches[self.escaped - 1]):
            reason = "vault: wound down"
        else:
            reason = "" if target and (not self.escaped or target < self.escaped) else "vault: no root"
        self.outcomes.add(reason or "escaped")
        if reason:
            self.house.vault.expect_revert(reason, "escape", sender=self.house.owner)
            return
        self.house.vault.send("escape", sender=self.house.owner)
        self.escaped = target

    def claim_balance(self) -> None:
        """Somebody wants its balance."""
        if not self.batches:
            return
        batch = self.batches[self.escaped - 1] if self.escaped and self.draw.random() < 0.8 else self.batches[-1]
        index = self.draw.randrange(len(batch.balances))
        held = batch.balances[index]
        values = claim_values(batch.header, held, batch.tree.proof(len(batch.payouts) + index))
        reason = self._refusal(batch) if self.escaped else "vault: the operator is there"
        due = held.total_micros - self.claimed.get(held.account, 0)
        if not reason and due <= 0:
            reason = "vault: claimed already"
        due = min(due, balance(self.house, self.house.vault.address))
        if not reason and due == 0:
            reason = "vault: no cash"
        self.outcomes.add(f"balance {reason}")
        if reason:
            self.house.vault.expect_revert(reason, "claim_balance", *values, sender=self.house.owner)
            return
        assert self.house.vault.call("claim_balance", *values, sender=self.house.owner) == due
        self.house.vault.send("claim_balance", *values, sender=self.house.owner)
        self.claimed[held.account] = self.claimed.get(held.account, 0) + due
        self.by_balance += due

    def check(self) -> None:
        """The contracts say what the model says."""
        anchor, vault = self.house.anchor, self.house.vault
        assert anchor.call("payout_parent") == self.parent
        assert anchor.call("next_batch") == len(self.batches) + 1
        for batch in self.batches[-6:]:
            assert anchor.call("is_payable", batch.header.batch_id) is self.counts(batch)
        out = sum(self.claimed.values())
        assert vault.call("paid_total") == self.paid == out - self.by_balance <= max(self.cap, 0)
        assert balance(self.house, vault.address) == self.deposited - out >= 0
        assert vault.call("escaped") == self.escaped
        assert all(amount <= LIMIT for amount in self.paid_by_day.values())


@pytest.mark.parametrize("seed", range(6))
def test_a_random_life_is_the_models(world: World, seed: int) -> None:
    """Goal: no order of events makes the contracts differ from what they say. Method: 120 random steps, compared after each."""
    house = House.make(world, daily_limit=LIMIT)
    now = int(world.clock.now().timestamp())
    model = Model(house, random.Random(seed), now, alive=now)
    for _ in range(STEPS):
        model.step()
        model.check()
    for account, total in model.claimed.items():
        assert house.vault.call("claimed", id_to_word(account)) == total
    assert {"settled", "paid"} <= model.outcomes
