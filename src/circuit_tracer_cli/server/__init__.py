"""The local HTTP server: graph files, their annotations, feature examples and the viewer's page."""
