"""The STFT of real samples and its inverse by weighted overlap-add, with their transposes.

T frames, L samples a frame, B bins, N = n_fft, w the window, s the framing's scale.

    X[t, k] = s * sum_n w[n] x[t * hop + n] exp(-2 pi i k n / N)
    y[m]    = sum_t w[m - t hop] * irfft(X[t] / s)[m - t hop] / sum_t w[m - t hop]^2

Both are linear, so each backward is the transpose. With c_k = 1 at 0 Hz and Nyquist and 2
elsewhere, irfft(X)[n] = 1/N * sum_k c_k Re(X_k exp(2 pi i k n / N)); hence the transpose of rfft
is N * irfft(G / c) and that of irfft is c / N * rfft(g).

Complex values are a last axis of two, (real, imaginary), here and in every operator. Frames are
taken in blocks (`frame_blocks.py`), so that all of them are never in memory at once.
Source: the "STFT" rows of the papers; Griffin and Lim 1984 for the inverse.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sepfast.errors import InputError
from sepfast.reference.frame_blocks import Make, of_frames, overlap_added
from sepfast.reference.framing import Framing
from sepfast.reference.half_types import widened
from sepfast.reference.overlap_add import overlapping, squared_window_sum


def stft(waveform: Tensor, framing: Framing) -> Tensor:
    """The spectrum of every frame.

    Args:
        waveform: (..., samples), any float type; half types are transformed in float32.
        framing: the framing; its rule gives the number of frames.

    Returns:
        (..., frames, bins, 2) in the type of `waveform`.
    """
    make, frames = spectra(waveform, framing), framing.frames(waveform.shape[-1])
    size = waveform.shape[:-1].numel() * framing.span
    return of_frames(make, frames, size, -3, waveform)


def stft_backward(grad: Tensor, framing: Framing, samples: int) -> Tensor:
    """The gradient of `stft` with respect to its samples.

    Args:
        grad: (..., frames, bins, 2).
        framing: as in the forward.
        samples: length of the forward's waveform.

    Returns:
        (..., samples) in the type of `grad`.
    """
    line = spectra_backward(lambda at: grad[..., at, :, :], framing, grad.shape[:-2], grad)
    return fit(line[..., framing.front :], samples).to(grad.dtype)


def istft(spectrum: Tensor, framing: Framing, length: int) -> Tensor:
    """The samples whose frames are nearest to a spectrum.

    Args:
        spectrum: (..., frames, bins, 2).
        framing: the framing of the spectrum.
        length: samples to return; the tail that no frame reaches is 0.

    Returns:
        (..., length) in the type of `spectrum`.

    Raises:
        InputError: for a window and hop that cannot be inverted, or a wrong number of bins.
    """
    framing.check_invertible()
    if spectrum.shape[-2:] != (framing.bins, 2):
        raise InputError(
            f"spectrum: got shape {tuple(spectrum.shape)}, takes (..., frames, {framing.bins}, 2)"
        )
    return samples_of(
        lambda at: spectrum[..., at, :, :], framing, spectrum.shape[:-2], length, spectrum
    )


def istft_backward(grad: Tensor, framing: Framing, frames: int) -> Tensor:
    """The gradient of `istft` with respect to its spectrum.

    Args:
        grad: (..., length).
        framing: as in the forward.
        frames: frames of the forward's spectrum.

    Returns:
        (..., frames, bins, 2) in the type of `grad`.
    """
    make = samples_of_backward(grad, framing, frames)
    return of_frames(make, frames, grad.shape[:-1].numel() * framing.span, -3, grad)


def spectra(waveform: Tensor, framing: Framing) -> Make:
    """The spectra (..., T, B, 2) of a slice of the frames of samples (..., samples)."""
    x = widened(waveform)
    frames = overlapping(_pad(x, framing), framing.span, framing.hop)  # (..., T, L)
    window = framing.window_on(x) * framing.scale
    return lambda at: _rfft(frames[..., at, :] * window, framing).to(waveform.dtype)


def spectra_backward(make: Make, framing: Framing, shape: torch.Size, *inputs: Tensor) -> Tensor:
    """The gradient of the padded line that `spectra` frames.

    Args:
        make: gives the gradients (..., T, B, 2) of the spectra of a slice of frames.
        framing: the framing.
        shape: (..., T).
        *inputs: what `make` reads.
    """
    like = widened(inputs[0])
    weights = _bin_weights(framing, like)[:, None]
    window = framing.window_on(like) * (framing.scale * framing.n_fft)

    def frames(at: slice) -> Tensor:
        return _irfft(widened(make(at)) / weights, framing) * window

    return overlap_added(frames, shape[-1], shape[:-1].numel() * framing.span, framing.hop, *inputs)


def samples_of(
    make: Make, framing: Framing, shape: torch.Size, length: int, *inputs: Tensor
) -> Tensor:
    """The samples whose frames are nearest to spectra.

    Args:
        make: gives the spectra (..., T, B, 2) of a slice of frames.
        framing: the framing.
        shape: (..., T).
        length: samples to return.
        *inputs: what `make` reads; the first has the type of the samples.

    Returns:
        (..., length).
    """
    like = widened(inputs[0])
    window = framing.window_on(like)
    scaled = window / framing.scale

    def frames(at: slice) -> Tensor:
        return _irfft(widened(make(at)), framing) * scaled

    size = shape[:-1].numel() * framing.span
    line = overlap_added(frames, shape[-1], size, framing.hop, *inputs)
    if line.shape[-1]:
        line /= squared_window_sum(window, shape[-1], framing.hop)
    return fit(line[..., framing.front :], length).to(inputs[0].dtype)


def samples_of_backward(grad: Tensor, framing: Framing, frames: int) -> Make:
    """The gradient (..., T, B, 2) of a slice of the spectra that `samples_of` had."""
    g = widened(grad)
    window = framing.window_on(g)
    line = fit(F.pad(g, (framing.front, 0)), framing.covered(frames))
    if frames:
        line = line / squared_window_sum(window, frames, framing.hop)
    pieces = overlapping(line, framing.span, framing.hop)
    weights = _bin_weights(framing, g)[:, None] / (framing.n_fft * framing.scale)
    return lambda at: (_rfft(pieces[..., at, :] * window, framing) * weights).to(grad.dtype)


def magnitude(spectrum: Tensor) -> Tensor:
    """|X| of a spectrum (..., 2): (...). Its gradient at 0 is 0."""
    return as_complex(widened(spectrum)).abs().to(spectrum.dtype)


def as_complex(spectrum: Tensor) -> Tensor:
    """(..., 2) as complex numbers (...): a view, or a copy where the memory does not allow one."""
    pairs = spectrum.contiguous()
    # A view needs pairs that begin at an even place of their memory; a slice may not have that.
    return torch.view_as_complex(pairs.clone() if pairs.storage_offset() % 2 else pairs)


class STFT(nn.Module):
    """`stft` as a layer.

    Args:
        framing: the framing.

    Example:
        >>> import torch
        >>> STFT(Framing(16, 4))(torch.rand(2, 40)).shape
        torch.Size([2, 10, 9, 2])
    """

    def __init__(self, framing: Framing) -> None:
        super().__init__()
        self.framing = framing

    def forward(self, waveform: Tensor) -> Tensor:
        """The spectrum (..., frames, bins, 2) of samples (..., samples)."""
        return stft(waveform, self.framing)

    def extra_repr(self) -> str:
        """The options, for `print(model)`."""
        return repr(self.framing)


class ISTFT(nn.Module):
    """`istft` as a layer.

    Args:
        framing: the framing of the spectra.

    Example:
        >>> import torch
        >>> framing, x = Framing(16, 4, front=12), torch.rand(2, 40)
        >>> torch.allclose(ISTFT(framing)(STFT(framing)(x), 40), x, atol=1e-5)
        True
    """

    def __init__(self, framing: Framing) -> None:
        super().__init__()
        self.framing = framing

    def forward(self, spectrum: Tensor, length: int) -> Tensor:
        """The samples (..., length) of spectra (..., frames, bins, 2)."""
        return istft(spectrum, self.framing, length)

    def extra_repr(self) -> str:
        """The options, for `print(model)`."""
        return repr(self.framing)


def _rfft(frames: Tensor, framing: Framing) -> Tensor:
    """Windowed frames (..., T, L) to (..., T, B, 2); FFT libraries refuse empty batches."""
    if frames.numel() == 0:
        return frames.new_zeros(*frames.shape[:-1], framing.bins, 2)
    return torch.view_as_real(torch.fft.rfft(frames, n=framing.n_fft))


def _irfft(spectrum: Tensor, framing: Framing) -> Tensor:
    """Spectra (..., T, B, 2) to frames (..., T, L) before their window."""
    if spectrum.numel() == 0:
        return spectrum.new_zeros(*spectrum.shape[:-2], framing.span)
    frames = torch.fft.irfft(as_complex(spectrum), n=framing.n_fft)
    return frames[..., : framing.span]


def _bin_weights(framing: Framing, like: Tensor) -> Tensor:
    """c_k: 1 for bins that are their own mirror image, 2 for the others, (B,)."""
    weights = like.new_full((framing.bins,), 2.0)
    weights[0] = 1
    if framing.n_fft % 2 == 0:
        weights[-1] = 1
    return weights


def _pad(x: Tensor, framing: Framing) -> Tensor:
    """Zeros in front and behind, so that the frames end where the line ends."""
    samples = x.shape[-1]
    total = framing.covered(framing.frames(samples))
    # Cut apart from the padding, as the frames may end within the zeros in front.
    return F.pad(x, (framing.front, max(0, total - framing.front - samples)))[..., :total]


def fit(line: Tensor, length: int) -> Tensor:
    """The first `length` samples, zeros behind where there are fewer."""
    return F.pad(line, (0, length - line.shape[-1]))
