"""Orders, their history and explanations as tables for people."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from rich.table import Column, Table

from fallow.order.v1 import order_pb2, order_service_pb2
from fallow.type.v1 import lease_pb2
from fallow_sdk.money import show_amount, show_price


def state_name(state: "order_pb2.OrderState.ValueType") -> str:
    """An order's state in one word."""
    return order_pb2.OrderState.Name(state).removeprefix("ORDER_STATE_")


def group_state_name(state: "order_pb2.GroupState.ValueType") -> str:
    """A group's state in one word."""
    return order_pb2.GroupState.Name(state).removeprefix("GROUP_STATE_")


def show_time(timestamp: Timestamp) -> str:
    """An instant in UTC, to the second."""
    return datetime.fromtimestamp(timestamp.seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def name_column(title: str) -> Column:
    """A column of names, which are there to be copied: never broken, however narrow the table."""
    return Column(title, no_wrap=True)


def show_labels(order: order_pb2.Order) -> str:
    """Labels as `--label` takes them."""
    return " ".join(f"{key}={value}" for key, value in sorted(order.labels.items())) or "-"


def orders_table(orders: list[order_pb2.Order]) -> Table:
    """Orders, one a line."""
    titles = ("CREATED", "STATE", "GROUPS", "PRICE", "CHARGED", "LABELS", "ENDPOINTS")
    table = Table(name_column("ORDER"), *titles, box=None)
    for order in orders:
        prices = [show_price(group.price) for group in order.groups if group.HasField("price")]
        places = [endpoint.uri for group in order.groups for endpoint in group.endpoints]
        table.add_row(
            order.name,
            show_time(order.create_time),
            state_name(order.state),
            str(len(order.groups)),
            ", ".join(prices) or "-",
            show_amount(order.totals.charged) if order.totals.HasField("charged") else "-",
            show_labels(order),
            " ".join(places) or "-",
        )
    return table


def order_tables(order: order_pb2.Order) -> list[Table]:
    """One order in full: what it is, what it costs, where each group runs."""
    facts = Table.grid(padding=(0, 2))
    rows = [
        ("order", order.name),
        ("state", state_name(order.state)),
        ("created", show_time(order.create_time)),
        ("ready", show_time(order.ready_time) if order.HasField("ready_time") else "not yet"),
        ("groups", "each on its own" if order.group_binding == order_pb2.GROUP_BINDING_EACH else "all or none"),
        ("labels", show_labels(order)),
        ("held", show_amount(order.totals.held)),
        ("charged", show_amount(order.totals.charged)),
    ]
    if order.close_reason:
        reason = lease_pb2.EndReason.Name(order.close_reason).removeprefix("END_REASON_").lower()
        rows.append(("end", f"{reason}: {order.close_detail}"))
    if order.HasField("close_time"):
        rows += [("closed", show_time(order.close_time)), ("refunded", show_amount(order.totals.refunded))]
    for name, value in rows:
        facts.add_row(name, value)
    names = (name_column("PROVIDER"), name_column("LEASE"))
    groups = Table("GROUP", "STATE", "PRICE", *names, "GENERATION", "ENDPOINTS", box=None)
    for group in order.groups:
        groups.add_row(
            group.group_id,
            group_state_name(group.state),
            show_price(group.price) if group.HasField("price") else f"up to {show_price(group.price_limit)}",
            group.provider or "-",
            group.lease or "-",
            str(group.generation or "-"),
            " ".join(endpoint.uri for endpoint in group.endpoints) or "-",
        )
    return [facts, groups]


def estimate_tables(estimate: order_service_pb2.EstimateOrderResponse) -> list[Table]:
    """What an order would cost, one fact a line, and the same on each kind of term."""
    facts = Table.grid(padding=(0, 2))
    facts.add_row("best price", show_price(estimate.best_price) if estimate.HasField("best_price") else "no match now")
    if estimate.HasField("worst_price"):
        facts.add_row("worst price", show_price(estimate.worst_price))
    if estimate.HasField("matching_price") and not estimate.HasField("best_price"):
        facts.add_row("would match at", show_price(estimate.matching_price))
    facts.add_row("fitting providers", f"{estimate.fitting_providers} of {estimate.candidate_providers} that could")
    facts.add_row("funds needed", show_amount(estimate.funds_needed))
    if estimate.HasField("time_to_match"):
        facts.add_row("time to match", f"{estimate.time_to_match.ToTimedelta().total_seconds():.1f} s, as a median")
    if estimate.HasField("spot"):
        run, notice = (span.ToTimedelta().total_seconds() for span in (estimate.spot.run_min, estimate.spot.notice))
        facts.add_row("may give way", f"after {run:g} s of running and a notice of {notice:g} s")
    if estimate.HasField("early_close"):
        owed = estimate.early_close.ToTimedelta()
        facts.add_row("closed early", f"owes the rest of its term, at most {owed} more")
    terms = Table("TERMS", "FOR AT LEAST", "PRICE", "PROVIDERS", box=None)
    for term in estimate.terms:
        terms.add_row(
            order_pb2.TermKind.Name(term.kind).removeprefix("TERM_KIND_").lower().replace("_", " "),
            str(term.duration.ToTimedelta()) if term.HasField("duration") else "-",
            show_price(term.price) if term.HasField("price") else "no match now",
            str(term.fitting_providers),
        )
    return [facts, terms] if estimate.terms else [facts]


def transition_cells(transition: order_pb2.OrderTransition) -> tuple[str, str, str, str, str, str, str]:
    """One change: number, time, what changed, from where to where, lease, provider, why."""
    if transition.group_id:
        what = f"group {transition.group_id}"
        source = group_state_name(transition.source_group_state)
        target = group_state_name(transition.target_group_state)
    else:
        what = "order"
        source = state_name(transition.source_state) if transition.source_state else ""
        target = state_name(transition.target_state)
    change = f"{source} → {target}" if source not in {"", target} else target
    when = show_time(transition.transition_time)
    lease, provider = transition.lease or "-", transition.provider or "-"
    return str(transition.sequence), when, what, change, lease, provider, transition.reason


def history_table(transitions: list[order_pb2.OrderTransition]) -> Table:
    """What happened to an order, oldest first."""
    table = Table("NUMBER", "TIME", "WHAT", "CHANGE", name_column("LEASE"), name_column("PROVIDER"), "WHY", box=None)
    for transition in transitions:
        table.add_row(*transition_cells(transition))
    return table


def _silent(count: int) -> str:
    """How many constraints removed nothing, beside those that did."""
    return "1 other constraint removed nothing" if count == 1 else f"{count} other constraints removed nothing"


def explanation_tables(explanation: order_service_pb2.ExplainOrderResponse) -> list[Table]:
    """Funnel and offers of each group; constraints that removed nothing are counted, not listed."""
    tables: list[Table] = []
    for group in explanation.groups:
        removing = [step for step in group.funnel if step.devices_after < step.devices_before]
        silent = len(group.funnel) - len(removing)
        funnel = Table(
            "CONSTRAINT", "DEVICES BEFORE", "AFTER", "PROVIDERS LEFT", title=f"{group.group_id}: funnel", box=None,
            title_justify="left", caption=_silent(silent), caption_justify="left",
        )  # fmt: skip
        if not removing:
            # A table without columns prints nothing, not even its title.
            funnel = Table(f"{group.group_id}: funnel: none of {silent} constraints removed a device", box=None)
        for step in removing:
            funnel.add_row(
                step.constraint, str(step.devices_before), str(step.devices_after), str(step.providers_after)
            )
        offers = Table("PROVIDER", "PRICE", "RESULT", title=f"{group.group_id}: offers", box=None, title_justify="left")
        for offer in group.offers:
            price = show_price(offer.price) if offer.HasField("price") else "-"
            offers.add_row(offer.provider, price, "won" if offer.won else f"lost: {offer.loss_reason}")
        tables += [funnel, offers]
        if group.relaxations:
            tables.append(_relaxations_table(group))
    return tables


def _relaxations_table(group: order_service_pb2.ExplainOrderResponse.GroupExplanation) -> Table:
    """Single changes with which a group would match now."""
    table = Table(
        "CONSTRAINT", "CHANGE", "PRICE", title=f"{group.group_id}: what would match now", box=None, title_justify="left"
    )
    for change in group.relaxations:
        table.add_row(change.constraint, change.advice, show_price(change.price))
    return table
