"""What each operator has to have, told by the files alone: rooms, tables, tuned data, a page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

#: Room -> the file that it has for an operator.
ROOMS = {
    "reference": "reference/{}.py",
    "kernels": "kernels/{}.py",
    "sepfast/ops": "sepfast/ops/{}.py",
    "tests": "tests/test_{}.py",
    "bench": "bench/bench_{}.py",
    "docs/operators": "docs/operators/{}.md",
}
#: Operators that share the files of another name.
SHARED = {
    "conv_pair": "convpair",
    "deconv_pair": "convpair",
    "horizontal_deconv": "convpair",
    "istft": "stft",
}
#: Rooms of `sepfast/ops` that hand on no operator, or one by the name of another.
_HELPERS = ("backend", "ranges", "deconvpair")
#: File -> what there is in it for an operator.
TABLES = {
    "reference/__init__.py": r'^    "{}",$',
    "sepfast/ops/__init__.py": r'^    "{}",$',
    "sepfast/ops/accuracy.py": r'^    "{}": ',
    "tests/contract_cases.py": r'"{}"',
    "docs/operators/README.md": r"\({}\.md\)",
}


def missing(root: Path) -> list[str]:
    """What is not there, a line each.

    Args:
        root: of the source tree.
    """
    return [*_rooms(root), *_kernels(root), *_benchmarks(root), *_rules(root)]


def operators(root: Path) -> list[str]:
    """The operators that `sepfast/ops` defines or hands on, but for gradients."""
    texts = (path.read_text() for path in sorted((root / "sepfast/ops").glob("*.py")))
    names = {name for text in texts for name in re.findall(r'^    f?"(\w+)\(', text, re.M)}
    handed = _text(root, "sepfast/ops/__init__.py")
    imports = re.findall(r"^from sepfast\.ops\.(\w+) import", handed, re.M)
    names |= {name for name in imports if name not in (*_HELPERS, *SHARED.values())}
    return sorted(name for name in names if not name.endswith("_backward"))


def _rooms(root: Path) -> Iterator[str]:
    for name in operators(root):
        for file in ROOMS.values():
            places = [file.format(each) for each in dict.fromkeys((name, SHARED.get(name, name)))]
            if not any((root / place).is_file() for place in places):
                yield f"{name}: no {places[0]}"
        for file, line in TABLES.items():
            if not re.search(line.replace("{}", name), _text(root, file), re.M):
                yield f"{name}: not in {file}"


def _kernels(root: Path) -> Iterator[str]:
    """Rooms of the catalog, and configurations and a job of tuning for each kernel."""
    listed, jobs = _text(root, "kernels/_catalog.py"), _tuned_by(root)
    known = set()
    for path in sorted((root / "kernels").glob("*.py")):
        text = path.read_text()
        if re.search(r"^KERNELS\b", text, re.M) and f'"{path.stem}",' not in listed:
            yield f"kernels/{path.name}: not in kernels/_catalog.py"
        for name in re.findall(r"^def (sepfast_\w+)\(", text, re.M):
            known.add(name)
            if not (root / f"kernels/tuned/{name}.json").is_file():
                yield f"{name}: no kernels/tuned/{name}.json"
            if not re.search(rf"\b{_operator_of(name)}", jobs):
                yield f"{name}: nothing in bench to tune it on"
    for path in sorted((root / "kernels/tuned").glob("*.json")):
        if path.stem not in known:
            yield f"{path.stem}: configurations, but no kernel"


def _operator_of(kernel: str) -> str:
    return kernel.removeprefix("sepfast_").rsplit("_", 1)[0]


def _tuned_by(root: Path) -> str:
    """All text of the benchmarks that tune."""
    files = ("tuning_jobs", "network_jobs", "attention", "normalising", "recurrent")
    return "".join(_text(root, f"bench/{name}.py") for name in files)


def _benchmarks(root: Path) -> Iterator[str]:
    """Cases, by the operators that benchmarks of the bench are of."""
    texts = [path.read_text() for path in (root / "bench").glob("*.py")]
    cases = "".join(text for text in texts if "Case(" in text)
    for name in operators(root):
        if f'"{name}"' not in cases:
            yield f"{name}: no case in bench"


def _rules(root: Path) -> Iterator[str]:
    """Fused layers, which the registry and `sepfast.modules` hand on."""
    handed, registry = (_text(root, f"sepfast/modules/{n}.py") for n in ("__init__", "registry"))
    for path in sorted((root / "sepfast/modules").glob("*.py")):
        if not re.search(r"^RULES\b", path.read_text(), re.M) or path.stem == "registry":
            continue
        if f"*{path.stem}.RULES" not in registry or f"    {path.stem},\n" not in registry:
            yield f"sepfast/modules/{path.name}: not in sepfast/modules/registry.py"
        classes = [node.name for node in ast.parse(path.read_text()).body if _is_class(node)]
        if not any(f'"{name}"' in handed for name in classes):
            yield f"sepfast/modules/{path.name}: not in sepfast/modules/__init__.py"
    for name in re.findall(r"^    \*(\w+)\.RULES", registry, re.M):
        if not (root / f"sepfast/modules/{name}.py").is_file():
            yield f"sepfast/modules/registry.py: no sepfast/modules/{name}.py"


def _is_class(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef)


def _text(root: Path, file: str) -> str:
    path = root / file
    return path.read_text() if path.is_file() else ""
