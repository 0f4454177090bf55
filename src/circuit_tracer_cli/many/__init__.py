"""Several graphs at once: compared, merged, and as tables. Reads graphs; knows no model and no transcoder."""
