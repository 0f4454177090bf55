"""Feature examples: built from text, packed for the viewer, and read. Importing this package loads no torch."""
