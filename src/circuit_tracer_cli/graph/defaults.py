"""What pruning keeps unless somebody says otherwise. Imports no torch, so that whoever only tells it needn't either."""

from __future__ import annotations

NODE_THRESHOLD = 0.8
"""Share of the influence that the kept nodes hold."""
EDGE_THRESHOLD = 0.98
"""Share of the influence that the kept edges hold."""
