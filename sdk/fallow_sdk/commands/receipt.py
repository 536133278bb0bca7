"""`fallow receipt`: fetch a charge's receipt, and check one with no server."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from fallow_receipts import TERM, Receipt, ReceiptError, VerifiedReceipt, verify_receipt
from fallow_sdk.chain import ChainClient
from fallow_sdk.commands.connection import console, signed_in
from fallow_sdk.errors import ChainError
from fallow_sdk.money import show_micros

app = typer.Typer(help="Fetch receipts, and check them offline.", no_args_is_help=True)
HASH_BYTES = 32


def parse_hash(text: str) -> bytes:
    """0x and 64 hexadecimal digits as bytes. Raises a usage error."""
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        value = b""
    if len(value) != HASH_BYTES:
        raise typer.BadParameter(f"{text!r} is not a hash: write 0x and 64 hexadecimal digits")
    return value


def describe(verified: VerifiedReceipt) -> str:
    """What a good receipt says, for people."""
    charge = verified.charge
    seconds = (charge.to_running_ms - charge.from_running_ms) / 1000
    what = "owed for a term closed early" if charge.evidence == TERM else f"proven ({charge.evidence.lower()})"
    return (
        f"good: charge {charge.charge_id} is leaf {verified.index} of batch {verified.batch_id}\n"
        f"  {seconds:.3f} s {what} at "
        f"{show_micros(charge.price_micros_per_hour, charge.asset)}/h = "
        f"{show_micros(charge.amount_micros, charge.asset)}, of which fee {show_micros(charge.fee_micros, charge.asset)}"
    )


@app.command()
def get(
    charge: Annotated[str, typer.Argument(help="Charge, `charges/{charge}`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path("receipt.json"),
    wait_seconds: Annotated[float, typer.Option(help="Longest wait for the batch.", min=0)] = 60.0,
) -> None:
    """Fetch the receipt of a charge into a file."""

    async def run() -> None:
        async with signed_in() as (client, _):
            with console.status("waiting for the batch on the chain", spinner="line"):
                receipt = await client.wait_receipt(charge, seconds=wait_seconds)
        output.write_text(receipt.json, "utf-8")
        console.print(f"{output}: charge in batch {receipt.batch.header.batch_id}")
        console.print(f"settlement root {receipt.batch.header.settlement_root}")

    asyncio.run(run())


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="Receipt file.", exists=True, dir_okay=False, readable=True)],
    root: Annotated[str, typer.Option(help="Settlement root that you trust, as read off the chain.")] = "",
    commitment: Annotated[str, typer.Option(help="Header commitment that you trust, as read off the chain.")] = "",
    rpc_url: Annotated[str, typer.Option(help="Node that you trust: reads the commitment from the anchor.")] = "",
    anchor: Annotated[str, typer.Option(help="Anchor contract that you trust; needed with --rpc-url.")] = "",
) -> None:
    """Check a receipt with no server of the market. Exit status 0 when it is good, 1 when not."""
    trusted_root = parse_hash(root) if root else None
    trusted_commitment = parse_hash(commitment) if commitment else None
    if rpc_url and not anchor:
        raise typer.BadParameter("--rpc-url needs --anchor: a receipt must not say which contract to trust")
    try:
        receipt = Receipt.from_json(file.read_text("utf-8"))
        if rpc_url:
            trusted_commitment = asyncio.run(read_commitment(rpc_url, anchor, receipt.header.batch_id))
        verified = verify_receipt(receipt, commitment=trusted_commitment, settlement_root=trusted_root)
    except (ReceiptError, ChainError, UnicodeDecodeError) as error:
        text = str(error) if isinstance(error, ReceiptError) else f"UNREADABLE: {error}"
        console.print(f"refused: {text}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    console.print(describe(verified), markup=False, soft_wrap=True)


async def read_commitment(rpc_url: str, anchor: str, batch: int) -> bytes:
    """The commitment of a batch as a node tells it."""
    async with ChainClient(rpc_url) as chain:
        return bytes.fromhex((await chain.anchored_commitment(anchor, batch))[2:])
