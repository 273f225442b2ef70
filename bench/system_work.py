"""The work model of the systems: a training step of DeepConvSep, and a separation with it.

Counts as in `work.py`, made of the operators' of `network_work.py`; what PyTorch runs between them
is counted as if its tiles were whole.
"""

from __future__ import annotations

from collections.abc import Iterator

from sepfast.bench import work
from sepfast.bench.network_work import (
    Layers,
    Stage,
    conv_pair,
    conv_pair_gradient,
    horizontal_deconv_gradient,
    linear_loss_gradient,
    overlap_decode,
    stage,
    total,
)
from sepfast.bench.work import Work
from sepfast.bench.workloads import Network, Workload
from sepfast.reference import Framing

_FLOAT = 4

#: Elements that Adadelta has to read and write for each weight: it, its gradient, two averages; of
#: its gradient nothing but what the backward hands over. And operations.
_LEAST_UPDATE, _UPDATE = 6, 12
#: What PyTorch's reads and writes: 11 functions of lists of tensors, one behind the other.
_MOVED_UPDATE = 27


def parameters(network: Network, sources: int, bins: int) -> int:
    """Weights of a DeepConvSep."""
    n, width = network, network.n2 * network.reach
    filters = n.n1 * n.channels * bins + n.n2 * n.n1 * n.span
    encoder, decoder = filters + n.n1 + n.n2, filters + n.n1 + n.channels
    expand = n.units * width + width
    return encoder + width * n.units + n.units + sources * (expand + decoder)


def training_step(batch: int, sources: int, bins: int, network: Network, precision: str) -> Work:
    """Forward, backward and Adadelta, of a batch of contexts.

    At least mixture and targets are read once, and weights and their two averages read and
    written: gradients and all between might stay in the cache.
    """
    encoder = Layers(batch, 1, network.context, bins, network, precision)
    decoder = Layers(batch, sources, network.context, bins, network, precision)
    weights = parameters(network, sources, bins)
    stages = [
        conv_pair_gradient(encoder),
        horizontal_deconv_gradient(decoder),
        linear_loss_gradient(decoder),
    ]
    update = Stage(
        _FLOAT * _MOVED_UPDATE * weights,
        _FLOAT * _MOVED_UPDATE * weights,
        _UPDATE * weights,
        _UPDATE * weights,
    )
    return total(
        encoder.image + decoder.image + _FLOAT * _LEAST_UPDATE * weights,
        *map(stage, stages),
        *_linear_layers(batch, sources, network, gradient=True),
        update,
    )


def separation(shape: Workload, songs: int, precision: str, *, compact: bool) -> Work:
    """Samples of songs to their stems.

    At least samples and weights are read and stems written. Each frame is transformed once, and
    each source's back.

    Args:
        shape: of one song.
        songs: how many.
        precision: `input_precision` of the products.
        compact: whether shares are float16 in between.
    """
    n, framing = shape.network, shape.framing
    contexts = n.contexts(shape.frames)
    frames = (contexts - 1) * n.step + n.context
    line = _FLOAT * shape.rows * shape.samples
    encoder = Layers(1, 1, frames, framing.bins, n, precision)
    decoder = Layers(contexts, shape.sources, n.context, framing.bins, n, precision)
    fades = _FLOAT * contexts * n.context
    parts = (
        work.stft_magnitude(shape.rows, shape.samples, framing),
        conv_pair(encoder),
        overlap_decode(decoder, fades, n.step, compact=compact),
        _masked_istft(shape, framing, precision, compact),
    )
    once = total(
        0,
        *map(stage, parts),
        *_linear_layers(contexts, shape.sources, n, gradient=False),
    )
    weights = _FLOAT * parameters(n, shape.sources, framing.bins)
    transforms = shape.rows * shape.frames * work.dft_operations(framing.n_fft)
    return Work(
        songs * (line + shape.sources * line) + weights,
        songs * once.moved,
        songs * once.requested,
        # The mixture's spectrum need not be taken twice.
        songs * (once.needed - transforms),
        songs * once.performed,
    )


def _masked_istft(shape: Workload, framing: Framing, precision: str, compact: bool) -> Work:
    tiling = work.shipped_tiling(
        "sepfast_masked_istft_forward", n_fft=framing.n_fft, levels="gain", precision=precision
    )
    done = work.masked_istft(shape.rows, shape.sources, shape.samples, framing, tiling)
    levels = _FLOAT * shape.rows * shape.sources * shape.frames * framing.bins
    saved = levels // 2 if compact else 0  # walks read some of it twice: that is left aside
    return Work(
        done.least - saved, done.moved - saved, done.requested - saved, done.needed, done.performed
    )


def _linear_layers(
    batch: int, sources: int, network: Network, *, gradient: bool
) -> Iterator[Stage]:
    """The bottleneck and the layers behind it, by cuBLAS: as if tiles were whole."""
    width = network.n2 * network.reach
    for inner, outer in ((width, network.units), (network.units, sources * width)):
        moved = _FLOAT * (batch * (inner + outer) + inner * outer + outer)
        operations = 2 * batch * inner * outer
        times = 3 if gradient else 1  # the gradients of its input and of its weight
        yield Stage(times * moved, times * moved, times * operations, times * operations)
