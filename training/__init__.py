"""How the embedded demo was made: corpus, model, transcoders and the measurements of docs/demo-model.md. Not in the wheel."""
