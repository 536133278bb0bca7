# pragma version 0.4.3
"""
@title A token that answers under a second address too: a transfer there moves what is held here
@license Apache-2.0
"""

interface Twin:
    def transfer_of(sender: address, to: address, amount: uint256): nonpayable


balanceOf: public(HashMap[address, uint256])
other: public(address)


@external
def join(other: address):
    """
    @notice From now on this is only the second address of `other`, or that may move what is held here.
    """
    self.other = other


@external
def mint(to: address, amount: uint256):
    self.balanceOf[to] += amount


@external
def transferFrom(sender: address, to: address, amount: uint256) -> bool:
    self.balanceOf[sender] -= amount
    self.balanceOf[to] += amount
    return True


@external
def transfer(to: address, amount: uint256) -> bool:
    extcall Twin(self.other).transfer_of(msg.sender, to, amount)
    return True


@external
def transfer_of(sender: address, to: address, amount: uint256):
    assert msg.sender == self.other, "token: not the twin"
    self.balanceOf[sender] -= amount
    self.balanceOf[to] += amount
