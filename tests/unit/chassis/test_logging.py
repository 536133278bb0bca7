"""Log events: one a line, and no secret in any."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from fallow_chassis.logging import configure, get_logger, mask_text

JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
SEED = "SU" + "A2" * 28


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """Where the log goes; the loggers are as before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    buffer = io.StringIO()
    yield buffer
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_event_is_one_line(output: io.StringIO, log_format: str) -> None:
    """Goal: a line per event, with an exception and line ends inside. Method: log such an event, ours and another's."""
    configure("order", log_format=log_format, output=output)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        get_logger("a").exception("it_failed", text="a\r\nb", number=5)
    logging.getLogger("asyncpg").warning("theirs\n%s", "x")
    lines = output.getvalue().splitlines()
    assert len(lines) == 2
    assert "it_failed" in lines[0]
    assert "ValueError" in lines[0]


def test_json_events_hold_the_facts(output: io.StringIO) -> None:
    """Goal: machines read it. Method: parse a line."""
    configure("order", log_format="json", output=output)
    get_logger("a.b").info("order_opened", order="orders/x", amount_micros=5)
    event = json.loads(output.getvalue())
    assert event["event"] == "order_opened"
    assert event["order"] == "orders/x"
    assert event["amount_micros"] == 5
    assert (event["level"], event["service"], event["logger"]) == ("info", "order", "a.b")
    assert event["timestamp"].endswith("Z")


def test_the_level_holds(output: io.StringIO) -> None:
    """Goal: less is said when less is asked for. Method: info at level warning."""
    configure("order", level="warning", output=output)
    get_logger("a").info("quiet")
    get_logger("a").warning("loud")
    assert "quiet" not in output.getvalue()
    assert "loud" in output.getvalue()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_secrets_do_not_get_out(output: io.StringIO, log_format: str) -> None:
    """Goal: no secret in a log, by name or by look. Method: put them everywhere a caller might."""
    configure("order", log_format=log_format, output=output)
    log = get_logger("a")
    log.info(
        "x",
        token="hunter2",
        api_key="hunter2",
        private_key=b"hunter2",
        nested={"password": "hunter2", "list": [{"client_secret": "hunter2"}]},
        header=f"Bearer {JWT}",
        url="postgresql://fallow:hunter2@localhost/x",
        text=f"came with {JWT} and {SEED}",
        pem="-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----",
        error=ValueError("nats://user:hunter2@host"),
        page_token="kept-token",
        micros=7,
    )
    logging.getLogger("theirs").warning("connect to %s", "nats://user:hunter2@host")
    try:
        raise ValueError("postgresql://fallow:hunter2@localhost/x")
    except ValueError:
        log.exception("failed")
    text = output.getvalue()
    assert "hunter2" not in text
    assert JWT not in text
    assert SEED not in text
    assert "kept-token" in text


def test_innocent_text_is_left_alone() -> None:
    """Goal: masking does not eat facts. Method: words that look a little like secrets."""
    for text in ("orders/01abc", "https://example.org:443/path", "bearer of news", "SUMMER", "a@b.c"):
        assert mask_text(text) == text
