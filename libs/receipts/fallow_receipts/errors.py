"""Why a receipt, or a part of one, is not accepted.

One exception with a reason for programs, a sentence for people and the path of the field. The reasons are constants,
so that callers (the command line, the settlement service) compare names and not text.
"""

MALFORMED_JSON = "MALFORMED_JSON"
DUPLICATE_FIELD = "DUPLICATE_FIELD"
UNKNOWN_FIELD = "UNKNOWN_FIELD"
MISSING_FIELD = "MISSING_FIELD"
INVALID_FIELD = "INVALID_FIELD"
FORMAT_UNSUPPORTED = "FORMAT_UNSUPPORTED"
TRUST_MISSING = "TRUST_MISSING"
INDEX_OUT_OF_RANGE = "INDEX_OUT_OF_RANGE"
AMOUNT_WRONG = "AMOUNT_WRONG"
SPLIT_WRONG = "SPLIT_WRONG"
ROOT_MISMATCH = "ROOT_MISMATCH"
COMMITMENT_MISMATCH = "COMMITMENT_MISMATCH"
SETTLEMENT_ROOT_MISMATCH = "SETTLEMENT_ROOT_MISMATCH"

REASONS = (
    MALFORMED_JSON,
    DUPLICATE_FIELD,
    UNKNOWN_FIELD,
    MISSING_FIELD,
    INVALID_FIELD,
    FORMAT_UNSUPPORTED,
    TRUST_MISSING,
    INDEX_OUT_OF_RANGE,
    AMOUNT_WRONG,
    SPLIT_WRONG,
    ROOT_MISMATCH,
    COMMITMENT_MISMATCH,
    SETTLEMENT_ROOT_MISMATCH,
)


class ReceiptError(ValueError):
    """A receipt, charge, header or leaf that is refused.

    `reason` is one of REASONS, `field` a path such as "charge.amount_micros" or "" where no single field is at fault.
    """

    def __init__(self, reason: str, message: str, *, field: str = "") -> None:
        assert reason in REASONS, reason
        super().__init__(f"{reason}: {field + ': ' if field else ''}{message}")
        self.reason = reason
        self.message = message
        self.field = field

    def below(self, prefix: str) -> "ReceiptError":
        """Return the same refusal with its field path below `prefix`."""
        return ReceiptError(self.reason, self.message, field=f"{prefix}.{self.field}" if self.field else prefix)
