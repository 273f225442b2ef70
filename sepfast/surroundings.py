"""What sepfast runs on: packages, processor, GPUs, compilers, caches. Nothing here raises."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

#: Package -> what of sepfast cannot be used without it; torch and numpy are needed by all.
NEEDED_FOR = {
    "safetensors": "models in files",
    "soundfile": "sound files",
    "soxr": "other sample rates than a model's",
    "av": "mp3, mp4 and films",
    "typer": "the program sepfast",
    "rich": "the program sepfast",
    "museval": "scores of separation",
    "stempeg": "the recording of the demo and its tests",
    "matplotlib": "pictures in reports",
    "h5py": "statistics and data in HDF5",
    "triton": "kernels; without it all operators run in PyTorch",
    "librosa": "fragments of varied pitch in training (extra train)",
    "tensorboard": "train --tensorboard (extra log)",
    "onnx": "export to ONNX (extra export)",
    "onnxscript": "export to ONNX (extra export)",
    "onnxruntime": "export to ONNX (extra export)",
    "dlib": "faces in films (extra landmarks)",
    "face_recognition_models": "faces in films (extra landmarks)",
    "pesq": "PESQ of speech (extra speech)",
    "visqol-python": "ViSQOL of speech (extra speech)",
    "nvtx": "a domain of its own in profiles; PyTorch's ranges take its place",
}

#: Seconds for another program, and for counting a cache.
_PATIENCE = 10.0
_COUNTING = 2.0


@dataclass(frozen=True)
class Package:
    """A package beside torch and numpy.

    Attributes:
        name: as it is installed by.
        version: None where it is missing.
        needed_for: what of sepfast cannot be used without it.
    """

    name: str
    version: str | None
    needed_for: str


@dataclass(frozen=True)
class GPU:
    """A GPU that PyTorch sees.

    Attributes:
        name: the maker's.
        architecture: as the compile gate names it, "cuda:90".
        memory_bytes: that it has.
    """

    name: str
    architecture: str
    memory_bytes: int


@dataclass(frozen=True)
class Folder:
    """Where something is cached.

    Attributes:
        of: whose cache it is.
        path: a folder or a file, which need not be there yet.
        size_bytes: of what is in it; at least, where there is too much to count.
        writable: whether it can be written, or made.
    """

    of: str
    path: str
    size_bytes: int
    writable: bool


def version(package: str) -> str | None:
    """The version of an installed package, None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def packages() -> list[Package]:
    """All packages but torch and numpy, those that are missing too."""
    return [Package(name, version(name), what) for name, what in NEEDED_FOR.items()]


def outdated() -> dict[str, str]:
    """Installed packages that are older than sepfast takes -> the oldest version that it takes."""
    try:
        required = importlib.metadata.requires("sepfast") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = {}
    for line in required:
        name = re.match(r"[\w-]+", line)
        least = re.search(r">=([\d.]+)", line)
        installed = version(name[0]) if name else None
        if name and least and installed and _numbers(installed) < _numbers(least[1]):
            found[name[0]] = least[1]
    return found


def _numbers(text: str) -> tuple[int, ...]:
    """The release of a version; zeros behind it do not count."""
    found = re.match(r"\d+(\.\d+)*", text)
    numbers = list(map(int, found[0].split("."))) if found else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def versions() -> dict[str, str | None]:
    """Of what decides which code runs."""
    return {
        "python": platform.python_version(),
        "sepfast": version("sepfast"),
        "torch": str(torch.__version__),
        "torch built for": torch_build(),
        "triton": version("triton"),
        "numpy": version("numpy"),
    }


def torch_build() -> str:
    """What PyTorch was built for: "CUDA 12.8", "ROCm 6.4" or "the CPU alone"."""
    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    return f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone"


def triton_fault() -> str | None:
    """Why Triton cannot be imported: "missing", or the error's first line; None where it can.

    Imports it, which fixes whether this process compiles kernels or interprets them.
    """
    if importlib.util.find_spec("triton") is None:
        return "missing"
    try:
        importlib.import_module("triton")
    except Exception as error:  # whatever a half-installed library raises
        return _first_line(f"{type(error).__name__}: {error}")
    return None


def processor() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(filter(None, named), "") or platform.processor() or platform.machine() or "CPU"


def gpus() -> list[GPU]:
    """The GPUs that PyTorch sees; none where it counts some and CUDA cannot be started."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [_gpu(index) for index in range(count)]


def _gpu(index: int) -> GPU:
    about: Any = torch.cuda.get_device_properties(index)
    name = f"cuda:{about.major}{about.minor}"
    if torch.version.hip:
        name = "hip:" + about.gcnArchName.split(":")[0]
    return GPU(about.name, name, about.total_memory)


def driver() -> str | None:
    """The version of NVIDIA's driver, which may be there without PyTorch seeing a GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return _first_line(done.stdout) or None


@cache
def commit_of(file: Path) -> str | None:
    """The commit of the checkout that a file is kept in, "-dirty" behind it where it was changed.

    None for a file that git does not keep, as one installed inside somebody's project, and
    wherever git is missing or does not answer.
    """
    try:
        _git(file, "ls-files", "--error-unmatch", file.name)
        return _git(file, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or None
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None


def _git(file: Path, *arguments: str) -> str:
    # Without optional locks it writes nothing, not even what it finds out about changed files.
    command = ["git", "--no-optional-locks", "-C", str(file.parent), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PATIENCE)
    return done.stdout.strip()


def compilers() -> dict[str, str | None]:
    """The compilers that Triton (C) and `torch.compile` on the CPU (C++) would take."""
    return {
        "C": _program(os.environ.get("CC"), "gcc", "clang"),
        "C++": _program(os.environ.get("CXX"), "g++", "clang++"),
    }


def _program(*names: str | None) -> str | None:
    """The first one's path: what a variable names comes before all others, there or not."""
    named = [name for name in names if name]
    return next(filter(None, map(shutil.which, named[:1] if names[0] else named)), None)


def caches() -> list[Folder]:
    """Where what was compiled is kept."""
    from sepfast.kernels._compile_cache import cache_path

    triton = os.environ.get("TRITON_CACHE_DIR") or os.path.join(
        os.environ.get("TRITON_HOME") or os.path.expanduser("~"), ".triton", "cache"
    )
    inductor = os.environ.get("TORCHINDUCTOR_CACHE_DIR") or os.path.join(
        tempfile.gettempdir(), f"torchinductor_{_user()}"
    )
    return [
        _folder("Triton", Path(triton)),
        _folder("torch.compile", Path(inductor)),
        _folder("sepfast compile-check", cache_path()),
    ]


def _folder(of: str, path: Path) -> Folder:
    return Folder(of, str(path), _size(path), _writable(path))


def _size(path: Path) -> int:
    """Bytes of a file, or of all that is in a folder, as far as can be counted in a moment."""
    try:
        if path.is_file():
            return path.stat().st_size
    except OSError:
        return 0
    stop, total = time.monotonic() + _COUNTING, 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:  # gone meanwhile
                continue
        if time.monotonic() > stop:
            break
    return total


def _writable(path: Path) -> bool:
    """Whether it, or the nearest folder above that is there, can be written."""
    try:
        there = next(each for each in (path, *path.absolute().parents) if each.exists())
    except (OSError, StopIteration):
        return False
    return os.access(there, os.W_OK) and (there == path or there.is_dir())


def anonymous(value: Any) -> Any:
    """A value, and all in it, without the home folder and the user's name in paths."""
    if isinstance(value, dict):
        return {name: anonymous(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [anonymous(each) for each in value]
    if not isinstance(value, str):
        return value
    home = os.path.expanduser("~")
    # The longer one first: it may have the other in it.
    for path in sorted({home, os.path.realpath(home)}, key=len, reverse=True):
        if len(path) > 1:
            value = re.sub(rf"{re.escape(path)}(?![\w.-])", "~", value)
    # A word of a path, /data/NAME/env, or a part of one, /tmp/torchinductor_NAME.
    return re.sub(rf"(?<=[/\\_]){re.escape(_user())}(?![\w-])", "USER", value)


def _user() -> str:
    """The user's name as files of theirs have it."""
    import getpass

    try:
        return re.sub(r'[\\/:*?"<>|]', "_", getpass.getuser())
    except (OSError, KeyError, ImportError):  # a number that has no name
        return "user"


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")
