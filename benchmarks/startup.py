"""From the command to the first row on the demo: seconds in imports and in each phase, and what a second prompt costs.

python -m benchmarks.startup
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

CHILD = """
import sys, time
begin = time.process_time()
import torch
torch.set_num_threads(1)
torch_s = time.process_time() - begin
import transformers, transformer_lens.model_bridge
libraries_s = time.process_time() - begin
begin = time.process_time()
from circuit_tracer_cli import ReplacementModel, attribute
model = ReplacementModel.from_pretrained("demo", "demo")
loaded_s = time.process_time() - begin
prompts = ["Fact: the capital of the state containing Dallas is", "The opposite of small is"]
calls = []
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
for prompt in prompts:
    begin, before = time.process_time(), set(sys.modules)
    opened.clear()
    graph = attribute(prompt, model)
    calls.append({
        "seconds": round(time.process_time() - begin, 3),
        "modules imported": len(set(sys.modules) - before),
        "weight files opened": sum(name.endswith((".safetensors", ".npz", ".bin")) for name in opened),
        "phases": graph.metadata["timings"],
    })
import json
print(json.dumps({"torch": round(torch_s, 2), "with transformers and TransformerLens": round(libraries_s, 2),
                  "loading the demo": round(loaded_s, 2), "first prompt": calls[0], "second prompt": calls[1]}))
"""

HEAVY = (
    "torch",
    "transformers",
    "transformer_lens",
    "numpy",
    "starlette",
    "uvicorn",
    "huggingface_hub",
    "pandas",
    "networkx",
    "scipy",
)
"""Packages whose import somebody waits for."""


def imported(*arguments: str) -> list[str]:
    """The heavy packages that a command imports."""
    command = [sys.executable, "-X", "importtime", "-m", "circuit_tracer_cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    names = {
        line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line
    }
    return [name for name in HEAVY if name in names]


def main() -> None:
    """Measure and print."""
    for arguments in (
        ["--help"],
        ["estimate", "--help"],
        ["serve", "--help"],
        ["attribute", "-p", ""],
        ["cache", "list"],
    ):
        start = time.perf_counter()
        heavy = imported(*arguments)
        print(
            f"{' '.join(arguments):20} {time.perf_counter() - start:5.2f} s  imports {', '.join(heavy) or 'none of the heavy'}"
        )
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    print(json.dumps(json.loads(done.stdout.splitlines()[-1]), indent=1))


if __name__ == "__main__":
    main()
