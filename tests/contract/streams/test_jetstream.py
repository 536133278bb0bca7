"""The conformance suite on NATS JetStream, and what only this adapter promises."""

import pytest

from fallow_chassis.nats_link import NatsLink
from fallow_chassis.stream import EventStream, StreamSettings, partition_of
from fallow_chassis.stream_jetstream import HEADER_KEY, consumer_name, stream_name
from fallow_stack.engines import Nats
from tests.conftest import StreamAddress
from tests.contract.streams.conformance import Mortal, Seen, StreamConformance, consuming, event


class TestJetStream(StreamConformance):
    """JetStream keeps every promise of the port."""

    @pytest.fixture
    def address(self, jetstream_address: StreamAddress) -> StreamSettings:
        return jetstream_address

    @pytest.fixture
    def mortal(self, private_nats: Nats) -> Mortal:
        credentials = str(private_nats.service_credentials_file("tests"))
        return Mortal(
            StreamAddress(private_nats.url, private_nats.url, credentials), private_nats.kill, private_nats.start
        )

    async def test_the_same_event_is_stored_once(self, port: EventStream, topic: str) -> None:
        """Goal: a relay that repeats a batch fills no log. Method: publish thrice; a marker shows what lies before it."""
        await port.ensure_topics([topic])
        for _ in range(3):
            await port.publish([event(topic, "k", "1"), event(topic, "k", "2")])
        await port.publish([event(topic, "k", "marker")])
        seen = Seen()
        async with consuming(port, "g", [topic], seen.take):
            await seen.until(lambda: "marker" in seen.values)
        assert seen.values == ["1", "2", "marker"]

    async def test_first_events_that_need_not_come_do_not(self, port: EventStream, topic: str) -> None:
        """Goal: what nobody handles costs no delivery. Method: a group without first events; the last record ends it."""
        await port.ensure_topics([topic])
        await port.publish([event(topic, "k", "1", ce_sequence="1"), event(topic, "k", "2", ce_sequence="2")])
        seen = Seen()
        async with consuming(port, "g", [topic], seen.take, without_first=[topic]):
            await seen.count(1)
        assert seen.values == ["2"]

    async def test_a_stream_of_an_earlier_release_goes_on(
        self, port: EventStream, topic: str, address: StreamSettings
    ) -> None:
        """Goal: an upgrade loses nothing. Method: a stream and a consumer as they were before first events had subjects."""
        link = await NatsLink.connect(address.nats_url, address.nats_credentials_file)
        try:
            context = link.client.jetstream()
            await context.add_stream(name=stream_name(topic), subjects=[f"{topic}.*"])
            subject = f"{topic}.p{partition_of('k')}"
            await context.add_consumer(
                stream_name(topic),
                durable_name=consumer_name("g", partition_of("k")),
                filter_subject=subject,
                ack_policy="explicit",
                max_ack_pending=1,
            )
            await context.publish(subject, b"old", headers={HEADER_KEY: "k"})
        finally:
            await link.close()
        await port.ensure_topics([topic])
        await port.publish([event(topic, "k", "1", ce_sequence="1"), event(topic, "k", "2", ce_sequence="2")])
        seen = Seen()
        async with consuming(port, "g", [topic], seen.take):
            await seen.count(3)
        assert seen.values == ["old", "1", "2"]
