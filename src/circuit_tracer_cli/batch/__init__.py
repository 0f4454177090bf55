"""Many prompts traced on one machine or a cluster, each result stored once under a hash of its inputs.

`prompts.py` reads the list, `plan.py` checks it, `store.py` owns the folder, `worker.py` turns a prompt into files, and
`engines.py` distributes the work.
"""
