"""Settings that silence log lines and progress bars of the libraries."""

from __future__ import annotations

import os
import warnings
from typing import TextIO

from circuit_tracer_cli.cli.output import Output

_SILENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "WANDB_MODE": "disabled",
}


def silence_libraries(output: Output, *, verbose: bool = False, offline: bool = False) -> None:
    """Silence torch and transformers unless `verbose`; call it before they are imported. `offline` forbids downloads."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    if verbose:
        return
    for name, value in _SILENT.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", module=r"circuit_tracer_cli")

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        output.warn(str(message))

    warnings.showwarning = show
