"""Progress as log lines, for Python callers that ask for `verbose=True`."""

from __future__ import annotations

import logging


class LogProgress:
    """Writes phases to the logger `attribution`."""

    def __init__(self) -> None:
        self.logger = logging.getLogger("attribution")
        self.logger.setLevel(logging.INFO)
        if not self.logger.handlers and not logging.getLogger().handlers:
            self.logger.addHandler(logging.StreamHandler())
        self.total: int | None = None
        self.done = 0
        self.told = 0

    def phase(self, name: str, total: int | None = None) -> None:
        """Log the beginning of a phase."""
        self.total, self.done, self.told = total, 0, 0
        self.logger.info("%s%s", name, f" ({total})" if total is not None else "")

    def advance(self, steps: int = 1) -> None:
        """Log every tenth of a phase."""
        self.done += steps
        if self.total and (tenth := 10 * self.done // self.total) > self.told:
            self.told = tenth
            self.logger.info("%d of %d", self.done, self.total)

    def note(self, message: str) -> None:
        """Log a note."""
        self.logger.info("%s", message)
