"""What holds money back and what lets it out all the same: the daily limit, the escape, the rescue of foreign tokens."""

import pytest

from fallow_receipts import Header, MerkleTree, Payout, id_to_word
from tests.component.contracts.test_vault import (
    ALICE,
    BOB,
    HOUR,
    TENANT_REF,
    balance,
    claim,
    claim_values,
    payouts_of,
)
from tests.component.contracts.world import ESCAPE_SECONDS, House, World, header_values

DAY = 86_400


class TestDailyLimit:
    """No more than so much leaves in a day."""

    @pytest.fixture
    def house(self, world: World) -> House:
        """A vault that pays 100 a day."""
        made = House.make(world, daily_limit=100)
        made.fund(10_000)
        return made

    def test_a_claim_beyond_it_gets_the_rest_of_the_day(self, house: House) -> None:
        """Goal: a large claim is paid in days, never lost, never twice. Method: 250 for one, 40 for the other."""
        payouts = payouts_of(house, alice=250, bob=40)
        header, tree = house.settle(payouts)
        house.world.clock.advance(seconds=DAY)
        assert claim(house, header, tree, payouts, 1) == 40
        assert claim(house, header, tree, payouts, 0) == 60
        values = claim_values(header, payouts[0], tree.proof(0))
        house.vault.expect_revert("vault: daily limit", "claim", *values, sender=house.owner)
        assert claim(house, header, tree, payouts, 1) == 0, "what was claimed in full is no matter of the limit"
        house.world.clock.advance(seconds=DAY)
        assert claim(house, header, tree, payouts, 0) == 100
        house.world.clock.advance(seconds=DAY)
        assert claim(house, header, tree, payouts, 0) == 90
        assert claim(house, header, tree, payouts, 0) == 0
        assert balance(house, payouts[0].payee) == 250
        assert house.vault.call("claimed", id_to_word(ALICE)) == 250

    def test_the_day_ends_at_midnight(self, house: House) -> None:
        """Goal: a day is a day of UTC. Method: 100 after midnight; nothing until the next one; then the rest."""
        payouts = payouts_of(house, alice=150)
        header, tree = house.settle(payouts)
        now = int(house.world.clock.now().timestamp())
        house.world.clock.advance(seconds=DAY - now % DAY + HOUR)
        assert claim(house, header, tree, payouts, 0) == 100
        values = claim_values(header, payouts[0], tree.proof(0))
        for seconds in (12 * HOUR, 11 * HOUR - 1):
            house.world.clock.advance(seconds=seconds)
            house.vault.expect_revert("vault: daily limit", "claim", *values, sender=house.owner)
        house.world.clock.advance(seconds=1)
        assert claim(house, header, tree, payouts, 0) == 50

    def test_the_owner_sets_it(self, house: House) -> None:
        """Goal: the limit is the owner's. Method: a stranger in vain; raise it, lower it below what was paid, stop."""
        payouts = payouts_of(house, alice=500)
        header, tree = house.settle(payouts)
        house.world.clock.advance(seconds=DAY)
        assert claim(house, header, tree, payouts, 0) == 100
        house.vault.expect_revert("ownership: not the owner", "set_daily_limit", 10**9, sender=house.guardian)
        receipt = house.vault.send("set_daily_limit", 150, sender=house.owner)
        assert house.vault.events("DailyLimitSet", receipt) == [{"daily_limit": 150}]
        assert claim(house, header, tree, payouts, 0) == 50
        values = claim_values(header, payouts[0], tree.proof(0))
        for limit in (10, 0):
            house.vault.send("set_daily_limit", limit, sender=house.owner)
            house.vault.expect_revert("vault: daily limit", "claim", *values, sender=house.owner)
        house.world.clock.advance(seconds=DAY)
        house.vault.expect_revert("vault: daily limit", "claim", *values, sender=house.owner)


class TestEscape:
    """The operator is silent: the last root that counts pays all, once."""

    @pytest.fixture
    def settled(self, house: House) -> tuple[House, Header, MerkleTree]:
        """A vault with money, and a root that owes one account 100 and holds balances: that and 30, and 600 of another."""
        house.fund(1_000, TENANT_REF)
        header, tree = house.settle(payouts_of(house, alice=100), payouts_of(house, alice=130, bob=600))
        return house, header, tree

    def test_balances_are_paid_once(self, settled: tuple[House, Header, MerkleTree]) -> None:
        """Goal: tenants get their own without the operator. Method: a second before the silence, then each leaf twice."""
        house, header, tree = settled
        stranger = house.world.account("stranger")
        held = payouts_of(house, alice=130, bob=600)
        values = [claim_values(header, one, tree.proof(index + 1)) for index, one in enumerate(held)]
        house.world.clock.advance(seconds=ESCAPE_SECONDS - 1)
        house.vault.expect_revert("vault: the operator is there", "escape", sender=stranger)
        house.vault.expect_revert("vault: the operator is there", "claim_balance", *values[0], sender=stranger)
        house.world.clock.advance(seconds=1)
        assert house.vault.events("Escaped", house.vault.send("escape", sender=stranger)) == [{"batch_id": 1}]
        house.vault.expect_revert("vault: wound down", "escape", sender=stranger)
        receipt = house.vault.send("claim_balance", *values[1], sender=stranger)
        assert house.vault.events("BalanceClaimed", receipt) == [
            {"account": id_to_word(BOB), "payee": held[1].payee.lower(), "amount": 600, "batch_id": 1}
        ]
        house.vault.expect_revert("vault: claimed already", "claim_balance", *values[1], sender=stranger)
        assert claim(house, header, tree, payouts_of(house, alice=100), 0) == 100
        assert house.vault.call("claim_balance", *values[0], sender=stranger) == 30
        house.vault.send("claim_balance", *values[0], sender=stranger)
        assert (balance(house, held[0].payee), balance(house, held[1].payee)) == (130, 600)
        assert balance(house, house.vault.address) == 270

    def test_a_balance_pays_a_payout_too(self, settled: tuple[House, Header, MerkleTree]) -> None:
        """Goal: both leaves of an account pay one total, in either order. Method: the balance first, then the payout."""
        house, header, tree = settled
        house.world.clock.advance(seconds=ESCAPE_SECONDS)
        house.vault.send("escape", sender=house.owner)
        values = claim_values(header, payouts_of(house, alice=130)[0], tree.proof(1))
        house.vault.send("claim_balance", *values, sender=house.owner)
        assert claim(house, header, tree, payouts_of(house, alice=100), 0) == 0
        assert balance(house, house.world.account("alice").address) == 130
        assert house.vault.call("claimed", id_to_word(ALICE)) == 130

    def test_what_was_claimed_by_a_vetoed_root_is_not_paid_again(self, house: House) -> None:
        """Goal: a late veto pays nobody twice. Method: withdraw and claim by the second root, veto it, escape by the first,
        to another payee.
        """
        house.fund(1_000)
        held = [Payout(account=ALICE, payee=house.world.account("bob").address, total_micros=250)]
        header, tree = house.settle([], held)
        withdrawn = payouts_of(house, alice=200)
        second, second_tree = house.settle(withdrawn)
        house.world.clock.advance(seconds=HOUR)
        assert claim(house, second, second_tree, withdrawn, 0) == 200
        house.anchor.send("veto", header_values(second), sender=house.guardian)
        house.world.clock.advance(seconds=ESCAPE_SECONDS)
        house.vault.send("escape", sender=house.owner)
        house.vault.send("claim_balance", *claim_values(header, held[0], tree.proof(0)), sender=house.owner)
        assert balance(house, house.vault.address) == 1_000 - 250

    def test_a_vault_that_is_short_pays_what_it_has(self, house: House) -> None:
        """Goal: nothing is stuck for being less than is due. Method: balances of 80 and 50 in a vault of 100; more comes."""
        house.fund(100)
        held = payouts_of(house, alice=80, bob=50)
        header, tree = house.settle([], held)
        house.world.clock.advance(seconds=ESCAPE_SECONDS)
        house.vault.send("escape", sender=house.owner)
        values = [claim_values(header, one, tree.proof(index)) for index, one in enumerate(held)]
        for one in values:
            house.vault.send("claim_balance", *one, sender=house.owner)
        assert (balance(house, held[0].payee), balance(house, held[1].payee)) == (80, 20)
        house.vault.expect_revert("vault: no cash", "claim_balance", *values[1], sender=house.owner)
        house.token.send("mint", house.vault.address, 500, sender=house.owner)
        assert house.vault.call("claim_balance", *values[1], sender=house.owner) == 30

    def test_balances_do_not_nest(self, world: World) -> None:
        """Goal: a balance cannot be paid again from within. Method: a token that calls either claim back."""
        house = House.make(world, token="ReenteringToken")
        house.fund(1_000)
        payouts, held = payouts_of(house, alice=100), payouts_of(house, alice=130, bob=600)
        header, tree = house.settle(payouts, held)
        world.clock.advance(seconds=ESCAPE_SECONDS)
        house.vault.send("escape", sender=house.owner)
        values = claim_values(header, held[0], tree.proof(1))
        for name, inner, outer in (
            ("claim_balance", values, claim_values(header, held[1], tree.proof(2))),
            ("claim", claim_values(header, payouts[0], tree.proof(0)), values),
        ):
            payload = house.vault.data(name, *inner)
            house.token.send("arm", house.vault.address, payload, False, sender=house.owner)
            house.vault.send("claim_balance", *outer, sender=house.owner)
        assert (house.token.call("attempts"), house.token.call("successes")) == (2, 0)
        assert balance(house, house.vault.address) == 1_000 - 130 - 600

    def test_neither_pause_nor_limit_holds_it_up(self, settled: tuple[House, Header, MerkleTree]) -> None:
        """Goal: a hostile owner cannot keep the money. Method: pause and a limit of 0, then the silence."""
        house, header, tree = settled
        house.vault.send("pause", sender=house.owner)
        house.vault.send("set_daily_limit", 0, sender=house.owner)
        house.world.clock.advance(seconds=ESCAPE_SECONDS)
        house.vault.send("escape", sender=house.world.account("stranger"))
        assert claim(house, header, tree, payouts_of(house, alice=100), 0) == 100
        values = claim_values(header, payouts_of(house, bob=600)[0], tree.proof(2))
        house.vault.send("claim_balance", *values, sender=house.owner)
        assert balance(house, house.world.account("bob").address) == 600

    def test_nothing_comes_in_and_no_other_root_counts(self, settled: tuple[House, Header, MerkleTree]) -> None:
        """Goal: a wound-down vault stays so, also when the operator comes back. Method: deposit; a newer and an older root."""
        house, _, _ = settled
        newer = payouts_of(house, alice=400)
        second, second_tree = house.settle(newer)
        house.world.clock.advance(seconds=ESCAPE_SECONDS)
        house.vault.send("escape", sender=house.owner)
        third, third_tree = house.settle(newer)
        house.world.clock.advance(seconds=HOUR)
        tenant = house.world.account("tenant")
        house.vault.expect_revert("vault: wound down", "deposit", 1, TENANT_REF, sender=tenant)
        values = claim_values(third, newer[0], third_tree.proof(0))
        house.vault.expect_revert("vault: wound down by another root", "claim", *values, sender=house.owner)
        first = house.headers[0]
        values = claim_values(first, payouts_of(house, alice=100)[0], settled[2].proof(0))
        house.vault.expect_revert("vault: wound down by another root", "claim", *values, sender=house.owner)
        assert claim(house, second, second_tree, newer, 0) == 400

    def test_a_vetoed_root_gives_way(self, settled: tuple[House, Header, MerkleTree]) -> None:
        """Goal: a last root that robs is stopped, before the escape and after it. Method: veto in both moments."""
        house, good, tree = settled
        robbed, robbed_tree = house.settle(payouts_of(house, bob=900), payouts_of(house, bob=1))
        house.world.clock.advance(seconds=ESCAPE_SECONDS)
        house.vault.send("escape", sender=house.owner)
        assert house.vault.call("escaped") == 2
        house.anchor.send("veto", header_values(robbed), sender=house.guardian)
        values = claim_values(robbed, payouts_of(house, bob=900)[0], robbed_tree.proof(0))
        house.vault.expect_revert("vault: vetoed", "claim", *values, sender=house.owner)
        house.vault.send("escape", sender=house.owner)
        assert house.vault.call("escaped") == 1
        values = claim_values(good, payouts_of(house, bob=600)[0], tree.proof(2))
        house.vault.send("claim_balance", *values, sender=house.owner)
        house.anchor.send("veto", header_values(good), sender=house.guardian)
        house.vault.expect_revert("vault: no root", "escape", sender=house.owner)

    def test_without_a_root_there_is_nothing_to_pay_by(self, house: House) -> None:
        """Goal: an escape needs a root. Method: no batch, and silence from the deployment on."""
        house.world.clock.advance(seconds=ESCAPE_SECONDS)
        house.vault.expect_revert("vault: no root", "escape", sender=house.owner)

    def test_leaves_of_one_kind_are_not_the_other(self, settled: tuple[House, Header, MerkleTree]) -> None:
        """Goal: a payout is no balance, and the reverse. Method: swap the kinds; forge account, payee and amount."""
        house, header, tree = settled
        house.world.clock.advance(seconds=ESCAPE_SECONDS)
        house.vault.send("escape", sender=house.owner)
        as_balance = claim_values(header, payouts_of(house, alice=100)[0], tree.proof(0))
        house.vault.expect_revert("vault: bad proof", "claim_balance", *as_balance, sender=house.owner)
        as_payout = claim_values(header, payouts_of(house, bob=600)[0], tree.proof(2))
        house.vault.expect_revert("vault: bad proof", "claim", *as_payout, sender=house.owner)
        wallet = house.world.account("alice").address
        for forged in (Payout(BOB, wallet, 600), Payout(ALICE, wallet, 131), Payout(ALICE, wallet, 600)):
            values = claim_values(header, forged, tree.proof(2))
            house.vault.expect_revert("vault: bad proof", "claim_balance", *values, sender=house.owner)
        nobody = Payout(BOB, "0x" + "00" * 20, 5)
        values = claim_values(header, nobody, ())
        house.vault.expect_revert("vault: no payee", "claim_balance", *values, sender=house.owner)

    def test_an_escape_is_later_than_the_window(self, house: House) -> None:
        """Goal: the last root was open to a veto before anybody is paid by it. Method: an escape within the window."""
        owner = house.owner.address
        with pytest.raises(AssertionError, match="not deployed"):
            house.world.deploy("EscrowVault", house.token.address, house.anchor.address, HOUR, HOUR, 1, owner, owner)


class TestRescue:
    """Tokens that were sent here by mistake."""

    def test_only_foreign_tokens_and_only_the_owner(self, house: House) -> None:
        """Goal: the vault's own token leaves by claims alone. Method: rescue both kinds; a stranger; a silent token."""
        house.fund(1_000)
        house.vault.expect_revert(
            "vault: its own token", "rescue", house.token.address, house.owner.address, sender=house.owner
        )
        heir = house.world.account("heir")
        for name in ("TestToken", "SilentToken"):
            foreign = house.world.deploy(name)
            foreign.send("mint", house.vault.address, 77, sender=house.owner)
            house.vault.expect_revert(
                "ownership: not the owner", "rescue", foreign.address, heir.address, sender=house.guardian
            )
            receipt = house.vault.send("rescue", foreign.address, heir.address, sender=house.owner)
            assert house.vault.events("Rescued", receipt) == [
                {"token": foreign.address, "receiver": heir.address.lower(), "amount": 77}
            ]
            assert foreign.call("balanceOf", heir.address) == 77
        assert balance(house, house.vault.address) == 1_000

    def test_a_second_address_of_its_token_is_not_foreign(self, world: World) -> None:
        """Goal: a token with two addresses is no way round. Method: the second address moves what the first holds."""
        house = House.make(world, token="TwinToken")
        house.fund(100)
        twin = world.deploy("TwinToken")
        twin.send("join", house.token.address, sender=house.owner)
        house.token.send("join", twin.address, sender=house.owner)
        twin.send("mint", house.vault.address, 60, sender=house.owner)
        values = (twin.address, house.owner.address)
        house.vault.expect_revert("vault: its own token", "rescue", *values, sender=house.owner)
        assert balance(house, house.vault.address) == 100
