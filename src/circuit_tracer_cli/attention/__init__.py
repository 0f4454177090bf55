"""Attention explained: which heads carry an edge, and why a head looks where it looks."""
