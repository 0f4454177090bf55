"""Files on disk: safetensors, atomic writes, locks, pipes, scratch files, cache folders, sizes. Independent of their content."""
