"""What several test files share: real music, and models with something to say."""

import os

import numpy as np
import pytest
import torch

from sepfast import create_model
from sepfast.data.audio import read
from sepfast.reference import stft_magnitude

# Without a GPU, kernels run in Triton's interpreter, which is chosen when Triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def song_path():
    """A real recording with its stems: 6 s, stereo, 44.1 kHz."""
    import stempeg

    return stempeg.example_stem_path()


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


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def kernel_device(request) -> str:
    """Where kernels run: the CPU in the interpreter, or a GPU; a process has one of the two."""
    return require_kernels(request.param)


def require_kernels(device: str) -> str:
    """The device; skips the test where kernels cannot run on it."""
    pytest.importorskip("triton")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    if (device == "cpu") != (os.environ.get("TRITON_INTERPRET") == "1"):
        pytest.skip("kernels run in the interpreter or on a GPU, never both in one process")
    return device


def relative_error(out: torch.Tensor, true: torch.Tensor) -> float:
    """|out - true| / |true|, in float64."""
    return float((out.double() - true.double()).norm() / true.double().norm())
