"""Whether sepfast is well here: what it runs on, which operators run kernels, what is in the way.

`examine` gives facts; `sepfast doctor` prints them, to be pasted into a bug report.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from sepfast import surroundings
from sepfast.kernels.targets import TARGETS
from sepfast.kernels.tuning import shipped, shipped_kernels
from sepfast.ops.backend import current_backend
from sepfast.selfcheck import Check, check_in_interpreter, check_operators
from sepfast.surroundings import GPU, Folder, Package

_REPORT = "Set sepfast.use_backend('reference') meanwhile, and report this."


@dataclass(frozen=True)
class Finding:
    """Something that is worth a sentence.

    Attributes:
        what: is so.
        advice: what can be done.
    """

    what: str
    advice: str


@dataclass(frozen=True)
class Examination:
    """All that was found.

    Attributes:
        versions: of what decides which code runs; None where it is missing.
        packages: the other packages.
        system: operating system, processor, its threads, and the driver of GPUs.
        gpus: those that PyTorch sees.
        settings: the device that was examined, PyTorch's precision knob, the backend, and whether
            Triton interprets kernels.
        compilers: C and C++, for Triton and `torch.compile`.
        caches: where compiled code is kept.
        tuned: architecture -> "own", "general" and "none": the kernels that have configurations
            for it, those that take general ones, and those that are not shipped for it.
        checks: of each operator, here and, where asked for, in the interpreter.
        findings: what is worth a sentence, the gravest first.
    """

    versions: dict[str, str | None]
    packages: list[Package]
    system: dict[str, Any]
    gpus: list[GPU]
    settings: dict[str, Any]
    compilers: dict[str, str | None]
    caches: list[Folder]
    tuned: dict[str, dict[str, list[str]]]
    checks: list[Check]
    findings: list[Finding]

    @property
    def passed(self) -> bool:
        """Whether every operator gave the right numbers."""
        return all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """All of it in plain values, `passed` besides, without the home folder or user's name.

        Errors that are no finite numbers are words, as JSON has no such numbers.
        """
        value = {**asdict(self), "passed": self.passed}
        for each, check in zip(value["checks"], self.checks, strict=True):
            each["passed"] = check.passed
            for name in ("error", "gradient_error"):
                if each[name] is not None and not math.isfinite(each[name]):
                    each[name] = str(each[name])
        plain: dict[str, Any] = surroundings.anonymous(value)
        return plain


def examine(device: torch.device, *, interpret: bool = False) -> Examination:
    """Look at everything that decides how sepfast runs, and run each operator on a tiny input.

    Imports Triton, which fixes whether this process compiles kernels or interprets them.

    Args:
        device: where operators are run, by the backend that is chosen now.
        interpret: whether the kernels are run in Triton's interpreter too, in a process of its own.

    Example:
        >>> import torch
        >>> from sepfast.doctor import examine
        >>> examine(torch.device("cpu")).passed
        True
    """
    fault = surroundings.triton_fault()
    gpus, driver = surroundings.gpus(), surroundings.driver()
    compilers, caches = surroundings.compilers(), surroundings.caches()
    checks = check_operators(device)
    if interpret and not fault:
        checks += check_in_interpreter()
    findings = [
        *_wrong(checks),
        *_of_triton(fault, gpus, interpret),
        *_of_gpus(gpus, driver),
        *_of_compilers(compilers, bool(gpus) and not fault),
        *_of_caches(caches),
        *_of_packages(),
    ]
    return Examination(
        versions=surroundings.versions(),
        packages=surroundings.packages(),
        system=_system(driver),
        gpus=gpus,
        settings=_settings(device),
        compilers=compilers,
        caches=caches,
        tuned={name: tuned_for(name) for name in _architectures(gpus)},
        checks=checks,
        findings=findings,
    )


def tuned_for(architecture: str) -> dict[str, list[str]]:
    """The kernels by what configurations they have for an architecture.

    Args:
        architecture: as the compile gate names it, "cuda:90".

    Returns:
        "own": made for it; "general": for any of its kind, or for any; "none": there another
        kernel runs, or PyTorch.
    """
    found: dict[str, list[str]] = {"own": [], "general": [], "none": []}
    for kernel in shipped_kernels():
        devices = {device for device, _, _ in shipped(kernel)}
        general = devices & {"any", architecture.split(":")[0]}
        kind = "own" if architecture in devices else "general" if general else "none"
        found[kind].append(kernel)
    return found


def _architectures(gpus: Iterable[GPU]) -> list[str]:
    """Those that are here; where none is, all that kernels are compiled for."""
    here = list(dict.fromkeys(gpu.architecture for gpu in gpus))
    return here or [target.name for target in TARGETS]


def _system(driver: str | None) -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "processor": surroundings.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "driver": driver,
    }


def _settings(device: torch.device) -> dict[str, Any]:
    return {
        "device": str(device),
        "precision": torch.get_float32_matmul_precision(),
        "backend": current_backend(),
        "interpreter": os.environ.get("TRITON_INTERPRET") == "1",
    }


def _wrong(checks: Iterable[Check]) -> Iterable[Finding]:
    for check in checks:
        if check.passed:
            continue
        about = f"{check.operator} on {check.place}"
        if check.error is None or check.gradient_error is None:
            yield Finding(f"{about} cannot be run: {check.failed}.", _REPORT)
            continue
        yield Finding(
            f"{about}, by {check.runs}, is wrong: its result is off by {check.error:.1e}, where "
            f"{check.bound:.0e} is taken, its gradients by {check.gradient_error:.1e}, where "
            f"{check.gradient_bound:.0e} is.",
            _REPORT,
        )


def _of_triton(fault: str | None, gpus: list[GPU], interpret: bool) -> Iterable[Finding]:
    if fault == "missing":
        yield Finding(
            "Triton is not installed, so that all operators run in PyTorch.",
            "On Linux, pip install 'sepfast[triton]' brings the kernels.",
        )
    elif fault:
        yield Finding(
            f"Triton is installed and cannot be imported ({fault}).",
            "Install again the one that PyTorch came with, pip install --force-reinstall torch; "
            "until then set sepfast.use_backend('reference').",
        )
    if fault and interpret:
        yield Finding(
            "The interpreter was asked for and takes Triton.",
            "Run it again when Triton can be imported.",
        )
    if gpus and os.environ.get("TRITON_INTERPRET") == "1":
        yield Finding(
            "TRITON_INTERPRET is 1 and there is a GPU: kernels are interpreted, at a crawl.",
            "Unset TRITON_INTERPRET.",
        )


def _of_gpus(gpus: list[GPU], driver: str | None) -> Iterable[Finding]:
    if not gpus and driver and not torch.version.cuda:
        yield Finding(
            f"There is a driver of NVIDIA ({driver}) and a PyTorch built for "
            f"{surroundings.torch_build()}.",
            "Install a PyTorch for CUDA, as https://pytorch.org/get-started has it.",
        )
    elif not gpus and driver:
        yield Finding(
            f"There is a driver of NVIDIA ({driver}), and PyTorch, built for "
            f"{surroundings.torch_build()}, sees no GPU.",
            "See whether nvidia-smi lists one that CUDA_VISIBLE_DEVICES does not hide, and whether "
            "the driver is new enough for this PyTorch.",
        )
    elif not gpus:
        yield Finding(
            "PyTorch sees no GPU, so that all operators run in PyTorch on the CPU.",
            "Nothing needs to be done; sepfast doctor --interpret runs the kernels without one.",
        )
    known = {target.name for target in TARGETS}
    for name in dict.fromkeys(gpu.architecture for gpu in gpus):
        if name not in known:
            yield Finding(
                f"Kernels are not compiled in advance for {name}, only for "
                f"{', '.join(sorted(known))}.",
                "Where an operator fails on it, set sepfast.use_backend('reference').",
            )


def _of_compilers(found: dict[str, str | None], for_triton: bool) -> Iterable[Finding]:
    if for_triton and not found["C"]:
        yield Finding(
            "There is no C compiler, with which Triton builds what launches kernels.",
            "Install gcc or set CC to a compiler.",
        )
    if not found["C++"]:
        yield Finding(
            "There is no C++ compiler, which torch.compile takes on the CPU.",
            "Install g++ or set CXX to a compiler.",
        )


def _of_caches(caches: Iterable[Folder]) -> Iterable[Finding]:
    variable = {"Triton": "TRITON_CACHE_DIR", "torch.compile": "TORCHINDUCTOR_CACHE_DIR"}
    for cache in caches:
        if not cache.writable:
            yield Finding(
                f"The cache of {cache.of} cannot be written ({cache.path}).",
                f"Set {variable.get(cache.of, 'XDG_CACHE_HOME')} to a folder that can.",
            )


def _of_packages() -> Iterable[Finding]:
    for name, least in surroundings.outdated().items():
        yield Finding(
            f"{name} {surroundings.version(name)} is older than sepfast takes.",
            f"pip install '{name}>={least}'.",
        )
