"""`fallow order update`: from options to the fields of the request."""

import pytest
import typer

from fallow.order.v1 import order_pb2
from fallow.type.v1 import money_pb2
from fallow_sdk.commands.order_change import Wishes, change_of

SDL = """\
version: "2.0"
services: {web: {image: nginx}}
profiles:
  compute: {web: {resources: {cpu: {units: 1}, memory: {size: 1Gi}, storage: {size: 1Gi}}}}
  placement: {here: {pricing: {web: {denom: uact, amount: 100}}}}
deployment: {web: {here: {profile: web, count: 3}}}
"""


def order(*group_ids: str) -> order_pb2.Order:
    """An order as GetOrder shows it; each group has a service of its own and one of every group's."""
    shown = order_pb2.Order(name="orders/o", etag="e", labels={"team": "blue", "old": "x"})
    for group_id in group_ids or ("here",):
        group = shown.groups.add(group_id=group_id, price_limit=money_pb2.Price(asset="usdc", micros_per_hour=5))
        group.replica_sets.add(service=f"web-{group_id}", replicas=1)
        group.replica_sets.add(service="side", replicas=1)
    return shown


def test_each_option_is_one_field() -> None:
    """Goal: what is typed is what is asked for, and nothing else. Method: all options at once on two groups."""
    wishes = Wishes(
        replicas=("web-a=2", "web-b=3"),
        price_limits=("a=1.5", "b=2"),
        duration="90m",
        budget="12.5",
        auto_top_up=False,
        labels=("team=red", "old="),
    )
    changed, paths = change_of(order("a", "b"), wishes)
    assert paths == [
        "groups.workload.containers.replicas",
        "groups.price_limit",
        "terms.duration",
        "terms.budget",
        "terms.auto_top_up",
        "labels",
    ]
    assert (changed.name, changed.etag, dict(changed.labels)) == ("orders/o", "e", {"team": "red"})
    assert [
        (group.group_id, group.workload.containers[0].service, group.workload.containers[0].replicas)
        for group in changed.groups
    ] == [("a", "web-a", 2), ("b", "web-b", 3)]
    assert [group.price_limit.micros_per_hour for group in changed.groups] == [1_500_000, 2_000_000]
    assert (changed.terms.duration.seconds, changed.terms.budget.micros) == (5_400, 12_500_000)


def test_none_clears_a_bound() -> None:
    """Goal: bounds can be taken away. Method: the word none."""
    changed, paths = change_of(order(), Wishes(duration="none", budget="none"))
    assert paths == ["terms.duration", "terms.budget"]
    assert not changed.terms.HasField("duration")
    assert not changed.terms.HasField("budget")


def test_a_file_replaces_workloads_and_no_price() -> None:
    """Goal: a file's prices are not read in silence as limits. Method: a file, with a limit beside it."""
    changed, paths = change_of(order(), Wishes(sdl=SDL, price_limits=("1",)))
    assert paths == ["groups.workload", "groups.price_limit"]
    (group,) = changed.groups
    assert (group.group_id, group.workload.containers[0].replicas) == ("here", 3)
    assert group.price_limit.micros_per_hour == 1_000_000


@pytest.mark.parametrize(
    ("wishes", "what"),
    [
        (Wishes(), "say what to change"),
        (Wishes(sdl=SDL.replace("count: 3", "count: 0")), "count"),
        (Wishes(sdl=SDL, replicas=("web-a=2",)), "the file says how many"),
        (Wishes(replicas=("nope=2",)), "no service nope; it has side, web-a, web-b"),
        (Wishes(replicas=("side=2",)), "several groups"),
        (Wishes(replicas=("web-a=two",)), "web=2"),
        (Wishes(replicas=("web-a",)), "key=value"),
        (Wishes(replicas=("web-a=2", "web-a=3")), "stands twice"),
        (Wishes(price_limits=("1.5",)), "write a=1.5"),
        (Wishes(price_limits=("a=much",)), "not a number"),
        (Wishes(budget="-1"), "not a positive amount"),
        (Wishes(duration="long"), "such as 30s"),
        (Wishes(labels=("team",)), "key=value"),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(wishes: Wishes, what: str) -> None:
    """Goal: the user learns what to write. Method: one mistake each."""
    with pytest.raises(typer.BadParameter, match=what):
        change_of(order("a", "b"), wishes)
