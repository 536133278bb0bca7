# pragma version 0.4.3
"""
@title A token that calls whoever it is told to, in the middle of a transfer
@license Apache-2.0
"""

balanceOf: public(HashMap[address, uint256])
target: public(address)
payload: public(Bytes[4096])
insist: public(bool)
attempts: public(uint256)
successes: public(uint256)


@external
def mint(to: address, amount: uint256):
    self.balanceOf[to] += amount


@external
def arm(target: address, payload: Bytes[4096], insist: bool):
    """
    @notice Call `target` with `payload` in the next transfer; if it insists, its failure is the transfer's.
    """
    self.target = target
    self.payload = payload
    self.insist = insist


@internal
def _attack():
    target: address = self.target
    if target == empty(address):
        return
    self.target = empty(address)
    self.attempts += 1
    success: bool = raw_call(target, self.payload, revert_on_failure=False)
    if success:
        self.successes += 1
    assert success or not self.insist, "token: call failed"


@external
def transferFrom(sender: address, to: address, amount: uint256) -> bool:
    self.balanceOf[sender] -= amount
    self.balanceOf[to] += amount
    self._attack()
    return True


@external
def transfer(to: address, amount: uint256) -> bool:
    self.balanceOf[msg.sender] -= amount
    self.balanceOf[to] += amount
    self._attack()
    return True
