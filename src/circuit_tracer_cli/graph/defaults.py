"""What pruning keeps unless somebody says otherwise. Imports no torch, so that whoever only tells it needn't either."""

from __future__ import annotations

NODE_THRESHOLD = 0.8
"""Share of the influence that the kept nodes hold."""
EDGE_THRESHOLD = 0.98
"""Share of the influence that the kept edges hold."""
STABILITY_GRID = tuple((node, edge) for node in (0.6, 0.7, 0.8, 0.9) for edge in (0.9, 0.95, 0.98))
"""Node and edge thresholds at which a graph is pruned to see how steady its nodes and edges are (CIRCUS, arXiv 2603.00523)."""
