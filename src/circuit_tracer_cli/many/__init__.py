"""Several graphs at once: compared, merged, and as tables. Independent of models and transcoders."""
