"""Writing a safetensors file so that a reader sees all of it or nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from circuit_tracer_cli.errors import OutputError


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors` to `path`, creating its folder. Raises OutputError, and then leaves no file behind."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, temporary)
        _make_durable(temporary)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path} can't be written: {error}") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _make_durable(path: Path) -> None:
    """Give the file ordinary permissions and force it to the disk."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)
    with path.open("rb") as file:
        os.fsync(file.fileno())
