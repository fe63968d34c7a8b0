"""The Retry-After header in all its forms."""

import time
from email.utils import formatdate

import pytest

from nanochat.runtime.retry_after import retry_after


def test_retry_after_in_all_its_forms() -> None:
    assert retry_after("3") == 3.0 and retry_after(None) is None and retry_after("soon") is None
    assert retry_after("-5") == 0.0 and retry_after("1e9") == 600.0 and retry_after("nan") is None
    later = retry_after(formatdate(time.time() + 30, usegmt=True))
    assert later is not None and 27 < later <= 31


@pytest.mark.parametrize("value", ["\xb2", "soon", "-1", "Thu, 31 Dec 9999 23:59:59 -2359"])
def test_a_retry_after_that_is_none(value: str) -> None:
    seconds = retry_after(value)
    assert seconds is None or seconds >= 0
