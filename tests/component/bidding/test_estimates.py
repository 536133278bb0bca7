"""What orders would come to, from offers on a real database."""

from fallow.bidding.v1 import provider_pb2
from fallow.order.v1 import order_pb2
from fallow_chassis.wire import to_duration
from tests.component.bidding.conftest import House, gpu_order
from tests.component.bidding.test_spot import offer


async def test_an_estimate_answers_for_each_mode_and_term(house: House) -> None:
    """Goal: auction, spot and reserved orders are priced as they would be matched, with all tiers told. Method: two
    offers, one with a tier and a spot discount, and an order in each mode.
    """
    async with house.running(engine=False, courier=False):
        await house.add_agent(gpu_micros=1_000_000)
        agent = await house.add_agent(gpu_micros=1_000_000)
        tier = provider_pb2.PriceSchedule.ReservedTier(duration_min=to_duration(86_400_000), discount_milli=200)
        await offer(
            house,
            agent,
            gpu_micros_per_hour_by_model={"h100": 1_200_000},
            reserved_tiers=[tier],
            spot_discount_milli=500,
        )
        second = order_pb2.AUCTION_RULE_SECOND_PRICE
        auction = gpu_order(match_mode=order_pb2.MATCH_MODE_AUCTION, auction_rule=second)
        assert (await house.queries.estimate(auction)).best_price.micros_per_hour == 1_200_000
        spot = await house.queries.estimate(gpu_order(terms=order_pb2.Terms(kind=order_pb2.TERM_KIND_SPOT)))
        assert spot.best_price.micros_per_hour == 600_000
        assert (spot.spot.run_min.seconds, spot.spot.notice.seconds) == (600, 30)
        day = order_pb2.Terms(kind=order_pb2.TERM_KIND_RESERVED, duration=to_duration(86_400_000))
        reserved = await house.queries.estimate(gpu_order(terms=day))
        assert reserved.best_price.micros_per_hour == 960_000
        assert reserved.early_close.seconds == 3_600
        day.duration.CopyFrom(to_duration(600_000))
        assert (await house.queries.estimate(gpu_order(terms=day))).early_close.seconds == 600
        assert not spot.HasField("early_close")
        for answer in (spot, reserved):
            assert [(term.kind, term.duration.seconds, term.price.micros_per_hour) for term in answer.terms] == [
                (order_pb2.TERM_KIND_ON_DEMAND, 0, 1_000_000),
                (order_pb2.TERM_KIND_SPOT, 0, 600_000),
                (order_pb2.TERM_KIND_RESERVED, 86_400, 960_000),
            ]
        assert await house.value("SELECT count(*) FROM market_order") == 0
