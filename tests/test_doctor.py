"""`sepfast doctor`: that it tells all, tells what is wrong, and tells nothing about the person."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sepfast import doctor as doctor_module
from sepfast import ops, reference, surroundings, use_backend
from sepfast.cli.app import _app
from sepfast.doctor import examine, tuned_for
from sepfast.kernels.tuning import shipped_kernels
from sepfast.ops.backend import kernel_runs, noted_decisions
from sepfast.selfcheck import check_in_interpreter, check_operators
from sepfast.surroundings import GPU, commit_of

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
OPERATORS = sorted(name for name in ops.__all__ if hasattr(reference, name))
PARTS = ["versions", "packages", "system", "gpus", "settings", "compilers", "caches", "tuned"]
PARTS += ["checks", "findings", "passed"]


def doctor(*arguments):
    return CliRunner().invoke(_app(), ["doctor", "--device", "cpu", *arguments])


@pytest.fixture
def secret(monkeypatch, tmp_path) -> str:
    """The name of a user whose home folder has it too."""
    name = "ann-example"
    home = tmp_path / name
    home.mkdir()
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(home))
    for variable in ("LOGNAME", "USER"):
        monkeypatch.setenv(variable, name)
    for variable in ("XDG_CACHE_HOME", "TRITON_CACHE_DIR", "TRITON_HOME", "CC"):
        monkeypatch.delenv(variable, raising=False)
    return name


@pytest.fixture
def unchecked(monkeypatch):
    """No operator is run: what is looked at is something else."""
    monkeypatch.setattr(doctor_module, "check_operators", lambda device: [])


def test_as_json_it_has_everything_and_every_operator_once(secret):
    done = doctor("--json")
    found = json.loads(done.output)
    assert done.exit_code == 0
    assert found["passed"]
    assert list(found) == PARTS
    assert [check["operator"] for check in found["checks"]] == OPERATORS
    assert all(check["passed"] and check["error"] <= check["bound"] for check in found["checks"])
    assert all("'auto' runs PyTorch" in check["why_not"] for check in found["checks"])
    assert found["versions"]["torch"] == torch.__version__
    assert found["settings"] == {
        "device": "cpu",
        "precision": "highest",
        "backend": "auto",
        "interpreter": os.environ.get("TRITON_INTERPRET") == "1",
    }
    assert "~/.triton/cache" in [cache["path"].replace("\\", "/") for cache in found["caches"]]
    assert secret not in done.output


def test_as_text_it_names_neither_the_person_nor_their_folders(secret, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", f"/data/{secret}/cache_{secret}")
    done = doctor()
    assert done.exit_code == 0
    assert secret not in done.output
    assert "/data/USER/cache_USER" in done.output
    assert "16 checks, 0 failed" in done.output
    assert not re.search("[\u2500-\u257f]", done.output)  # no boxes
    for name in OPERATORS:
        assert len(re.findall(rf"^{name} ", done.output, re.MULTILINE)) == 1


def test_a_home_folder_that_is_in_the_path_of_the_real_one_is_left_out_whole(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: "/home/ann")
    monkeypatch.setattr(os.path, "realpath", lambda path: "/data/home/ann")
    for path in ("/data/home/ann/env", "/home/ann/env"):
        assert surroundings.anonymous(path) == "~/env"
    assert surroundings.anonymous("/home/anna/env") == "/home/anna/env"


def test_checks_leave_the_random_numbers_as_they_are():
    before = torch.get_rng_state()
    check_operators(CPU, ["soft_mask"])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_wrong_operator_fails_and_is_named(monkeypatch):
    right = ops.soft_mask
    monkeypatch.setattr(ops, "soft_mask", lambda *given: right(*given) * (1 + 1e-6))
    done = doctor("--json")
    found = json.loads(done.output)
    assert done.exit_code == 1
    assert [c["operator"] for c in found["checks"] if not c["passed"]] == ["soft_mask"]
    assert found["findings"][0]["what"].startswith("soft_mask on cpu, by PyTorch, is wrong")


def test_nan_is_wrong_and_the_json_stays_json(monkeypatch):
    right = ops.soft_mask
    monkeypatch.setattr(ops, "soft_mask", lambda *given: right(*given) * torch.nan)
    done = doctor("--json")

    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads(done.output, parse_constant=refuse)
    assert done.exit_code == 1
    assert {c["error"] for c in found["checks"] if not c["passed"]} == {"nan"}


def test_nan_in_any_gradient_is_wrong(monkeypatch):
    right = ops.conv_pair

    def with_nan(x, vertical, *rest):
        vertical.register_hook(lambda grad: grad * torch.nan)
        return right(x, vertical, *rest)

    monkeypatch.setattr(ops, "conv_pair", with_nan)
    (check,) = check_operators(CPU, ["conv_pair"])
    assert check.error <= check.bound
    assert not check.passed


@pytest.mark.parametrize("fault", [RuntimeError("no such thing\nat all"), ImportError("triton")])
def test_an_operator_that_raises_fails_and_the_others_are_checked(monkeypatch, fault):
    def broken(*given):
        raise fault

    monkeypatch.setattr(ops, "stft", broken)
    checks = {each.operator: each for each in check_operators(CPU, ["stft", "soft_mask"])}
    assert checks["soft_mask"].passed
    assert not checks["stft"].passed
    assert checks["stft"].failed == f"{type(fault).__name__}: {str(fault).splitlines()[0]}"


def test_a_wrong_kernel_fails(kernel_device, monkeypatch):
    from sepfast.kernels import soft_mask as kernels

    device = torch.device(kernel_device)
    with use_backend("triton"):
        (check,) = check_operators(device, ["soft_mask"])
        assert (check.passed, check.runs, check.why_not) == (True, "kernels", "")
        right = kernels.soft_mask
        monkeypatch.setattr(kernels, "soft_mask", lambda *given: right(*given).nan_to_num() + 1e-3)
        (check,) = check_operators(device, ["soft_mask"])
    assert not check.passed
    assert check.error > 1e-4


def test_the_interpreter_runs_kernels_in_a_process_of_its_own():
    pytest.importorskip("triton")
    checks = check_in_interpreter(["stft", "soft_mask"])
    assert [check.operator for check in checks] == ["soft_mask", "stft"]
    for check in checks:
        assert (check.place, check.runs, check.passed) == ("interpreter", "kernels", True), check


def test_an_interpreter_that_fails_fails_every_operator(unchecked, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    found = examine(CPU, interpret=True)
    checks = found.checks
    assert not found.passed
    assert [check.operator for check in checks] == OPERATORS
    assert not any(check.passed for check in checks)
    assert "/nowhere/python" in checks[0].failed


def test_why_pytorch_runs_is_what_the_dispatch_says():
    gpu = torch.device("cuda")
    with noted_decisions() as outer, noted_decisions() as inner:
        kernel_runs("stft", gpu, "as it is Sunday")
        kernel_runs("stft", CPU, None)
        with use_backend("reference"):
            kernel_runs("stft", gpu, None)
    kernel_runs("stft", gpu, "as nobody listens")
    assert outer == inner
    assert [each.obstacle for each in inner] == [
        "as it is Sunday",
        "as the backend 'auto' runs PyTorch on tensors on cpu",
        "as the backend is 'reference'",
    ]


def test_decisions_go_to_those_who_still_listen():
    with noted_decisions() as outer:
        with noted_decisions() as inner:
            pass
        kernel_runs("stft", CPU, None)
    assert (len(outer), len(inner)) == (1, 0)


def test_missing_and_old_packages_are_told(unchecked, monkeypatch):
    installed = surroundings.version
    gone = {"soxr": None, "numpy": "1.9", "torch": "2.11"}
    monkeypatch.setattr(surroundings, "version", lambda name: gone.get(name, installed(name)))
    monkeypatch.setitem(sys.modules, "triton", None)
    found = examine(CPU)
    missing = {each.name: each.needed_for for each in found.packages if each.version is None}
    assert "sample rates" in missing["soxr"]
    whats = [finding.what for finding in found.findings]
    assert "numpy 1.9 is older than sepfast takes." in whats
    assert not any("torch 2.11" in what for what in whats)
    assert "Triton is not installed, so that all operators run in PyTorch." in whats
    assert all(finding.advice.endswith(".") for finding in found.findings)


@pytest.mark.parametrize(
    "fault",
    [
        subprocess.TimeoutExpired("nvidia-smi", 10),
        subprocess.CalledProcessError(9, "nvidia-smi"),
        PermissionError("nvidia-smi"),
    ],
)
def test_a_driver_that_does_not_answer_is_none(monkeypatch, fault):
    def broken(*given, **options):
        raise fault

    monkeypatch.setattr(surroundings.shutil, "which", lambda name: name)
    monkeypatch.setattr(surroundings.subprocess, "run", broken)
    assert surroundings.driver() is None


def test_a_compiler_that_is_named_and_not_there_is_missing(monkeypatch):
    """Triton takes what CC names, and no other."""
    there = {"gcc": "/usr/bin/gcc", "clang": "/usr/bin/clang"}
    monkeypatch.setattr(surroundings.shutil, "which", there.get)
    monkeypatch.setenv("CC", "/nowhere/cc")
    assert surroundings.compilers()["C"] is None
    monkeypatch.delenv("CC")
    assert surroundings.compilers()["C"] == "/usr/bin/gcc"


def test_every_package_that_can_be_installed_says_what_for():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(x for e in extras if e != "test" for x in extras[e])]
    names = {re.match(r"[\w-]+", line)[0] for line in lines}
    assert names <= {"torch", "numpy", *surroundings.NEEDED_FOR}


def test_a_triton_that_cannot_be_imported_is_told(unchecked, monkeypatch, tmp_path):
    package = tmp_path / "triton"
    package.mkdir()
    (package / "__init__.py").write_text("raise OSError('libtriton.so: no such file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    # What was imported comes back afterwards, with all its parts.
    for name in [name for name in sys.modules if name.split(".")[0] == "triton"]:
        monkeypatch.delitem(sys.modules, name)
    found = examine(CPU, interpret=True)
    assert "(OSError: libtriton.so: no such file)" in found.findings[0].what
    assert found.checks == []


def test_what_is_in_the_way_of_a_gpu_is_told(unchecked, monkeypatch, tmp_path):
    gpus = [GPU("an old one", "cuda:61", 2**33), GPU("one of theirs", "cuda:90", 2**37)]
    monkeypatch.setattr(surroundings, "gpus", lambda: gpus)
    monkeypatch.setattr(surroundings, "triton_fault", lambda: None)
    monkeypatch.setattr(surroundings, "compilers", lambda: {"C": None, "C++": None})
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "file" / "cache"))
    found = examine(CPU)
    whats = "\n".join(finding.what for finding in found.findings)
    for what in ("TRITON_INTERPRET is 1", "for cuda:61", "no C compiler", "no C++", "of Triton c"):
        assert what in whats
    assert "for cuda:90" not in whats
    assert list(found.tuned) == ["cuda:61", "cuda:90"]


@pytest.mark.parametrize(
    ("driver", "cuda", "what"),
    [
        (None, None, "PyTorch sees no GPU"),
        ("550", None, "for the CPU alone"),
        ("550", "12", "sees"),
    ],
)
def test_why_there_is_no_gpu_is_told(unchecked, monkeypatch, driver, cuda, what):
    monkeypatch.setattr(surroundings, "gpus", list)
    monkeypatch.setattr(surroundings, "driver", lambda: driver)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None)
    whats = [finding.what for finding in examine(CPU).findings]
    assert len([each for each in whats if "GPU" in each or "driver" in each]) == 1
    assert what in whats[0]


def test_a_gpu_that_cannot_be_started_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert surroundings.gpus() == []


def test_every_kernel_is_tuned_in_one_way_for_a_gpu():
    for architecture in ("cuda:90", "hip:gfx1100", "cuda:61"):
        kinds = tuned_for(architecture)
        assert sorted(name for names in kinds.values() for name in names) == shipped_kernels()
    assert tuned_for("cuda:61")["own"] == []
    assert "sepfast_stft_forward" in tuned_for("cuda:61")["general"]
    assert "sepfast_stft_forward" in tuned_for("metal")["none"]


def test_the_commit_is_that_of_a_checkout_that_keeps_the_file(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", *identity, "-C", str(tmp_path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    kept, other = tmp_path / "kept.py", tmp_path / "other.py"
    kept.touch()
    other.touch()
    commit_of.cache_clear()
    assert commit_of(kept) is None
    git("init")
    git("add", "kept.py")
    git("commit", "-m", "one")
    commit = git("rev-parse", "HEAD")
    commit_of.cache_clear()
    assert commit_of(kept) == commit
    assert commit_of(other) is None  # as what is installed inside of somebody's project
    kept.write_text("changed")
    commit_of.cache_clear()
    assert commit_of(kept) == f"{commit}-dirty"
    monkeypatch.setenv("PATH", "")
    commit_of.cache_clear()
    assert commit_of(kept) is None
    commit_of.cache_clear()
