"""The conformance suite on Apache Kafka, and what only this adapter promises: members that share and rebalance."""

import asyncio

import pytest

from fallow_chassis.events import Record
from fallow_chassis.stream import StreamSettings
from fallow_stack.engines import Kafka
from tests.conftest import StreamAddress
from tests.contract.streams.conformance import (
    Mortal,
    Seen,
    StreamConformance,
    connected,
    consuming,
    event,
    without_repeats,
)


@pytest.mark.kafka
class TestKafka(StreamConformance):
    """Kafka keeps every promise of the port."""

    @pytest.fixture
    def address(self, kafka_address: StreamAddress) -> StreamSettings:
        return kafka_address

    @pytest.fixture
    def mortal(self, private_kafka: Kafka) -> Mortal:
        return Mortal(StreamAddress(private_kafka.url), private_kafka.kill, private_kafka.start)

    async def test_members_share_the_partitions_and_take_over(self, address: StreamSettings, topic: str) -> None:
        """Goal: two members work side by side, and one goes on alone. Method: watch who handles what, then stop one."""
        keys = [f"k{number}" for number in range(32)]
        steps = iter(range(1_000))
        one, two, both = Seen(), Seen(), Seen()

        async def by_one(record: Record) -> None:
            one.note(record)
            both.note(record)

        async def by_two(record: Record) -> None:
            two.note(record)
            both.note(record)

        async with connected(address) as first, connected(address) as second:
            await first.ensure_topics([topic])

            async def send_round() -> str:
                step = str(next(steps))
                await first.publish([event(topic, key, step) for key in keys])
                await both.until(lambda: all(step in both.by_key[key] for key in keys))
                return step

            async with consuming(first, "g", [topic], by_one):
                await send_round()
                async with consuming(second, "g", [topic], by_two):
                    async with asyncio.timeout(30):
                        while not two.records:
                            last = await send_round()
                    # Now that both have partitions, one more round is shared, each key by one of them.
                    last = await send_round()
                    shared = {key: (last in one.by_key.get(key, ()), last in two.by_key.get(key, ())) for key in keys}
                last = await send_round()
                alone = [key for key in keys if last in one.by_key[key]]
        assert set(shared.values()) == {(True, False), (False, True)}
        assert alone == keys
        for key in keys:
            values = without_repeats(both.by_key[key])
            assert values == [str(step) for step in range(int(last) + 1)], key

    async def test_a_record_in_hand_at_a_rebalance_is_given_up(self, address: StreamSettings, topic: str) -> None:
        """Goal: a member that lost a partition works on none of its records. Method: hang, join, see who is cancelled."""
        keys = [f"k{number}" for number in range(16)]
        hung, cancelled, seen = Seen(), Seen(), Seen()

        async def hang(record: Record) -> None:
            hung.note(record)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.note(record)
                raise

        async with connected(address) as first, connected(address) as second:
            await first.ensure_topics([topic])
            await first.publish([event(topic, key, "v") for key in keys])
            async with consuming(first, "g", [topic], hang):
                await hung.count(1)
                async with consuming(second, "g", [topic], seen.take):
                    await seen.count(1)
                    given_up = {record.key for record in cancelled.records}
                    taken_over = set(seen.by_key)
            async with consuming(second, "g", [topic], seen.take):
                await seen.until(lambda: set(seen.by_key) == set(keys))
        assert given_up
        assert taken_over
