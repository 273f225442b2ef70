"""What several test files share: real music, and models with something to say."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from contract import PoisonedMemory
from speech_packages import Packages

from sepfast import create_model, ops, use_backend
from sepfast.data.audio import read
from sepfast.ops.accuracy import ACCURACY
from sepfast.packages import example_song
from sepfast.reference import stft_magnitude

# Without a GPU, kernels run in Triton's interpreter, which is chosen when Triton is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# A process runs kernels in the interpreter or on a GPU, as `kernel_device` has it.
DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


# Beside other processes with tests, several threads wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


def pytest_runtest_setup(item):
    """What is marked `gpu` needs one."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a GPU")


@pytest.fixture(scope="module")
def one_thread():
    """Models this small lose time to more threads, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """A folder in place of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def song_path():
    """A real recording with its stems: 6 s, stereo, 44.1 kHz."""
    return str(example_song())


@pytest.fixture(scope="session")
def mixture(song_path) -> np.ndarray:
    return read(song_path)[0]


@pytest.fixture(scope="session")
def stems(song_path) -> np.ndarray:
    """Vocals, drums, bass, other: (4, 2, samples)."""
    return np.stack([read(song_path, stream=i)[0] for i in (4, 1, 2, 3)])


@pytest.fixture(scope="session")
def stereo_model(mixture, stems):
    """System B with fresh weights and the real statistics of a song; not to be changed."""
    torch.manual_seed(0)
    model = create_model("deepconvsep-stereo").eval()
    waves = torch.from_numpy(np.concatenate([stems, mixture[None]]))
    magnitudes = stft_magnitude(waves, model.framing).flatten(0, 1)
    model.set_statistics(magnitudes.amin(1), magnitudes.amax(1))
    return model.requires_grad_(False)


@pytest.fixture
def packages(monkeypatch) -> Packages:
    """Stand-ins in place of the packages that score speech."""
    stand_in = Packages()
    for name, module in stand_in.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return stand_in


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def kernel_device(request) -> str:
    """Where kernels run: the CPU in the interpreter, or a GPU; a process has one of the two."""
    return require_kernels(request.param)


def require_kernels(device: str) -> str:
    """The device; skips the test where kernels cannot run on it."""
    pytest.importorskip("triton")
    if (device == "cpu") != (os.environ.get("TRITON_INTERPRET") == "1"):
        pytest.skip("kernels run in the interpreter or on a GPU, never both in one process")
    return device


class Place(NamedTuple):
    """An implementation of the operators, and what it runs on.

    Attributes:
        device: of the tensors.
        dtype: likewise; float64 is for PyTorch, float32 for kernels.
    """

    device: str
    dtype: torch.dtype

    def put(self, x: torch.Tensor) -> torch.Tensor:
        """A tensor for it."""
        return x.detach().to(self.device, self.dtype)

    def bound(self, operator: str, stage: str = "forward") -> float:
        """What an operator's relative error stays below."""
        if self.dtype == torch.float64:
            return 1e-12
        # The interpreter takes every product in float32.
        cpu = self.device == "cpu"
        demand = "highest" if cpu else torch.get_float32_matmul_precision()
        return getattr(ACCURACY[operator][demand], stage)


@contextmanager
def _knobs_kept() -> Iterator[None]:
    """One thread, for small tensors on a busy machine; and the knobs as they were behind."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


@contextmanager
def kernels_on(device: str) -> Iterator[Place]:
    """Operators run kernels, whose results are NaN before and lie between guards."""
    memory = PoisonedMemory()
    with pytest.MonkeyPatch.context() as patch, use_backend("triton"), _knobs_kept():
        patch.setattr("sepfast.kernels.launch.empty", memory)
        yield Place(device, torch.float32)
    assert memory.guards_hold()


@pytest.fixture
def kernels(kernel_device) -> Iterator[Place]:
    """Operators run kernels."""
    with kernels_on(kernel_device) as place:
        yield place


@pytest.fixture(params=["reference", "kernels", pytest.param("cuda", marks=pytest.mark.gpu)])
def place(request) -> Iterator[Place]:
    """Operators run PyTorch in float64, then kernels in float32."""
    if request.param == "reference":
        with use_backend("reference"), _knobs_kept():
            yield Place("cpu", torch.float64)
    else:
        device = require_kernels("cuda" if request.param == "cuda" else "cpu")
        with kernels_on(device) as made:
            yield made


@pytest.fixture
def launched(monkeypatch, kernel_device):
    """The names of the kernels that run; operators run kernels in here, and nothing else."""
    from sepfast.kernels import launch

    names, plain = [], launch.Kernel.launch

    def spy(kernel, *args, **options):
        names.append(kernel.name)
        return plain(kernel, *args, **options)

    monkeypatch.setattr(launch.Kernel, "launch", spy)
    with use_backend("triton"):
        yield names


@pytest.fixture
def called(monkeypatch):
    """The names of the pairs' operators that fused layers call."""
    names = []

    def spy(name, plain):
        def run(*args):
            names.append(name)
            return plain(*args)

        return run

    for name in ("conv_pair", "deconv_pair"):
        monkeypatch.setattr(ops, name, spy(name, getattr(ops, name)))
    return names


@pytest.fixture
def ranges(monkeypatch):
    """The names of ranges, in order, as the package `nvtx` is given them."""
    names = []

    @contextmanager
    def annotate(name, domain):
        assert domain == "sepfast"
        names.append(name)
        yield

    nvtx = SimpleNamespace(annotate=annotate, __spec__=ModuleSpec("nvtx", None))
    monkeypatch.setitem(sys.modules, "nvtx", nvtx)
    yield names
    ops.enable_ranges(False)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Numbers of a float32 normal distribution, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).double()


def assert_near(out: torch.Tensor, true: torch.Tensor, bound: float) -> None:
    """Equal shapes, and |out - true| <= bound |true|."""
    assert out.shape == true.shape
    out, true = out.detach().cpu().double(), true.detach().cpu().double()
    assert float((out - true).norm()) <= bound * float(true.norm())


def relative_error(out: torch.Tensor, true: torch.Tensor) -> float:
    """|out - true| / |true|, in float64."""
    return float((out.double() - true.double()).norm() / true.double().norm())
