# pragma version 0.4.3
"""
@title TestToken
@license Apache-2.0
@notice
    FOR TESTS AND DEMONSTRATIONS ONLY. An ERC-20 token of 6 decimals, like USDC, that ANYONE can mint without limit.
    It is worth nothing and never belongs on a chain where value is at stake.
"""

from ethereum.ercs import IERC20
from ethereum.ercs import IERC20Detailed

implements: IERC20
implements: IERC20Detailed

name: public(constant(String[32])) = "Fallow Test USDC (no value)"
symbol: public(constant(String[8])) = "tUSDC"
decimals: public(constant(uint8)) = 6

totalSupply: public(uint256)
balanceOf: public(HashMap[address, uint256])
allowance: public(HashMap[address, HashMap[address, uint256]])


@external
def mint(to: address, amount: uint256):
    """
    @notice Make `amount` out of nothing; anyone may. TEST ONLY.
    """
    assert to != empty(address), "token: no receiver"
    self.totalSupply += amount
    self.balanceOf[to] += amount
    log IERC20.Transfer(sender=empty(address), receiver=to, value=amount)


@external
def transfer(to: address, amount: uint256) -> bool:
    """
    @notice Move the sender's own tokens.
    """
    self._transfer(msg.sender, to, amount)
    return True


@external
def transferFrom(sender: address, to: address, amount: uint256) -> bool:
    """
    @notice Move tokens that their owner approved; the greatest allowance never runs down.
    """
    allowed: uint256 = self.allowance[sender][msg.sender]
    if allowed != max_value(uint256):
        assert allowed >= amount, "token: above allowance"
        self.allowance[sender][msg.sender] = allowed - amount
    self._transfer(sender, to, amount)
    return True


@external
def approve(spender: address, amount: uint256) -> bool:
    """
    @notice Allow a spender up to `amount` of the sender's tokens.
    """
    self.allowance[msg.sender][spender] = amount
    log IERC20.Approval(owner=msg.sender, spender=spender, value=amount)
    return True


@internal
def _transfer(sender: address, to: address, amount: uint256):
    assert to != empty(address), "token: no receiver"
    assert self.balanceOf[sender] >= amount, "token: above balance"
    self.balanceOf[sender] -= amount
    self.balanceOf[to] += amount
    log IERC20.Transfer(sender=sender, receiver=to, value=amount)
