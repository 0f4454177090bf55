"""`python -m benchmarks` runs the engine's benchmark."""

from benchmarks.run import main

main()
