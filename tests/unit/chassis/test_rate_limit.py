"""Token buckets: how many calls are let in, when, and whose bucket they take from."""

import pytest

from fallow_chassis.context import GrantClaims, Identity
from fallow_chassis.errors import RATE_LIMITED, DomainError
from fallow_chassis.rate_limit import RateLimiter, limited_caller, peer_host
from fallow_chassis.testing import ManualClock

GRANT = GrantClaims("providers/p", "orders/o", 0, 1, "leases/l", "providers/p", frozenset({"workload.read"}))


def refusal(limiter: RateLimiter, caller: str) -> DomainError:
    """What a call too many is refused with."""
    with pytest.raises(DomainError) as caught:
        limiter.take(caller)
    return caught.value


def let_in(limiter: RateLimiter, caller: str) -> int:
    """How many calls get in until one is refused."""
    count = 0
    try:
        while count < 10_000:
            limiter.take(caller)
            count += 1
    except DomainError:
        return count
    return count


@pytest.mark.parametrize(("per_second", "burst"), [(1, 1), (3, 7), (7, 3), (1_000, 5), (999, 1_000)])
def test_a_bucket_holds_a_burst_and_fills_by_its_rate(per_second: int, burst: int) -> None:
    """Goal: the rate is exact. Method: empty the bucket, then ask at each millisecond of ten seconds."""
    clock = ManualClock()
    limiter = RateLimiter(per_second, burst, clock)
    assert let_in(limiter, "accounts/a") == burst
    count = 0
    for _ in range(10_000):
        clock.advance(milliseconds=1)
        try:
            limiter.take("accounts/a")
        except DomainError:
            continue
        count += 1
    assert count == per_second * 10
    clock.advance(seconds=3_600)
    assert let_in(limiter, "accounts/a") == burst


def test_the_wait_that_is_named_is_the_wait_that_helps() -> None:
    """Goal: RetryInfo tells the truth. Method: wait a millisecond less, then that one more."""
    clock = ManualClock()
    limiter = RateLimiter(3, 1, clock)
    limiter.take("accounts/a")
    error = refusal(limiter, "accounts/a")
    assert error.has_reason(RATE_LIMITED)
    assert error.code == "RESOURCE_EXHAUSTED"
    assert error.retry_after_ms == 334
    assert error.metadata == {"quota": "calls_per_second", "limit": "3", "burst": "1", "caller": "accounts/a"}
    clock.advance(milliseconds=333)
    assert refusal(limiter, "accounts/a").retry_after_ms == 1
    clock.advance(milliseconds=1)
    limiter.take("accounts/a")


def test_callers_do_not_use_up_each_others_calls() -> None:
    """Goal: one loud caller harms itself alone. Method: empty one bucket; another caller is let in."""
    limiter = RateLimiter(1, 2, ManualClock())
    assert let_in(limiter, "accounts/a") == 2
    assert let_in(limiter, "accounts/b") == 2


def test_the_wall_clock_does_not_fill_a_bucket() -> None:
    """Goal: setting the clock buys no calls. Method: move the wall a day, the monotonic time not at all."""
    clock = ManualClock()
    limiter = RateLimiter(1, 1, clock)
    limiter.take("accounts/a")
    clock.set_wall(clock.now().replace(year=2027))
    assert refusal(limiter, "accounts/a").has_reason(RATE_LIMITED)


def test_memory_is_bounded_and_the_busy_are_remembered() -> None:
    """Goal: a flood of callers costs no memory and frees no busy one. Method: many callers around one that stays."""
    limiter = RateLimiter(1, 2, ManualClock(), max_buckets=10)
    limiter.take("accounts/busy")
    limiter.take("accounts/busy")
    for number in range(1_000):
        limiter.take(f"accounts/{number}")
        assert refusal(limiter, "accounts/busy").has_reason(RATE_LIMITED)
    assert len(limiter) == 10


def test_zero_is_no_limit() -> None:
    """Goal: an operator can turn it off. Method: as many calls as the test asks; nothing is remembered."""
    limiter = RateLimiter(0, 1, ManualClock())
    assert let_in(limiter, "accounts/a") == 10_000
    assert len(limiter) == 0


@pytest.mark.parametrize(
    ("identity", "caller"),
    [
        (Identity("accounts/a", "order"), "accounts/a"),
        (Identity("accounts/a", "bidding", grant=GRANT), "accounts/a"),
        (Identity("providers/p", "bidding", grant=GRANT), ""),
        (Identity("services/order", "order"), ""),
        (None, "peers/10.0.0.7"),
    ],
)
def test_who_is_counted(identity: Identity | None, caller: str) -> None:
    """Goal: accounts and addresses are limited, services and providers are not. Method: one of each."""
    assert limited_caller(identity, "ipv4:10.0.0.7:1234") == caller


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:127.0.0.1:50000", "127.0.0.1"),
        ("ipv6:%5B::1%5D:50000", "::1"),
        ("ipv6:[2001:db8::7]:50000", "2001:db8::7"),
        ("unix:", "unix"),
        ("", "unknown"),
    ],
)
def test_a_peer_is_its_host(peer: str, host: str) -> None:
    """Goal: a new connection is no new caller. Method: the forms in which gRPC names a peer."""
    assert peer_host(peer) == host
