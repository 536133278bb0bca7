"""The conformance suite on NATS JetStream, and what only this adapter promises."""

import pytest

from fallow_chassis.stream import EventStream, StreamSettings
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
