"""Sign-in messages after EIP-4361 (https://eips.ethereum.org/EIPS/eip-4361): writing, strict reading, checking.

The reader takes exactly the grammar of the standard: fields in their order, one line feed between lines, nothing more.
A message that reads otherwise than it looks to the person who signs it is how wallets are robbed; so what is not plainly
right is refused. Who signed it is checked elsewhere; here is what it says.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from fallow_chassis.errors import DomainError
from fallow_order.domain.reasons import SIGN_IN_EXPIRED, SIGN_IN_MESSAGE_INVALID

MAX_CHARACTERS: Final = 4_096
CLOCK_TOLERANCE: Final = timedelta(seconds=30)
"""How far a wallet's clock may be ahead of ours in what it says of itself."""

_HEADER: Final = " wants you to sign in with your Ethereum account:"
_DOMAIN: Final = re.compile(r"(?:[a-z][a-z0-9+.-]*://)?[A-Za-z0-9._~%\[\]:-]+")
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")
_STATEMENT: Final = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;= ]+")
_URI: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*")
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_NONCE: Final = re.compile(r"[A-Za-z0-9]{8,96}")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@%]*")


@dataclass(frozen=True, slots=True)
class SignInMessage:
    """What a message says. Times are aware instants; an empty statement is none."""

    domain: str
    address: str
    statement: str
    uri: str
    chain_id: int
    nonce: str
    issued_at: datetime
    expires_at: datetime | None = None
    not_before: datetime | None = None
    request_id: str | None = None
    resources: tuple[str, ...] = field(default=())


def write_message(message: SignInMessage) -> str:
    """The text to sign."""
    lines = [f"{message.domain}{_HEADER}", message.address, ""]
    if message.statement:
        lines.append(message.statement)
    lines += [
        "",
        f"URI: {message.uri}",
        "Version: 1",
        f"Chain ID: {message.chain_id}",
        f"Nonce: {message.nonce}",
        f"Issued At: {_instant(message.issued_at)}",
    ]
    if message.expires_at is not None:
        lines.append(f"Expiration Time: {_instant(message.expires_at)}")
    if message.not_before is not None:
        lines.append(f"Not Before: {_instant(message.not_before)}")
    if message.request_id is not None:
        lines.append(f"Request ID: {message.request_id}")
    if message.resources:
        lines += ["Resources:", *(f"- {resource}" for resource in message.resources)]
    return "\n".join(lines)


def read_message(text: str) -> SignInMessage:
    """What a text says; SIGN_IN_MESSAGE_INVALID names the line where it leaves the grammar."""
    if len(text) > MAX_CHARACTERS:
        raise _invalid(1, "the message is too long")
    lines = _Lines(text.split("\n"))
    header = lines.take()
    if not header.endswith(_HEADER) or not _DOMAIN.fullmatch(header.removesuffix(_HEADER)):
        raise _invalid(1, f"must be a domain and then '{_HEADER.strip()}'")
    address = lines.matched(_ADDRESS, "an address")
    lines.empty()
    statement = "" if lines.peek() == "" else lines.matched(_STATEMENT, "a statement of plain characters")
    lines.empty()
    uri = lines.labelled("URI: ", _URI)
    if lines.labelled("Version: ", _NUMBER) != "1":
        raise _invalid(lines.number, "the version must be 1")
    return SignInMessage(
        domain=header.removesuffix(_HEADER),
        address=address,
        statement=statement,
        uri=uri,
        chain_id=int(lines.labelled("Chain ID: ", _NUMBER)),
        nonce=lines.labelled("Nonce: ", _NONCE),
        issued_at=lines.instant("Issued At: "),
        expires_at=lines.optional_instant("Expiration Time: "),
        not_before=lines.optional_instant("Not Before: "),
        request_id=lines.optional("Request ID: ", _REQUEST_ID),
        resources=lines.resources(),
    )


def check_message(message: SignInMessage, *, domain: str, uri: str, chain_id: int, now: datetime) -> None:
    """Whether a message is meant for us, now. Domain, URI and chain first, then its times."""
    if message.domain != domain:
        raise DomainError(SIGN_IN_MESSAGE_INVALID, "the message is for another domain", metadata={"domain": domain})
    if message.uri != uri:
        raise DomainError(SIGN_IN_MESSAGE_INVALID, "the message is for another URI", metadata={"uri": uri})
    if message.chain_id != chain_id:
        raise DomainError(
            SIGN_IN_MESSAGE_INVALID, "the message is for another chain", metadata={"chain_id": str(chain_id)}
        )
    if message.issued_at > now + CLOCK_TOLERANCE:
        raise DomainError(SIGN_IN_EXPIRED, "the message was issued in the future")
    if message.not_before is not None and message.not_before > now + CLOCK_TOLERANCE:
        raise DomainError(SIGN_IN_EXPIRED, "the message is not valid yet")
    if message.expires_at is not None and message.expires_at <= now:
        raise DomainError(SIGN_IN_EXPIRED, "the message has run out")


class _Lines:
    """The lines of a message, taken one by one."""

    def __init__(self, lines: list[str]) -> None:
        """Start before the first line."""
        self._lines = lines
        self.number = 0

    def peek(self) -> str | None:
        """The next line, or None at the end."""
        return self._lines[self.number] if self.number < len(self._lines) else None

    def take(self) -> str:
        """The next line."""
        line = self.peek()
        if line is None:
            raise _invalid(self.number + 1, "the message ends too early")
        self.number += 1
        return line

    def empty(self) -> None:
        """An empty line."""
        if self.take() != "":
            raise _invalid(self.number, "must be empty")

    def matched(self, pattern: re.Pattern[str], what: str) -> str:
        """A line of one shape."""
        line = self.take()
        if not pattern.fullmatch(line):
            raise _invalid(self.number, f"must be {what}")
        return line

    def labelled(self, label: str, pattern: re.Pattern[str]) -> str:
        """The value after a label that must be there."""
        value = self.optional(label, pattern)
        if value is None:
            raise _invalid(self.number + 1, f"must start with '{label}'")
        return value

    def optional(self, label: str, pattern: re.Pattern[str]) -> str | None:
        """The value after a label, or None if the next line is another."""
        line = self.peek()
        if line is None or not line.startswith(label):
            return None
        self.number += 1
        value = line.removeprefix(label)
        if not pattern.fullmatch(value):
            raise _invalid(self.number, f"the value after '{label}' is malformed")
        return value

    def instant(self, label: str) -> datetime:
        """The instant after a label that must be there."""
        return self._to_instant(self.labelled(label, _INSTANT))

    def optional_instant(self, label: str) -> datetime | None:
        """The instant after a label, or None if the next line is another."""
        value = self.optional(label, _INSTANT)
        return None if value is None else self._to_instant(value)

    def resources(self) -> tuple[str, ...]:
        """The resources at the end; after them, or without them, nothing may follow."""
        found: list[str] = []
        if self.peek() == "Resources:":
            self.number += 1
            while (line := self.peek()) is not None and line.startswith("- "):
                self.number += 1
                if not _URI.fullmatch(line.removeprefix("- ")):
                    raise _invalid(self.number, "must be a URI")
                found.append(line.removeprefix("- "))
        if self.peek() is not None:
            raise _invalid(self.number + 1, "nothing may follow here")
        return tuple(found)

    def _to_instant(self, value: str) -> datetime:
        """An RFC 3339 date-time; the pattern has checked its shape."""
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            raise _invalid(self.number, "is no date and time") from None


def _invalid(line: int, why: str) -> DomainError:
    """The error for a text that is not in the grammar."""
    return DomainError(SIGN_IN_MESSAGE_INVALID, f"line {line} of the message: {why}", metadata={"line": str(line)})


def _instant(value: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
