"""Files on disk: safetensors, atomic writes, locks, pipes, scratch files, cache folders, sizes. Ignores what they are about."""
