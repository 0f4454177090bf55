"""Default thresholds of pruning. Imports no torch, so that help texts don't need it either."""

from __future__ import annotations

NODE_THRESHOLD = 0.8
"""Share of the influence that the kept nodes account for."""
EDGE_THRESHOLD = 0.98
"""Share of the influence that the kept edges account for."""
STABILITY_GRID = tuple((node, edge) for node in (0.6, 0.7, 0.8, 0.9) for edge in (0.9, 0.95, 0.98))
"""Node and edge thresholds at which a graph is pruned to see how steady its nodes and edges are (CIRCUS, arXiv 2603.00523)."""
