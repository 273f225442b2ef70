"""Which implementation runs: chosen for a block or from now on, and what cannot be chosen."""

import os
import subprocess
import sys

import pytest
import torch

from sepfast import InputError, use_backend
from sepfast.ops import backend
from sepfast.ops.backend import kernel_runs

CPU, GPU, META = map(torch.device, ("cpu", "cuda", "meta"))


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setattr(backend, "_current", "auto")


def _chosen():
    return backend._current


def test_blocks_nest():
    with use_backend("reference"):
        with use_backend("triton"):
            assert _chosen() == "triton"
            with use_backend("auto"):
                assert _chosen() == "auto"
            assert _chosen() == "triton"
        assert _chosen() == "reference"
    assert _chosen() == "auto"


def test_an_error_ends_a_block_too():
    with pytest.raises(ZeroDivisionError), use_backend("triton"):
        1 / 0  # noqa: B018
    assert _chosen() == "auto"


def test_called_without_a_block_it_stays():
    use_backend("reference")
    assert _chosen() == "reference"
    with use_backend("triton"):
        use_backend("auto")
        assert _chosen() == "auto"
    assert _chosen() == "reference"


@pytest.mark.parametrize("name", ["cuda", "Triton", "", None])
def test_another_name_is_refused_and_changes_nothing(name):
    use_backend("reference")
    with pytest.raises(InputError) as refusal:
        use_backend(name)
    assert str(refusal.value) == f"backend: got {name!r}, takes auto, triton, reference"
    assert _chosen() == "reference"


def test_auto_runs_kernels_on_gpus_where_there_are_some(monkeypatch):
    monkeypatch.setattr(backend, "_has_triton", lambda: True)
    assert kernel_runs("op", GPU, None)
    assert not kernel_runs("op", GPU, "as it is Sunday")
    assert not kernel_runs("op", CPU, None)
    assert not kernel_runs("op", META, None)
    monkeypatch.setattr(backend, "_has_triton", lambda: False)
    assert not kernel_runs("op", GPU, None)


def test_the_reference_runs_no_kernel(monkeypatch):
    monkeypatch.setattr(backend, "_has_triton", lambda: True)
    use_backend("reference")
    assert not kernel_runs("op", GPU, None)


def test_demanded_kernels_run_or_say_why_not(monkeypatch):
    monkeypatch.setattr(backend, "_has_triton", lambda: True)
    use_backend("triton")
    assert kernel_runs("op", GPU, None)
    assert "as it is Sunday" in _refusal(GPU, "as it is Sunday")
    assert "as there are no kernels for meta tensors" in _refusal(META, None)
    monkeypatch.setattr(backend, "_has_triton", lambda: False)
    assert "as Triton is not installed" in _refusal(GPU, None)


def _refusal(device, obstacle):
    with pytest.raises(InputError, match=r"^op: backend 'triton' cannot run it, as ") as refusal:
        kernel_runs("op", device, obstacle)
    return str(refusal.value)


_PROGRAM = """
import torch, sepfast
with sepfast.use_backend("triton"):
    try:
        x = torch.randn(600, requires_grad=True)
        y = sepfast.ops.stft_magnitude(x, sepfast.reference.Framing(256, 100, "hamming"))
        y.sum().backward()
        from sepfast.kernels.stft_magnitude import FORWARD
        print(type(FORWARD.function).__name__, bool(x.grad.any()))
    except sepfast.InputError as error:
        print(error)
"""


def _fresh_process(program, **environment):
    pytest.importorskip("triton")
    known = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=known | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_interpreter_starts_by_itself_for_cpu_tensors():
    assert _fresh_process(_PROGRAM) == "InterpretedFunction True"


def test_triton_imported_without_the_interpreter_is_one_sentence():
    assert _fresh_process("import triton\n" + _PROGRAM) == (
        "stft_magnitude: backend 'triton' cannot run it, as CPU tensors need Triton's "
        "interpreter: set TRITON_INTERPRET=1 before Triton is imported"
    )


def test_triton_imported_with_the_interpreter_runs():
    program = "import triton\n" + _PROGRAM
    assert _fresh_process(program, TRITON_INTERPRET="1") == "InterpretedFunction True"
