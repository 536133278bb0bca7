# pragma version 0.4.3
"""
@title A token that returns nothing, as some old ones do, or refuses with False
@license Apache-2.0
"""

balanceOf: public(HashMap[address, uint256])
refusing: public(bool)


@external
def mint(to: address, amount: uint256):
    self.balanceOf[to] += amount


@external
def refuse():
    self.refusing = True


@external
def transferFrom(sender: address, to: address, amount: uint256):
    if self.refusing:
        raw_revert(b"")
    self.balanceOf[sender] -= amount
    self.balanceOf[to] += amount


@external
def transfer(to: address, amount: uint256):
    if self.refusing:
        raw_revert(b"")
    self.balanceOf[msg.sender] -= amount
    self.balanceOf[to] += amount
