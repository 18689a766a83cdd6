"""The verb that writes models for other programs."""

import shutil
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from crawltalk.core.errors import BadInput
from crawltalk.models import copy_model, model_folder
from crawltalk.run.console import console, size


def export(
    model: Annotated[
        str, Parameter(help="A run, an imported model (smollm2), or a folder in Hugging Face's layout.")
    ],
    *,
    to: Literal["gguf", "hf"],
    out: Path,
    dtype: Literal["f32", "f16", "q8_0"] = "f16",
) -> None:
    """Write a model for other programs: one GGUF file for llama.cpp, or a folder for transformers.

    Parameters
    ----------
    to
        gguf: weights and tokenizer in one file; hf: a folder in Hugging Face's layout, fp32.
    out
        The file or folder to write; it must not exist yet.
    dtype
        Type of a GGUF file's matrices.
    """
    folder = model_folder(model)
    if out.exists():
        raise BadInput(f"{out} already exists; remove it, or choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    if to == "gguf":
        from crawltalk.model.gguf_export import export_gguf

        export_gguf(folder, out, dtype)
        console.print(f"{out}: {size(out.stat().st_size)}", soft_wrap=True)
        return
    work = out.with_name(f".{out.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    copy_model(folder, work)
    work.rename(out)
    written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    console.print(f"{out}: {size(written)}", soft_wrap=True)
