"""Feature edits on the running model: what they are, one pass with them, generation with them, and what they changed."""
