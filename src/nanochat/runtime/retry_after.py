"""How long a server asks to be left alone: the Retry-After header of an answer (RFC 9110 section 10.2.3)."""

import math
import time
from email.utils import parsedate_to_datetime

LONGEST = 600.0  # seconds; a server that asks for more is asked again all the same


def retry_after(value: str | None) -> float | None:
    """Seconds from 0 to LONGEST; None without a header, or for one that is neither a number nor a date."""
    if not value:
        return None
    try:
        seconds = float(value) if value.isascii() else math.nan
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST)
