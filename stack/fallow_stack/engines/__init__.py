"""The engines that Fallow runs on, started as processes of our own: Postgres, NATS with JetStream, Apache Kafka.

Each engine is an object over a data folder: ``start`` returns when it answers, ``stop`` ends it in order, ``kill`` as a
crash would, and a second ``start`` goes on with the same data at the same port. All listen on loopback only, and none
outlives the process that started it (``leash``).
"""

from fallow_stack.engines.kafka import Kafka
from fallow_stack.engines.nats import Nats
from fallow_stack.engines.postgres import Postgres
from fallow_stack.engines.process import EngineError

__all__ = ["EngineError", "Kafka", "Nats", "Postgres"]
