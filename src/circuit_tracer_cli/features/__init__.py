"""Feature examples: built from text, packed for the viewer, read again. Importing this package or `read` loads no torch."""
