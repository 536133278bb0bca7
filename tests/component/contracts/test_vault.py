"""EscrowVault: exact deposits, cumulative claims after the window, once, whatever tokens and strangers do."""

import dataclasses
from typing import Any

import pytest

from fallow_receipts import Header, MerkleTree, Payout, id_to_word, keccak
from fallow_receipts.words import integer_word
from tests.component.contracts.world import CHAIN_ID, Contract, House, World, header_values

ALICE = "01k9v3d6h4m8p2q5r7s9t1aaaa"
BOB = "01k9v3d6h4m8p2q5r7s9t1bbbb"
TENANT_REF = id_to_word("01k9v3d6h4m8p2q5r7s9t1cccc")
HOUR = 3600


def payout_values(payout: Payout) -> tuple[Any, ...]:
    return (id_to_word(payout.account), payout.payee, payout.total_micros)


def claim_values(header: Header, payout: Payout, proof: tuple[bytes, ...]) -> tuple[Any, ...]:
    return (header_values(header), payout_values(payout), list(proof))


def payouts_of(house: House, **totals: int) -> list[Payout]:
    """Payouts of the named accounts, each to the wallet of its name."""
    accounts = {"alice": ALICE, "bob": BOB}
    return [
        Payout(account=accounts[name], payee=house.world.account(name).address, total_micros=total)
        for name, total in totals.items()
    ]


def balance(house: House, address: str) -> int:
    found: int = house.token.call("balanceOf", address)
    return found


def claim(house: House, header: Header, tree: MerkleTree, payouts: list[Payout], index: int) -> int:
    """Claim by a stranger; return what was paid."""
    stranger = house.world.account("stranger")
    values = claim_values(header, payouts[index], tree.proof(index))
    paid: int = house.vault.call("claim", *values, sender=stranger)
    receipt = house.vault.send("claim", *values, sender=stranger)
    events = house.vault.events("Claimed", receipt)
    assert [event["amount"] for event in events] == ([paid] if paid else [])
    return paid


class TestDeposit:
    """Money in."""

    def test_a_deposit_is_told(self, house: House) -> None:
        """Goal: settlement can credit from events alone. Method: two deposits for one account; sums and senders."""
        tenant = house.world.account("tenant")
        for amount, total in ((1_000, 1_000), (1, 1_001)):
            receipt = house.fund(amount, TENANT_REF)
            assert house.vault.events("Deposited", receipt) == [
                {"account_ref": TENANT_REF, "sender": tenant.address.lower(), "amount": amount, "total": total}
            ]
        assert house.vault.call("deposited", TENANT_REF) == 1_001
        assert balance(house, house.vault.address) == 1_001

    def test_nothing_for_nobody(self, house: House) -> None:
        """Goal: each deposit has an amount and an account. Method: neither."""
        tenant = house.world.account("tenant")
        house.vault.expect_revert("vault: no amount", "deposit", 0, TENANT_REF, sender=tenant)
        house.vault.expect_revert("vault: no account", "deposit", 1, bytes(32), sender=tenant)

    def test_more_than_allowed_or_owned_is_refused(self, house: House) -> None:
        """Goal: a deposit is the sender's own money. Method: without allowance, then without balance."""
        tenant = house.world.account("tenant")
        house.vault.expect_revert("token: above allowance", "deposit", 5, TENANT_REF, sender=tenant)
        house.token.send("approve", house.vault.address, 5, sender=tenant)
        house.vault.expect_revert("token: above balance", "deposit", 5, TENANT_REF, sender=tenant)
        assert house.vault.call("deposited", TENANT_REF) == 0

    def test_a_token_that_takes_a_fee_is_refused(self, world: World) -> None:
        """Goal: what is credited has arrived. Method: a token that keeps a tenth."""
        house = House.make(world, token="FeeToken")
        tenant = world.account("tenant")
        house.token.send("mint", tenant.address, 100, sender=tenant)
        house.vault.expect_revert("vault: inexact transfer", "deposit", 100, TENANT_REF, sender=tenant)
        assert balance(house, tenant.address) == 100

    def test_a_token_that_returns_nothing_is_taken(self, world: World) -> None:
        """Goal: old tokens work; a transfer that fails is a failed deposit. Method: one that returns nothing."""
        house = House.make(world, token="SilentToken")
        house.fund(100, TENANT_REF)
        assert house.vault.call("deposited", TENANT_REF) == 100
        house.token.send("refuse", sender=house.owner)
        tenant = world.account("tenant")
        house.vault.expect_revert("", "deposit", 1, TENANT_REF, sender=tenant)


class TestClaim:
    """Money out."""

    def test_a_claim_pays_what_is_new(self, house: House) -> None:
        """Goal: one claim covers any number of batches and replays pay nothing. Method: two batches, three claims."""
        house.fund(1_000)
        first = payouts_of(house, alice=100, bob=50)
        first_header, first_tree = house.settle(first)
        house.world.clock.advance(seconds=HOUR)
        assert claim(house, first_header, first_tree, first, 0) == 100
        assert claim(house, first_header, first_tree, first, 0) == 0
        second = payouts_of(house, alice=130, bob=75)
        second_header, second_tree = house.settle(second)
        house.world.clock.advance(seconds=HOUR)
        assert claim(house, second_header, second_tree, second, 0) == 30
        assert claim(house, second_header, second_tree, second, 1) == 75
        assert claim(house, first_header, first_tree, first, 1) == 0
        assert claim(house, first_header, first_tree, first, 0) == 0
        assert balance(house, house.world.account("alice").address) == 130
        assert balance(house, house.world.account("bob").address) == 75
        assert balance(house, house.vault.address) == 1_000 - 205
        assert house.vault.call("claimed", id_to_word(ALICE)) == 130
        assert house.vault.call("paid_total") == 205

    def test_a_claim_is_told(self, house: House) -> None:
        """Goal: settlement sees withdrawals. Method: the event's fields."""
        house.fund(1_000)
        payouts = payouts_of(house, alice=100)
        header, tree = house.settle(payouts)
        house.world.clock.advance(seconds=HOUR)
        receipt = house.vault.send(
            "claim", *claim_values(header, payouts[0], tree.proof(0)), sender=house.world.account("stranger")
        )
        assert house.vault.events("Claimed", receipt) == [
            {
                "account": id_to_word(ALICE),
                "payee": house.world.account("alice").address.lower(),
                "amount": 100,
                "total": 100,
                "batch_id": 1,
            }
        ]

    def test_a_new_payee_is_not_paid_again(self, house: House) -> None:
        """Goal: what was claimed is kept by account. Method: the account names another payee in the next batch."""
        house.fund(1_000)
        first = payouts_of(house, alice=100)
        header, tree = house.settle(first)
        house.world.clock.advance(seconds=HOUR)
        assert claim(house, header, tree, first, 0) == 100
        moved = [Payout(account=ALICE, payee=house.world.account("bob").address, total_micros=120)]
        header, tree = house.settle(moved)
        house.world.clock.advance(seconds=HOUR)
        assert claim(house, header, tree, moved, 0) == 20
        assert balance(house, house.world.account("bob").address) == 20

    def test_the_window_must_pass(self, house: House) -> None:
        """Goal: there is time to object. Method: one second before the hour, then the hour."""
        house.fund(1_000)
        payouts = payouts_of(house, alice=100)
        header, tree = house.settle(payouts)
        values = claim_values(header, payouts[0], tree.proof(0))
        house.world.clock.advance(seconds=HOUR - 1)
        house.vault.expect_revert("vault: in challenge window", "claim", *values, sender=house.owner)
        house.world.clock.advance(seconds=1)
        assert claim(house, header, tree, payouts, 0) == 100

    @pytest.mark.parametrize(
        "change",
        [
            {"settlement_root": b"\x09" * 32},
            {"payout_root": b"\x09" * 32},
            {"payout_total": 10**9},
            {"batch_id": 2},
            {"count": 4},
        ],
    )
    def test_only_anchored_headers_count(self, house: House, change: dict[str, Any]) -> None:
        """Goal: payouts come from the anchor alone. Method: change the header that is handed in."""
        house.fund(1_000)
        payouts = payouts_of(house, alice=100)
        header, tree = house.settle(payouts)
        house.world.clock.advance(seconds=HOUR)
        values = claim_values(dataclasses.replace(header, **change), payouts[0], tree.proof(0))
        house.vault.expect_revert("vault: unknown header", "claim", *values, sender=house.owner)

    def test_the_genesis_is_no_header(self, house: House) -> None:
        """Goal: batch 0 cannot be claimed against. Method: a header numbered 0, and one that was never anchored."""
        payouts = payouts_of(house, alice=100)
        tree = house.tree(payouts)
        header = house.next_header(payouts=tree, payout_total=100)
        for number in (0, 1):
            values = ((number, *header_values(header)[1:]), payout_values(payouts[0]), list(tree.proof(0)))
            house.vault.expect_revert("vault: unknown header", "claim", *values, sender=house.owner)

    def test_bad_proofs_are_refused(self, house: House) -> None:
        """Goal: only leaves of the tree are paid. Method: more money, other account, other payee, other proofs."""
        house.fund(1_000)
        payouts = payouts_of(house, alice=100, bob=50)
        header, tree = house.settle(payouts)
        house.world.clock.advance(seconds=HOUR)
        alice = payouts[0]
        proof = tree.proof(0)
        forged = [
            (dataclasses.replace(alice, total_micros=101), proof),
            (dataclasses.replace(alice, account=BOB), proof),
            (dataclasses.replace(alice, payee=payouts[1].payee), proof),
            (alice, tree.proof(1)),
            (alice, ()),
            (alice, (*proof, keccak(b""))),
        ]
        for payout, path in forged:
            values = claim_values(header, payout, path)
            house.vault.expect_revert("vault: bad proof", "claim", *values, sender=house.owner)

    def test_a_leaf_of_another_vault_chain_or_kind_is_refused(self, house: House) -> None:
        """Goal: a leaf is worth money in one vault only. Method: leaves that differ in vault, chain or tag."""
        house.fund(1_000)
        alice = payouts_of(house, alice=100)[0]
        tag = keccak(b"fallow.leaf.payout.v1")
        vault = bytes.fromhex(house.vault.address[2:]).rjust(32, b"\0")
        payee = bytes.fromhex(alice.payee[2:]).rjust(32, b"\0")
        rest = id_to_word(alice.account) + payee + integer_word(100)
        sound = tag + integer_word(CHAIN_ID) + vault + rest
        others = [
            keccak(b"fallow.leaf.balance.v1") + integer_word(CHAIN_ID) + vault + rest,
            tag + integer_word(1) + vault + rest,
            tag + integer_word(CHAIN_ID) + b"\0" * 12 + b"\x07" * 20 + rest,
        ]
        for words, refused in [*((words, True) for words in others), (sound, False)]:
            tree = MerkleTree([keccak(keccak(words))])
            header = house.next_header(payouts=tree, payout_total=100)
            house.append(header)
            house.world.clock.advance(seconds=HOUR)
            values = claim_values(header, alice, tree.proof(0))
            if refused:
                house.vault.expect_revert("vault: bad proof", "claim", *values, sender=house.owner)
            else:
                house.vault.send("claim", *values, sender=house.owner)
        assert balance(house, alice.payee) == 100

    @pytest.mark.parametrize("count", [257, 1000])
    def test_deep_proofs_pay(self, house: House, count: int) -> None:
        """Goal: trees of more than 256 leaves work. Method: claims from the first, middle and last places."""
        house.fund(10**6)
        wallet = house.world.account("alice").address
        payouts = [
            Payout(account=f"01k9v3d6h4m8p2q5r7s9t1{index:04d}", payee=wallet, total_micros=index + 1)
            for index in range(count)
        ]
        header, tree = house.settle(payouts)
        house.world.clock.advance(seconds=HOUR)
        deepest = max(range(count), key=lambda index: len(tree.proof(index)))
        assert len(tree.proof(deepest)) >= 9
        chosen = {0, 1, 128, 255, count - 1, deepest}
        for index in chosen:
            assert claim(house, header, tree, payouts, index) == index + 1
        assert balance(house, wallet) == sum(index + 1 for index in chosen)

    def test_all_claims_stay_within_the_payout_total(self, house: House) -> None:
        """Goal: a header caps what can ever be paid. Method: leaves that sum to more than the header says."""
        house.fund(1_000)
        payouts = payouts_of(house, alice=100, bob=50)
        header, tree = house.settle(payouts, payout_total=120)
        house.world.clock.advance(seconds=HOUR)
        assert claim(house, header, tree, payouts, 0) == 100
        values = claim_values(header, payouts[1], tree.proof(1))
        house.vault.expect_revert("vault: above payout total", "claim", *values, sender=house.owner)
        # A later header that accounts for it lets the old claim through too.
        more = payouts_of(house, alice=110, bob=50)
        later, later_tree = house.settle(more)
        house.world.clock.advance(seconds=HOUR)
        assert claim(house, later, later_tree, more, 0) == 10
        assert claim(house, header, tree, payouts, 1) == 50

    def test_never_more_than_there_is(self, house: House) -> None:
        """Goal: a vault short of money pays what it has, and owes the rest. Method: owe more than was deposited."""
        house.fund(99)
        payouts = payouts_of(house, alice=100, bob=50)
        header, tree = house.settle(payouts)
        house.world.clock.advance(seconds=HOUR)
        assert claim(house, header, tree, payouts, 0) == 99
        assert house.vault.call("claimed", id_to_word(ALICE)) == 99
        for index in (0, 1):
            values = claim_values(header, payouts[index], tree.proof(index))
            house.vault.expect_revert("vault: no cash", "claim", *values, sender=house.owner)
        house.fund(20)
        assert claim(house, header, tree, payouts, 0) == 1
        assert claim(house, header, tree, payouts, 1) == 19
        assert house.vault.call("paid_total") == 119

    def test_a_token_that_takes_more_than_arrives_pays_nothing(self, world: World) -> None:
        """Goal: the vault never loses more than it pays. Method: a token that takes one more on the way out."""
        house = House.make(world, token="TakingToken")
        house.fund(1_000)
        payouts = payouts_of(house, alice=100)
        header, tree = house.settle(payouts)
        world.clock.advance(seconds=HOUR)
        values = claim_values(header, payouts[0], tree.proof(0))
        house.vault.expect_revert("vault: inexact transfer", "claim", *values, sender=house.owner)
        assert balance(house, house.vault.address) == 1_000

    def test_the_vault_itself_is_no_payee(self, house: House) -> None:
        """Goal: no claim is paid to nobody. Method: a leaf that names the vault."""
        house.fund(100)
        payouts = [Payout(account=ALICE, payee=house.vault.address, total_micros=5)]
        header, tree = house.settle(payouts)
        house.world.clock.advance(seconds=HOUR)
        values = claim_values(header, payouts[0], tree.proof(0))
        house.vault.expect_revert("vault: inexact transfer", "claim", *values, sender=house.owner)

    def test_a_payee_is_needed(self, house: House) -> None:
        """Goal: no money is burned. Method: a leaf that names the zero address."""
        house.fund(100)
        payouts = [Payout(account=ALICE, payee="0x" + "00" * 20, total_micros=5)]
        header, tree = house.settle(payouts)
        house.world.clock.advance(seconds=HOUR)
        values = claim_values(header, payouts[0], tree.proof(0))
        house.vault.expect_revert("vault: no payee", "claim", *values, sender=house.owner)


class TestReentry:
    """A token that calls back in the middle of a transfer."""

    @pytest.fixture
    def armed(self, world: World) -> tuple[House, Contract, Header, MerkleTree, list[Payout]]:
        """A house on a token that calls back, with money in it and a payout that is due."""
        house = House.make(world, token="ReenteringToken")
        house.fund(1_000)
        payouts = payouts_of(house, alice=100, bob=50)
        header, tree = house.settle(payouts)
        world.clock.advance(seconds=HOUR)
        return house, house.token, header, tree, payouts

    def test_claims_do_not_nest(self, armed: tuple[House, Contract, Header, MerkleTree, list[Payout]]) -> None:
        """Goal: a claim cannot be claimed again from within, nor another one. Method: the token tries both."""
        house, token, header, tree, payouts = armed
        for index in (0, 1):
            payload = house.vault.data("claim", *claim_values(header, payouts[index], tree.proof(index)))
            token.send("arm", house.vault.address, payload, False, sender=house.owner)
            claimed = 1 - index
            expected = payouts[claimed].total_micros
            before = balance(house, payouts[claimed].payee)
            house.vault.send("claim", *claim_values(header, payouts[claimed], tree.proof(claimed)), sender=house.owner)
            assert balance(house, payouts[claimed].payee) == before + expected
        assert token.call("attempts") == 2
        assert token.call("successes") == 0
        assert house.vault.call("paid_total") == 150

    def test_a_claim_whose_token_insists_fails_whole(
        self, armed: tuple[House, Contract, Header, MerkleTree, list[Payout]]
    ) -> None:
        """Goal: a failed transfer leaves no trace. Method: the token fails with its call back."""
        house, token, header, tree, payouts = armed
        payload = house.vault.data("claim", *claim_values(header, payouts[0], tree.proof(0)))
        token.send("arm", house.vault.address, payload, True, sender=house.owner)
        values = claim_values(header, payouts[0], tree.proof(0))
        house.vault.expect_revert("token: call failed", "claim", *values, sender=house.owner)
        assert house.vault.call("claimed", id_to_word(ALICE)) == 0
        assert house.vault.call("paid_total") == 0

    def test_a_deposit_within_a_deposit_is_not_counted_twice(
        self, armed: tuple[House, Contract, Header, MerkleTree, list[Payout]]
    ) -> None:
        """Goal: money counts once. Method: the token deposits again from within a deposit."""
        house, token, *_ = armed
        payload = house.vault.data("deposit", 10, TENANT_REF)
        token.send("mint", token.address, 100, sender=house.owner)
        token.send("arm", house.vault.address, payload, False, sender=house.owner)
        house.fund(20, TENANT_REF)
        assert token.call("successes") == 0
        assert house.vault.call("deposited", TENANT_REF) == 20


class TestRoles:
    """Who may stop it and who may let it go on."""

    def test_a_pause_stops_money_both_ways(self, house: House) -> None:
        """Goal: the guardian can stop everything at once, the owner alone lets it go on. Method: try each."""
        house.fund(1_000)
        payouts = payouts_of(house, alice=100)
        header, tree = house.settle(payouts)
        house.world.clock.advance(seconds=HOUR)
        tenant, stranger = house.world.account("tenant"), house.world.account("stranger")
        house.vault.expect_revert("vault: not the guardian", "pause", sender=stranger)
        receipt = house.vault.send("pause", sender=house.guardian)
        assert house.vault.events("Paused", receipt) == [{"guardian": house.guardian.address.lower()}]
        values = claim_values(header, payouts[0], tree.proof(0))
        house.vault.expect_revert("vault: paused", "claim", *values, sender=stranger)
        house.vault.expect_revert("vault: paused", "deposit", 1, TENANT_REF, sender=tenant)
        house.vault.expect_revert("ownership: not the owner", "unpause", sender=house.guardian)
        house.vault.send("unpause", sender=house.owner)
        assert claim(house, header, tree, payouts, 0) == 100
        house.vault.send("pause", sender=house.owner)
        assert house.vault.call("paused") is True

    def test_the_guardian_is_the_owners_choice(self, house: House) -> None:
        """Goal: a guardian can be replaced. Method: by a stranger in vain, by the owner."""
        stranger = house.world.account("stranger")
        house.vault.expect_revert("ownership: not the owner", "set_guardian", stranger.address, sender=stranger)
        house.vault.send("set_guardian", stranger.address, sender=house.owner)
        house.vault.expect_revert("vault: not the guardian", "pause", sender=house.guardian)
        house.vault.send("pause", sender=stranger)
        assert house.vault.call("guardian") == stranger.address.lower()

    def test_a_vault_needs_contracts(self, house: House) -> None:
        """Goal: a vault is never made on an empty address. Method: a wallet as token, then as anchor."""
        wallet, owner = house.guardian.address, house.owner.address
        for token, anchor in ((wallet, house.anchor.address), (house.token.address, wallet)):
            with pytest.raises(AssertionError, match="not deployed"):
                house.world.deploy("EscrowVault", token, anchor, HOUR, HOUR + 1, 1, owner, owner)


def test_the_test_token_is_marked(house: House) -> None:
    """Goal: nobody takes the test token for money. Method: its name, its decimals, and that anyone mints."""
    assert "no value" in house.token.call("name")
    assert (house.token.call("symbol"), house.token.call("decimals")) == ("tUSDC", 6)
    stranger = house.world.account("stranger")
    house.token.send("mint", stranger.address, 7, sender=stranger)
    house.token.expect_revert("token: above balance", "transfer", house.owner.address, 8, sender=stranger)
    house.token.send("transfer", house.owner.address, 7, sender=stranger)
    assert balance(house, house.owner.address) == 7
    assert house.token.call("totalSupply") == 7
