"""How an explanation reads."""

import io

from rich.console import Console

from fallow.order.v1 import order_service_pb2
from fallow_sdk.commands.order_tables import explanation_tables


def shown(*after: int) -> str:
    """The explanation of one group whose constraints left so many devices of one."""
    explanation = order_service_pb2.ExplainOrderResponse()
    group = explanation.groups.add(group_id="web")
    for number, left in enumerate(after):
        group.funnel.add(constraint=f"constraint-{number}", devices_before=1, devices_after=left, providers_after=left)
    output = io.StringIO()
    for table in explanation_tables(explanation):
        Console(file=output, width=120).print(table)
    return output.getvalue()


def test_a_funnel_that_removed_nothing_says_so() -> None:
    """Goal: no empty table, and no "other" constraints where there are none. Method: three constraints, then one that removes."""
    assert "web: funnel: none of 3 constraints removed a device" in shown(1, 1, 1)
    assert "CONSTRAINT" not in shown(1, 1, 1)
    assert "other" not in shown(1, 1, 1)
    assert "constraint-1" in shown(1, 0)
    assert "1 other constraints removed nothing" not in shown(1, 0)
