"""The scores of one separated song."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sepfast.errors import InputError
from sepfast.metrics import Floats, Mode, SilenceEnergy, bss_eval, eps, pes, song_median

#: BSS Eval's scores, in the order of tables and figures; more is better.
METRICS = ("sdr", "isr", "sir", "sar")
#: Those of them that cannot always be trusted, see `SongScores.trusted`.
DOUBTFUL = ("sir", "sar")
#: The energies at silence; less is better.
SILENCE = ("pes", "eps")


@dataclass(frozen=True)
class SourceScores:
    """The scores of one source of a song.

    Attributes:
        frames: each of `METRICS` over the song's frames, (N,) in dB, NaN where there is none.
        silent: frames in which the source's own reference or estimate is silent.
        pes: predicted energy at silence.
        eps: energy at predicted silence.
    """

    frames: Mapping[str, Floats]
    silent: int
    pes: SilenceEnergy
    eps: SilenceEnergy

    @property
    def medians(self) -> dict[str, float]:
        """The song's own scores: the median of each metric over its frames, in dB."""
        return {metric: float(song_median(self.frames[metric])) for metric in METRICS}

    @property
    def sdr(self) -> float:
        """Source to distortion ratio, median over frames."""
        return self.medians["sdr"]

    @property
    def isr(self) -> float:
        """Image to spatial distortion ratio, median over frames."""
        return self.medians["isr"]

    @property
    def sir(self) -> float:
        """Source to interference ratio, median over frames; mind the song's `trusted`."""
        return self.medians["sir"]

    @property
    def sar(self) -> float:
        """Sources to artifacts ratio, median over frames; mind the song's `trusted`."""
        return self.medians["sar"]


@dataclass(frozen=True)
class SongScores:
    """The scores of a song.

    Attributes:
        name: the song.
        sources: its sources, in the order of the references.
        window: length of a frame in seconds.
        hop: seconds from one frame to the next.
        conditioning: of the references, see `sepfast.metrics.conditioning`.
        trusted: whether SIR and SAR can be trusted, see `sepfast.metrics.trustworthy`.
    """

    name: str
    sources: Mapping[str, SourceScores]
    window: float
    hop: float
    conditioning: float
    trusted: bool


def score_song(
    name: str,
    references: Mapping[str, np.ndarray],
    estimates: Mapping[str, np.ndarray],
    sample_rate: int,
    *,
    window: float = 1.0,
    hop: float = 1.0,
    mode: Mode = "v4",
) -> SongScores:
    """Score the separated sources of a song against the true ones.

    Estimates are scored as they are: never scaled, shifted, padded or cut.

    Args:
        name: what the song is called in reports.
        references: source -> (channels, samples) floats, all of one shape.
        estimates: the same sources, in any order, in that shape.
        sample_rate: samples a second, of both.
        window: length of a frame in seconds; `math.inf` scores the song as one frame.
        hop: seconds from one frame to the next.
        mode: how BSS Eval fits its filters, see `sepfast.metrics.bss_eval`.

    Raises:
        InputError: for sources, channels or lengths that differ, or samples that are no finite
            floats; the message names the song and the source.
    """
    _check_sources(name, references, estimates)
    pairs = {s: (np.asarray(references[s]), np.asarray(estimates[s])) for s in references}
    _check_shapes(name, pairs)
    true, guess = (np.stack([pair[side] for pair in pairs.values()]) for side in (0, 1))
    try:
        scores = bss_eval(true, guess, sample_rate, window=window, hop=hop, mode=mode)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    sources = {}
    for j, source in enumerate(pairs):
        frames = {metric: getattr(scores, metric)[j] for metric in METRICS}
        energies = [
            measure(true[j], guess[j], sample_rate, window=window, hop=hop)
            for measure in (pes, eps)
        ]
        sources[source] = SourceScores(frames, int(scores.silent[j]), *energies)
    return SongScores(name, sources, window, hop, scores.conditioning, scores.trusted)


def _check_sources(name: str, references: Mapping[str, Any], estimates: Mapping[str, Any]) -> None:
    if not references:
        raise InputError(f"{name}: has no references, takes at least one")
    missing = [source for source in references if source not in estimates]
    if missing:
        raise InputError(f"{name}: has no estimate of {', '.join(missing)}")
    extra = [source for source in estimates if source not in references]
    if extra:
        raise InputError(f"{name}: has no reference of {', '.join(extra)}")


def _check_shapes(name: str, pairs: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """All references of one (channels, samples), and each estimate of its reference's."""
    shape = next(iter(pairs.values()))[0].shape
    if len(shape) != 2:
        raise InputError(f"{name}: references have shape {shape}, takes (channels, samples)")
    for source, pair in pairs.items():
        for kind, waveform in zip(("reference", "estimate"), pair, strict=True):
            if waveform.shape != shape:
                raise InputError(
                    f"{name}: the {kind} of {source} has {_extent(waveform.shape)}, "
                    f"takes {_extent(shape)}"
                )


def _extent(shape: tuple[int, ...]) -> str:
    if len(shape) != 2:
        return f"shape {shape}"
    return f"{shape[0]} channel{'s' * (shape[0] != 1)} of {shape[1]} samples"
