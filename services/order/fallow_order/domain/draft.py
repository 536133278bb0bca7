"""An order as a tenant sent it, checked and taken apart: what the market may see, and the workloads, which it may not."""

from dataclasses import dataclass
from typing import Final

DEFAULT_MATCH_TIMEOUT_MS: Final = 600_000
MIN_DURATION_MS: Final = 1_000
MAX_MATCH_TIMEOUT_MS: Final = 7 * 24 * 3_600_000
MAX_TERM_MS: Final = 5 * 365 * 24 * 3_600_000
MIN_WINDOW_MS: Final = 250
MAX_WINDOW_MS: Final = 10 * 60_000
MAX_LABEL_KEY_CHARACTERS: Final = 63
MAX_LABEL_VALUE_CHARACTERS: Final = 255


@dataclass(frozen=True, slots=True)
class OrderDraft:
    """``specification`` is the contract's message in bytes without workloads; ``workloads`` one for each group.

    ``limits`` are micros of ``asset`` per hour, one for each group. Times are milliseconds; None is no bound.
    """

    specification: bytes
    labels: tuple[tuple[str, str], ...]
    group_ids: tuple[str, ...]
    workloads: tuple[bytes, ...]
    asset: str
    limits: tuple[int, ...]
    budget_micros: int | None
    auto_top_up: bool
    match_timeout_ms: int
    term_ms: int | None

    def __post_init__(self) -> None:
        """Hold what the reader promises."""
        assert len(self.group_ids) == len(self.workloads) == len(self.limits) > 0, "one of each for each group"
