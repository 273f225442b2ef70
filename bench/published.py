"""B's published separation program in its own manner, as a yardstick for numbers and for speed.

Frame by frame through numpy in float64, contexts in batches of five through the network in
float32, masks by division, contexts laid over each other one at a time, the inverse again frame by
frame. Two things of it are left as they are: the frames behind its last context stay silent, and
0 / 0 gives NaN.
Source: B, sections 5.2 and 6, and the program's published steps.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from sepfast.reference import DeepConvSep

_N_FFT, _HOP, _BATCH = 1024, 256, 5


def separate(model: DeepConvSep, mixture: np.ndarray, overlap: int = 15) -> np.ndarray:
    """Separate as the published program does.

    Args:
        model: a stereo model with its statistics.
        mixture: (2, samples) at the model's rate.
        overlap: frames that neighbouring contexts share.

    Returns:
        (4, 2, samples) in float64; silent some frames behind `covered_samples`.
    """
    spectra = np.stack([_forward(channel) for channel in mixture])  # (2, frames, 513)
    minimum, maximum = (s.double().numpy()[:, None] for s in (model.minimum, model.maximum))
    scaled = (np.abs(spectra) - minimum[8:]) / (maximum[8:] - minimum[8:])
    starts = _starts(scaled.shape[1], model.context, overlap)
    contexts = np.stack([scaled[:, s : s + model.context] for s in starts])
    masked = np.concatenate(
        [_masked(model, contexts[k : k + _BATCH]) for k in range(0, len(contexts), _BATCH)]
    )  # (contexts, 8, T, 513)
    masked = masked * (maximum[:8] - minimum[:8]) + minimum[:8]
    magnitudes = _lay_over(masked, overlap)[:, : scaled.shape[1]]
    phase = np.tile(np.angle(spectra), (4, 1, 1))[:, : magnitudes.shape[1]]
    waves = [_inverse(m * np.exp(1j * p)) for m, p in zip(magnitudes, phase, strict=True)]
    return np.stack(waves)[:, : mixture.shape[-1]].reshape(4, 2, -1)


def covered_samples(samples: int, context: int = 30, overlap: int = 15) -> int:
    """Samples of a track that lie under no frame but those of the program's contexts."""
    starts = _starts(math.ceil(samples / _HOP) + 2, context, overlap)
    return (starts[-1] + context) * _HOP - _N_FFT // 2 if starts else 0


def _starts(frames: int, context: int, overlap: int) -> list[int]:
    return list(range(0, max(0, frames - context), context - overlap))


def _forward(wave: np.ndarray) -> np.ndarray:
    """Spectra (frames, 513) of one channel."""
    frames = math.ceil(len(wave) / _HOP) + 2
    line = np.zeros((frames - 1) * _HOP + _N_FFT)
    line[_N_FFT // 2 : _N_FFT // 2 + len(wave)] = wave
    window = np.hanning(_N_FFT)
    out = np.zeros((frames, _N_FFT // 2 + 1), complex)
    for t in range(frames):
        out[t] = np.fft.rfft(window * line[t * _HOP : t * _HOP + _N_FFT], norm="ortho")
    return out


def _masked(model: DeepConvSep, contexts: np.ndarray) -> np.ndarray:
    """Masked mixtures (k, 8, T, 513) of scaled contexts (k, 2, T, 513)."""
    with torch.no_grad():
        estimates = model(torch.from_numpy(contexts).to(model.minimum.dtype)).numpy()
    sources = estimates.reshape(len(contexts), 4, 2, *estimates.shape[2:])
    masks = sources[:, :3] / sources.sum(1, keepdims=True)
    masks = np.concatenate([masks, 1 - masks.sum(1, keepdims=True)], axis=1)
    return (contexts[:, None] * masks).reshape(estimates.shape)


def _lay_over(contexts: np.ndarray, overlap: int) -> np.ndarray:
    """Cross-fade (k, 8, T, 513) one after the other: (8, frames, 513)."""
    count, rows, length, bins = contexts.shape
    step = length - overlap
    line = np.zeros((rows, count * step + length, bins))
    rise = np.linspace(0, 1, overlap)[:, None]
    for k, context in enumerate(contexts):
        old = line[:, k * step : k * step + length]
        if k == 0:
            old[:] = context
            continue
        old[:, overlap:] = context[:, overlap:]
        old[:, :overlap] = rise[::-1] * old[:, :overlap] + rise * context[:, :overlap]
    return line


def _inverse(spectra: np.ndarray) -> np.ndarray:
    """Samples of (frames, 513), the first half window dropped."""
    frames = len(spectra)
    line, weight = np.zeros((2, (frames - 1) * _HOP + _N_FFT))
    window = np.hanning(_N_FFT)
    for t in range(frames):
        place = slice(t * _HOP, t * _HOP + _N_FFT)
        line[place] += window * np.fft.irfft(spectra[t], _N_FFT, norm="ortho")
        weight[place] += window**2
    weight[weight == 0] = 1
    return (line / weight)[_N_FFT // 2 :]
