"""The `Range` header of one GET request (RFC 9110, section 14)."""

from __future__ import annotations

import re

_BYTES = re.compile(r"bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*\Z", re.IGNORECASE | re.ASCII)
_MAX_DIGITS = 18


class UnsatisfiableRange(Exception):
    """The range begins beyond the end of the file."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The bytes asked for, as a half-open interval, or None for the whole file.

    A header that is malformed, of another unit, or lists several ranges is answered with the whole file, as
    the RFC allows. Raises UnsatisfiableRange where the answer must be 416.
    """
    match = _BYTES.match(header.strip()) if header else None
    if match is None:
        return None
    first, last = match.groups()
    if max(len(first), len(last)) > _MAX_DIGITS or not (first or last):
        return None
    if not first:
        return _suffix(int(last), size)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise UnsatisfiableRange
    return start, min(int(last) + 1, size) if last else size


def _suffix(length: int, size: int) -> tuple[int, int]:
    if length == 0 or size == 0:
        raise UnsatisfiableRange
    return max(0, size - length), size
