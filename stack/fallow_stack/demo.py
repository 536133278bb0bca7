"""`fallow demo`: one order the whole way, over real parts, narrated.

Nothing here is played: each line that is printed is read from a service, the local chain or the workload itself. What
is not the real thing says so where it is shown: the GPUs are declared, the asset is a test token on a local chain, and
the `exec` driver runs a plain process with no isolation. The receipt is checked after every process has been stopped.
"""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import aiohttp
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fallow.order.v1 import order_pb2
from fallow.settlement.v1 import charge_pb2
from fallow.type.v1 import money_pb2
from fallow_chassis.clock import SystemClock
from fallow_sdk.chain import ChainClient
from fallow_sdk.client import Client
from fallow_sdk.commands.order_tables import explanation_tables, state_name
from fallow_sdk.money import show_amount, show_micros, show_price
from fallow_sdk.wallet import Wallet
from fallow_stack.commands import DemoError, run_reporting, running_stack, stack_settings
from fallow_stack.demo_image import ImageError, engine_fault, load_demo_image
from fallow_stack.home import Home, StackRunningError
from fallow_stack.settings import StackSettings
from fallow_stack.sites import choose_asks
from fallow_stack.stack import ASSET, Stack
from fallow_stack.table import status_table

# Outside a terminal a line is as long as it needs to be; names and hashes are to be copied whole.
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
PROVIDERS = 3
DEPOSIT_MICROS = 25_000_000
# SDL files price per block of 6.098 s: about 5 USDC an hour, far above the sites' asks, so that all are compared.
PRICE_LIMIT_UACT_PER_BLOCK = 8500
METERED_SECONDS = 6
STEP_SECONDS = 60.0
POLL_SECONDS = 0.1
EXEC_IMAGE = "exec:host"

# The workload. It serves HTTP on the port and the address that the runtime tells it: loopback for a plain process, and
# the container's own port on all addresses of its own network in an image.
PROGRAM = """
import http.server, json, os, random, sys, time
SIZE = 48
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        rows = [[random.random() for _ in range(SIZE)] for _ in range(SIZE)]
        started = time.perf_counter()
        total = sum(sum(a * b for a, b in zip(row, column)) for row in rows for column in zip(*rows))
        spent = (time.perf_counter() - started) * 1000
        body = json.dumps({"pid": os.getpid(), "matrix": SIZE, "sum": round(total, 3), "ms": round(spent, 2)})
        self.send_response(200); self.end_headers(); self.wfile.write(body.encode())
        print("answered", self.path, body, flush=True)
    def log_message(self, *_):
        pass
port = int(os.environ.get("PORT", "8080"))
print("serving on port", port, "with Python", sys.version.split()[0], flush=True)
http.server.ThreadingHTTPServer((os.environ.get("HOST", ""), port), Handler).serve_forever()
"""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is left once everything has been stopped: a receipt, and the root that the chain told."""

    receipt_file: Path
    root: str


def check(condition: bool, claim: str) -> None:  # noqa: FBT001
    """Hold a claim, or end the demo with it."""
    if not condition:
        raise DemoError(f"this should hold and does not: {claim}")


def heading(text: str) -> None:
    """Start a step."""
    console.print(f"\n[bold]{text}[/]")


def order_text(image: str, model: str) -> str:
    """The SDL of the demo's order."""
    program = "\n".join(f"        {line}" for line in PROGRAM.strip().splitlines())
    return f"""version: "2.0"
services:
  web:
    image: {image}
    command:
      - python3
      - -u
      - -c
      - |
{program}
    expose:
      - port: 8080
        as: 80
        to:
          - global: true
profiles:
  compute:
    web:
      resources:
        cpu:
          units: 1
        memory:
          size: 512Mi
        storage:
          size: 1Gi
        gpu:
          units: 1
          attributes:
            vendor:
              nvidia:
                - model: {model}
  placement:
    anywhere:
      pricing:
        web:
          denom: uact
          amount: {PRICE_LIMIT_UACT_PER_BLOCK}
deployment:
  web:
    anywhere:
      profile: web
      count: 1
"""


async def show_market(client: Client) -> None:
    """Show who offers what."""
    heading("Providers (declared devices: no such GPU is in this machine; prices are a public market's asks)")
    # A provider's service serves before it has registered and published what it asks.
    async with asyncio.timeout(STEP_SECONDS):
        while True:
            providers = await client.list_providers()
            offers = {offer.provider: offer for offer in await client.list_offers()}
            if len(providers) >= PROVIDERS and all(provider.name in offers for provider in providers):
                break
            await asyncio.sleep(POLL_SECONDS)
    table = Table("PROVIDER", "SITE", "REGION", "MODEL", "PRICE OF ONE GPU", box=None)
    for provider in providers:
        prices = offers[provider.name].prices
        for model, micros in prices.gpu_micros_per_hour_by_model.items():
            price = f"{show_micros(micros, prices.asset)}/h"
            table.add_row(provider.name, provider.display_name, provider.region, model, price)
    console.print(table)


async def deposit(client: Client, stack: Stack) -> None:
    """Pay test USDC into the vault on the chain and see it credited."""
    heading("Deposit")
    wallet = Wallet.load(stack.keys.wallet("tenant"))
    session = await client.sign_in(wallet)
    console.print(f"signed in with wallet {wallet.address} as {session.account}")
    instructions = await client.deposit_instructions(ASSET)
    before = (await client.balance(ASSET)).free.micros
    async with ChainClient(stack.chain_url) as chain:
        transaction = await chain.deposit(
            wallet,
            token=instructions.token_address,
            vault=instructions.vault_address,
            account_reference=instructions.account_reference,
            micros=DEPOSIT_MICROS,
        )
    console.print(f"paid {show_micros(DEPOSIT_MICROS, ASSET)} (test token) into the vault: {transaction}")
    wanted = money_pb2.Amount(asset=ASSET, micros=before + DEPOSIT_MICROS)
    with console.status(f"waiting for {instructions.confirmations} confirmations", spinner="line"):
        balance = await client.wait_balance(wanted, seconds=STEP_SECONDS)
    console.print(f"credited; free balance {show_amount(balance.free)}")


async def close_leftovers(client: Client) -> None:
    """Close what a demo that was broken off has left running: it costs money and holds devices."""
    for order in await client.list_orders():
        if order.state != order_pb2.ORDER_STATE_CLOSED:
            console.print(f"closing {order.name}, left by a demo that was broken off", style="dim")
            await client.close_order(order.name, reason="left by a demo that was broken off")
            await client.wait_order(order.name, [order_pb2.ORDER_STATE_CLOSED], seconds=STEP_SECONDS)


async def place_order(client: Client, stack: Stack, image: str) -> order_pb2.Order:
    """Quote, order, match, start."""
    model = choose_asks(PROVIDERS)[0].model
    file = stack.home.root / "order.yaml"
    file.write_text(order_text(image, model), "utf-8")
    sdl = file.read_text("utf-8")
    heading(f"Order: one {model}, from {file}")
    quote = await client.estimate_order(sdl)
    console.print(
        f"quote: {show_price(quote.best_price)} (dearest of {quote.fitting_providers}: "
        f"{show_price(quote.worst_price)}); holds {show_amount(quote.funds_needed)}"
    )
    clock = SystemClock()
    started = clock.monotonic_ms()
    order = await client.create_order(sdl=sdl)

    seen: list[str] = []

    def show_step(state: str) -> None:
        if state not in seen:
            seen.append(state)
            console.print(f"  {clock.monotonic_ms() - started:>6} ms  {state}")

    order = await client.wait_order(
        order.name, [order_pb2.ORDER_STATE_RUNNING], seconds=STEP_SECONDS, on_step=show_step
    )
    check(order.groups[0].price.micros_per_hour <= quote.best_price.micros_per_hour, "no price above the quote")
    heading("Match: the funnel, and why the others lost")
    for table in explanation_tables(await client.explain_order(order.name)):
        console.print(table)
    return order


async def ask_workload(address: str) -> str:
    """What the workload answers. A file of this kind names no readiness check, so its first moments may be deaf."""
    async with asyncio.timeout(STEP_SECONDS), aiohttp.ClientSession(raise_for_status=True) as http:
        while True:
            try:
                async with http.get(address) as response:
                    return await response.text()
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(POLL_SECONDS)


async def use_workload(client: Client, order: order_pb2.Order) -> None:
    """Look at the lease, call the workload, read its live log."""
    heading("Lease")
    (lease,) = await client.list_leases(order.name)
    devices = ", ".join(share.device_id for place in lease.placements for share in place.devices)
    console.print(f"{lease.name} generation {lease.key.generation} at {lease.provider}: {show_price(lease.price)}")
    console.print(f"devices {devices}; endpoint {lease.endpoints[0].uri}")
    heading("Workload")
    answer = await ask_workload(lease.endpoints[0].uri)
    check("sum" in json.loads(answer), "the workload answers with its own result")
    console.print(f"GET {lease.endpoints[0].uri}: {answer}")
    async with asyncio.timeout(STEP_SECONDS):
        async for line in client.stream_logs(lease.name, follow=True):
            console.print(f"log {line.service}/{line.replica}: {line.line}", style="dim", markup=False)
            if line.line.startswith("answered"):
                break


async def meter() -> None:
    """Let it run for some seconds."""
    heading("Meter")
    columns = (TextColumn("running, proofs every second"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=not console.is_terminal) as progress:
        task = progress.add_task("", total=METERED_SECONDS * 10)
        for _ in range(METERED_SECONDS * 10):
            await asyncio.sleep(0.1)
            progress.advance(task)


async def settle(client: Client, order: order_pb2.Order) -> list[charge_pb2.Charge]:
    """Close the order and show what it cost."""
    heading("Close and settle")
    with console.status("stopping, final proof, final charge", spinner="line"):
        await client.close_order(order.name, reason="demo is over")
        order = await client.wait_order(order.name, [order_pb2.ORDER_STATE_CLOSED], seconds=STEP_SECONDS)
    charges = await client.list_charges(order.name)
    table = Table("CHARGE", "PROVEN", "AMOUNT", "PROVIDER", "FEE", "POOL", box=None)
    for charge in reversed(charges):
        provider = charge.amount.micros - charge.fee.micros - charge.pool.micros
        table.add_row(
            charge.name,
            f"{(charge.to_running_ms - charge.from_running_ms) / 1000:.3f} s",
            show_amount(charge.amount),
            show_micros(provider, ASSET),
            show_amount(charge.fee),
            show_amount(charge.pool),
        )
    console.print(table)
    totals = order.totals
    console.print(
        f"{state_name(order.state)}: charged {show_amount(totals.charged)}, refunded {show_amount(totals.refunded)}"
    )
    check(bool(charges), "the order was charged")
    check(sum(charge.amount.micros for charge in charges) == totals.charged.micros, "charges add up to the total")
    return charges


async def fetch_receipt(client: Client, stack: Stack, charge: charge_pb2.Charge) -> Evidence:
    """Fetch a receipt once its batch is anchored; read the root from the chain, not from the service."""
    heading("Receipt")
    with console.status("waiting for the batch on the chain", spinner="line"):
        receipt = await client.wait_receipt(charge.name, seconds=STEP_SECONDS)
    batch = receipt.batch
    async with ChainClient(stack.chain_url) as chain:
        root = await chain.anchored_root(batch.anchor_address, batch.header.batch_id)
    count = batch.header.charge_count
    charges = "1 charge" if count == 1 else f"{count} charges"
    console.print(f"batch {batch.header.batch_id}: {charges}, anchored by {batch.transaction_hash}")
    console.print(f"settlement root on the chain: {root}")
    file = stack.home.root / "receipt.json"
    file.write_text(receipt.json, "utf-8")
    return Evidence(file, root)


async def pay_provider(stack: Stack) -> None:
    """Take what the provider earned out of the market, as its owner, and have the vault pay it."""
    heading("The provider is paid")
    for name in stack.providers:
        owner = Wallet.load(stack.keys.wallet(name))
        async with Client(stack.endpoints) as client, ChainClient(stack.chain_url) as chain:
            await client.sign_in(owner)
            earned = (await client.balance(ASSET)).earned
            if earned.micros == 0:
                continue
            token = (await client.deposit_instructions(ASSET)).token_address
            before = await chain.read(token, "balanceOf(address)", "uint256", owner.address)
            with console.status("waiting for a payout root and its challenge window", spinner="line"):
                await client.withdraw(earned, owner.address)
                claim = await client.wait_claim(seconds=STEP_SECONDS)
                transaction = await chain.claim(Wallet.load(stack.keys.wallet("tenant")), claim)
            paid = await chain.read(token, "balanceOf(address)", "uint256", owner.address) - before
            console.print(f"{name}: earned {show_amount(earned)}, paid {show_micros(paid, ASSET)} to {owner.address}")
            console.print(f"root of batch {claim.header.batch_id}, claimed by {transaction} (anybody may send that)")
            check(paid == earned.micros, "the provider's wallet holds what it earned")


def verify(file: Path, root: str) -> int:
    """Run `fallow receipt verify` as anybody would; its exit status."""
    command = ["fallow", "receipt", "verify", str(file), "--root", root]
    console.print(f"$ {' '.join(command)}", markup=False)
    program = Path(sys.executable).with_name("fallow")
    result = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    console.print((result.stdout + result.stderr).rstrip(), markup=False)
    return result.returncode


def tampered_copy(receipt: Path, change: dict[str, str]) -> Path:
    """A copy of a receipt with other words in its charge."""
    content = json.loads(receipt.read_text("utf-8"))
    content["charge"] |= change
    copy = receipt.with_name("tampered.json")
    copy.write_text(json.dumps(content), "utf-8")
    return copy


def verify_offline(evidence: Evidence) -> None:
    """Check the receipt with nothing running, then a copy whose amount was changed."""
    heading("Verify offline: every process of the stack has been stopped")
    check(verify(evidence.receipt_file, evidence.root) == 0, "the receipt is good")
    good = json.loads(evidence.receipt_file.read_text("utf-8"))["charge"]
    less = {"amount_micros": str(int(good["amount_micros"]) - 1)}
    for what, change in (("with one micro less", less), ("made out to somebody else", {"tenant": good["provider"]})):
        console.print(f"the same receipt, {what}:", style="dim")
        tampered = tampered_copy(evidence.receipt_file, change)
        check(verify(tampered, evidence.root) == 1, "a tampered receipt is refused")


@asynccontextmanager
async def watched(stack: Stack) -> AsyncIterator[None]:
    """Watch the members while the demo goes on; a member that cannot be kept ends the demo."""
    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(stack.supervisor.watch())
        yield
        watcher.cancel()


async def choose_runtime(settings: StackSettings, say: Callable[[str], None]) -> tuple[str, str]:
    """How the workload runs, and its image, which the engine has been given if it runs in one."""
    socket, why = settings.docker_socket, "asked for"
    if settings.runtime in {"auto", "docker"}:
        fault = await engine_fault(socket)
        if fault is None:
            say(f"building and loading the demo's image at {socket}")
            try:
                image = await load_demo_image(socket)
            except ImageError as error:
                raise DemoError(str(error)) from error
            say(f"workload: a container of the engine at {socket}, image {image}")
            return "docker", image
        why = f"no container engine answers at {socket}: {fault}"
        if settings.runtime == "docker":
            raise DemoError(f"{why}; start one, name its socket in DOCKER_HOST, or use --runtime exec")
    say(f"workload: a plain process by the exec driver, with no isolation ({why})")
    return "exec", EXEC_IMAGE


async def run_demo(home: Home, settings: StackSettings, say: Callable[[str], None]) -> None:
    """The whole way."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    clock = SystemClock()
    started = clock.monotonic_ms()
    runtime, image = await choose_runtime(settings, say)
    async with running_stack(home, settings.model_copy(update={"runtime": runtime}), console) as stack, watched(stack):
        console.print(status_table(stack.supervisor.status()))
        async with Client(stack.endpoints) as client:
            await show_market(client)
            await deposit(client, stack)
            await close_leftovers(client)
            order = await place_order(client, stack, image)
            await use_workload(client, order)
            await meter()
            charges = await settle(client, order)
            evidence = await fetch_receipt(client, stack, charges[0])
            await pay_provider(stack)
        say("stopping everything")
    verify_offline(evidence)
    console.print(f"\n[bold green]done[/] in {(clock.monotonic_ms() - started) / 1000:.1f} s")


def demo(
    home: Annotated[
        Path | None, typer.Option("--home", help="Folder of the demo's data; default .fallow/demo.")
    ] = None,
    event_stream: Annotated[str | None, typer.Option(help="jetstream or kafka.")] = None,
    runtime: Annotated[str | None, typer.Option(help="auto, docker or exec.")] = None,
) -> None:
    """Start a stack and take one order the whole way: funds, match, container, proofs, ledger, chain, receipt."""
    settings = stack_settings(event_stream=event_stream, runtime=runtime, providers=PROVIDERS)
    place = Home(home or settings.home / "demo")
    try:
        run_reporting(run_demo(place, settings, lambda line: console.print(line, style="dim", markup=False)))
    except StackRunningError as error:
        console.print(f"error: {error}; stop it first (`fallow down --home {place.root}`)", style="red", markup=False)
        raise typer.Exit(1) from error
    except asyncio.CancelledError:
        raise typer.Exit(130) from None
