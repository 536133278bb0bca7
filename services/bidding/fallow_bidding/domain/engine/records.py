"""A decision written out as JSON, with everything that it followed from, and decided again from that alone."""

from collections import defaultdict
from typing import Any

import numpy as np

from fallow_bidding.domain.engine.engine import Engine
from fallow_bidding.domain.engine.inventory import Bools, Choice, Integers, Inventory
from fallow_bidding.domain.engine.mix import Snapshot
from fallow_bidding.domain.engine.needs import Need
from fallow_bidding.domain.engine.policies import make_policy
from fallow_bidding.domain.supply import Device, Node, Supplier


def to_record(
    engine: Engine, need: Need, asks: Integers | None = None, eligible: Bools | None = None
) -> dict[str, Any]:
    """Decide, and write down inputs and outcome; nothing is taken."""
    inventory = engine.inventory
    return {
        "policy": engine.policy.name,
        "seed": engine.policy.seed,
        "scale": list(engine.policy.scale),
        "arrivals": engine.mix.arrivals,
        "mix": [[known.to_record(), count] for known, count in engine.mix.snapshot.counts],
        "slot_prices": engine.slot_prices.tolist(),
        "inventory": _inventory_record(inventory),
        "asks": None if asks is None else asks.tolist(),
        "eligible": None if eligible is None else eligible.tolist(),
        "need": need.to_record(),
        "choice": _named(inventory, engine.decide(need, asks, eligible)),
    }


def replay(record: dict[str, Any]) -> list[Any] | None:
    """Decide again: provider, node and devices, or None; equal to the record's ``choice``."""
    inventory = Inventory(_suppliers(record["inventory"]))
    snapshot = Snapshot(tuple((Need.from_record(need), count) for need, count in record["mix"]))
    policy = make_policy(record["policy"], record["seed"])
    cpu, gpu = record["scale"]
    policy.scale = cpu, gpu
    engine = Engine(inventory, policy, snapshot)
    engine.mix.arrivals = record["arrivals"]
    slot_prices = np.array(record["slot_prices"], np.float64)
    engine.price(slot_prices.reshape(len(inventory.kinds), engine.policy.classes))
    asks = None if record["asks"] is None else np.array(record["asks"], np.int64)
    eligible = None if record["eligible"] is None else np.array(record["eligible"], np.bool_)
    return _named(inventory, engine.decide(Need.from_record(record["need"]), asks, eligible))


def _named(inventory: Inventory, choice: Choice | None) -> list[Any] | None:
    """A choice by ids: provider, node, devices."""
    if choice is None:
        return None
    provider, node = inventory.provider[choice.row], inventory.node[choice.row]
    devices = [inventory.device_ids[choice.row][column] for column in choice.devices]
    return [inventory.suppliers[provider].provider_id, inventory.nodes[node].node_id, devices]


def _inventory_record(inventory: Inventory) -> list[dict[str, Any]]:
    """Providers with what is free of their nodes now."""
    devices: dict[int, list[list[Any]]] = defaultdict(list)
    owner: dict[int, int] = {}
    for row in range(inventory.rows):
        at, kind = int(inventory.node[row]), inventory.kinds[inventory.kind[row]]
        owner[at] = int(inventory.provider[row])
        for device_id, free in zip(inventory.device_ids[row], inventory.free_milli[row].tolist(), strict=False):
            devices[at].append([device_id, kind.vendor, kind.model, kind.vram_bytes, kind.interface, free])
    nodes: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for index, node in enumerate(inventory.nodes):
        nodes[owner[index]].append(
            {
                "node_id": node.node_id,
                "cpu_milli": int(inventory.cpu_milli[index]),
                "memory_bytes": int(inventory.memory_bytes[index]),
                "storage": dict(zip(inventory.classes, inventory.storage_bytes[index].tolist(), strict=True)),
                "devices": devices[index],
            }
        )
    return [
        {
            "provider_id": one.provider_id,
            "create_time_ms": one.create_time_ms,
            "reputation_milli": one.reputation_milli,
            "nodes": nodes[index],
        }
        for index, one in enumerate(inventory.suppliers)
    ]


def _suppliers(record: list[dict[str, Any]]) -> list[Supplier]:
    """The suppliers of an inventory's record."""
    return [
        Supplier(
            provider_id=one["provider_id"],
            account="",
            region="",
            create_time_ms=one["create_time_ms"],
            reputation_milli=one["reputation_milli"],
            nodes=tuple(
                Node(
                    node_id=node["node_id"],
                    cpu_milli=node["cpu_milli"],
                    memory_bytes=node["memory_bytes"],
                    storage_bytes_by_class=node["storage"],
                    devices=tuple(
                        Device(device_id, vendor, model, vram_bytes, interface, free_milli=free)
                        for device_id, vendor, model, vram_bytes, interface, free in node["devices"]
                    ),
                )
                for node in one["nodes"]
            ),
        )
        for one in record
    ]
