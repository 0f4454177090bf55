"""Interventions on the running model: edits, passes and generation with edits, and what they changed."""
