"""The work model of DeepConvSep: its layers, its loss and its decoder.

B batch, S sources, C channels, T frames, F bins, N1 and N2 filters, t2 frames a horizontal filter
spans, T' = T - t2 + 1; K contexts; float32. Counts as in `work.py`. What ours does is a list of
stages, a kernel each, which read and write memory; `least` is of the whole operator, which between
its stages might keep all in the cache.

A tile of a matrix product, (ROWS, COLUMNS), loads DEPTH of both operands at a time: the left one is
requested once for each block of columns, the right one once for each block of rows. Neighbours read
either at the same time, so that both move once. Rows, columns and depth are performed in whole
tiles. What kernels sum up in shares, partial sums, is written and read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from sepfast.bench.work import PROCESSORS, Work, shipped_config
from sepfast.bench.workloads import Network

_FLOAT = 4

#: Rows up to which `kernels/_product.py`, which takes Triton to import, has tiles for few.
FEW_ROWS = 4096
#: Features up to which `kernels/overlap_decode.py` has tiles that take all.
FEW_FEATURES = 64

#: Operations of an estimate and source beside products: ReLU, sum, share, fade, sum of contexts.
_DECODED = 5
#: Operations of the loss and of its gradient, as `work.soft_mask_loss` has them.
_LOSS, _LOSS_GRADIENT = 25, 40


@dataclass(frozen=True)
class Stage:
    """A kernel, or a sum that PyTorch does.

    Attributes:
        moved: bytes, each input read and each output written once.
        requested: bytes that its programs load and store.
        needed: operations.
        performed: operations in whole tiles.
    """

    moved: int
    requested: int
    needed: int = 0
    performed: int = 0


@dataclass(frozen=True)
class Layers:
    """A convolution pair or its transposed twin, for all sources.

    Attributes:
        batch: B.
        sources: S, 1 for the encoder.
        frames: T.
        bins: F.
        network: the other sizes.
        precision: `input_precision` of the products.
    """

    batch: int
    sources: int
    frames: int
    bins: int
    network: Network
    precision: str

    @property
    def reach(self) -> int:
        """T'."""
        return self.frames - self.network.span + 1

    @property
    def image(self) -> int:
        """Bytes of (B, S, C, T, F)."""
        columns = self.network.channels * self.bins
        return _FLOAT * self.batch * self.sources * self.frames * columns

    @property
    def features(self) -> int:
        """Bytes of (B, S, T, N1)."""
        return _FLOAT * self.batch * self.sources * self.frames * self.network.n1

    @property
    def codes(self) -> int:
        """Bytes of (B, S, N2, T')."""
        return _FLOAT * self.batch * self.sources * self.reach * self.network.n2

    @property
    def vertical_weight(self) -> int:
        """Bytes of (S, N1, C, F)."""
        return _FLOAT * self.sources * self.network.n1 * self.network.channels * self.bins

    @property
    def horizontal_weight(self) -> int:
        """Bytes of (S, N2, N1, t2)."""
        n = self.network
        return _FLOAT * self.sources * n.n2 * n.n1 * n.span

    def weights(self, transposed: bool) -> int:
        """Bytes of both weights and their biases."""
        n = self.network
        biases = n.n1 + (n.channels if transposed else n.n2)
        return self.vertical_weight + self.horizontal_weight + _FLOAT * self.sources * biases

    def vertical(self) -> Stage:
        """Bins to features."""
        rows, n = self.batch * self.frames, self.network
        tile = self._tile("conv_pair_vertical", rows)
        return self._layer(
            tile, (rows, n.n1), n.channels * self.bins, self.sources,
            (self.image, self.vertical_weight, self.features),
            padded=n.channels * _whole(self.bins, tile["DEPTH"]),
        )  # fmt: skip

    def horizontal(self) -> Stage:
        """Features to codes; t2 rows of features lie in each row of the product."""
        rows, n = self.batch * self.reach, self.network
        return self._layer(
            self._tile("conv_pair_horizontal", rows), (rows, n.n2), n.span * n.n1, self.sources,
            (self.features, self.horizontal_weight, self.codes),
            loaded=_FLOAT * self.sources * rows * n.span * n.n1,
        )  # fmt: skip

    def horizontal_transposed(self) -> Stage:
        """Codes to features; where a filter reaches beyond the codes, nothing is loaded."""
        rows, n = self.batch * self.frames, self.network
        return self._layer(
            self._tile("deconv_pair_horizontal", rows), (rows, n.n1), n.n2 * n.span, self.sources,
            (self.codes, self.horizontal_weight, self.features),
            loaded=self.codes * n.span,
            needed=2 * self.sources * self.batch * self.reach * n.n2 * n.n1 * n.span,
        )  # fmt: skip

    def vertical_transposed(self) -> Stage:
        """Features to bins."""
        rows, n = self.batch * self.frames, self.network
        return self._layer(
            self._tile("deconv_pair_vertical", rows), (rows, self.bins), n.n1,
            self.sources * n.channels, (self.features, self.vertical_weight, self.image),
            loaded=self.features * n.channels,
        )  # fmt: skip

    def vertical_slope(self) -> Stage:
        """Features and bins to the gradient of the vertical weight."""
        rows, n = self.batch * self.frames, self.network
        return self._slope(
            self._tile("conv_pair_verticalslope", rows), (n.n1, self.bins), rows,
            self.sources * n.channels, (self.features, self.image, self.vertical_weight),
            loaded=(self.features * n.channels, self.image),
        )  # fmt: skip

    def horizontal_slope(self) -> Stage:
        """Codes and features to the gradient of the horizontal weight, a program each of t2."""
        rows, n = self.batch * self.reach, self.network
        return self._slope(
            self._tile("conv_pair_horizontalslope", rows), (n.n2, n.n1), rows,
            self.sources * n.span, (self.codes, self.features, self.horizontal_weight),
            loaded=(self.codes * n.span, self.features * self.reach * n.span // self.frames),
        )  # fmt: skip

    def _tile(self, kernel: str, rows: int) -> Mapping[str, int]:
        extent = "few" if rows <= FEW_ROWS else "many"
        return shipped_config(f"sepfast_{kernel}", precision=self.precision, rows=extent)

    def _layer(
        self,
        tile: Mapping[str, int],
        result: tuple[int, int],
        depth: int,
        planes: int,
        moved: tuple[int, int, int],
        *,
        loaded: int = 0,
        needed: int = 0,
        padded: int = 0,
    ) -> Stage:
        """`planes` products with a result of (rows, columns) each.

        Args:
            tile: ROWS, COLUMNS and DEPTH.
            result: rows and columns.
            depth: terms of each sum.
            planes: products.
            moved: bytes of what comes in, the weight, and what comes out.
            loaded: bytes that a block of columns loads of what comes in, where not each once.
            needed: operations, where not all terms count.
            padded: the depth in whole tiles, where it has parts.
        """
        (rows, columns), (come, weight, out) = result, moved
        high, wide = _blocks(rows, tile["ROWS"]), _blocks(columns, tile["COLUMNS"])
        tiles = planes * high * tile["ROWS"] * wide * tile["COLUMNS"]
        return Stage(
            come + weight + out,
            (loaded or come) * wide + weight * high + out,
            needed or 2 * planes * rows * columns * depth,
            2 * tiles * (padded or _whole(depth, tile["DEPTH"])),
        )

    def _slope(
        self,
        tile: Mapping[str, int],
        result: tuple[int, int],
        depth: int,
        planes: int,
        moved: tuple[int, int, int],
        *,
        loaded: tuple[int, int],
    ) -> Stage:
        """`planes` products that sum over rows, with the sum of their shares behind them."""
        (rows, columns), (left, right, out) = result, moved
        high, wide = _blocks(rows, tile["ROWS"]), _blocks(columns, tile["COLUMNS"])
        parts, share = shares(depth, tile["DEPTH"], planes * high * wide)
        summed = out * (2 * parts + 1) if parts > 1 else out
        tiles = planes * high * tile["ROWS"] * wide * tile["COLUMNS"]
        return Stage(
            left + right + summed,
            loaded[0] * wide + loaded[1] * high + summed,
            2 * planes * rows * columns * depth,
            2 * tiles * parts * share,
        )


def shares(length: int, block: int, programs: int) -> tuple[int, int]:
    """What `kernels.launch.shares`, which takes Triton to import, says on an H200."""
    wanted = max(1, 2 * PROCESSORS // max(1, programs))
    share = _blocks(_blocks(length, block), wanted) * block
    return _blocks(length, share), share


def conv_pair(layers: Layers) -> Work:
    """`conv_pair`."""
    least = layers.image + layers.weights(False) + layers.codes
    return total(least, layers.vertical(), layers.horizontal())


def conv_pair_gradient(layers: Layers) -> Work:
    """`conv_pair` and the gradients of its weights; what comes in, the mixture, has none."""
    forward, weights = conv_pair(layers), layers.weights(False)
    return total(
        forward.least + layers.codes + weights,
        stage(forward),
        layers.horizontal_transposed(),
        layers.vertical_slope(),
        layers.horizontal_slope(),
        _summed(layers.features),
        _summed(layers.codes),
    )


def deconv_pair_gradient(layers: Layers) -> Work:
    """`deconv_pair` and all its gradients."""
    weights = layers.weights(True)
    return total(
        2 * (layers.codes + weights + layers.image),
        layers.horizontal_transposed(),
        layers.vertical_transposed(),
        layers.vertical(),
        layers.horizontal(),
        layers.horizontal_slope(),
        layers.vertical_slope(),
        _summed(layers.features),
        _summed(layers.image),
    )


def horizontal_deconv_gradient(layers: Layers) -> Work:
    """`horizontal_deconv` and all its gradients."""
    weights = layers.horizontal_weight + _FLOAT * layers.sources * layers.network.n1
    return total(
        2 * (layers.codes + weights + layers.features),
        layers.horizontal_transposed(),
        layers.horizontal(),
        layers.horizontal_slope(),
        _summed(layers.features),
    )


def linear_loss_gradient(layers: Layers) -> Work:
    """`linear_soft_mask_loss` and its gradients.

    Needed are the product of the estimates and those of the two gradients; performed are the
    estimates in each of three kernels, as they are never stored.
    """
    n = layers.network
    sizes = layers.image // _FLOAT, n.channels * layers.bins  # of all estimates, of a row's
    weight = layers.vertical_weight + _FLOAT * layers.sources * n.channels
    given = layers.features + weight + layers.image + layers.image // layers.sources
    stages = [_loss_stage(layers, name) for name in ("forward", "features", "weights")]
    done = total(given + layers.features + weight, *stages)
    needed = 3 * 2 * n.n1 * sizes[0] + _LOSS_GRADIENT * sizes[0]
    return Work(done.least, done.moved, done.requested, needed, done.performed)


def _loss_stage(layers: Layers, name: str) -> Stage:
    """One of the loss's three kernels, with the sum of its shares behind it."""
    n, sources = layers.network, layers.sources
    padded = 1 << (sources - 1).bit_length()
    kernel = f"sepfast_linear_soft_mask_loss_{name}"
    tile = shipped_config(kernel, precision=layers.precision, sources=padded)
    rows = layers.batch * layers.frames
    high, wide = _blocks(rows, tile["ROWS"]), n.channels * _blocks(layers.bins, tile["BINS"])
    tiles = high * tile["ROWS"] * wide * tile["BINS"]
    terms = padded * tiles * (_LOSS if name == "forward" else _LOSS_GRADIENT)
    images = layers.image + layers.image // sources  # targets and mixture
    # A tile reads all features of its rows and all weights of its bins.
    loaded = images + layers.features * wide + layers.vertical_weight * high
    given = images + layers.features + layers.vertical_weight
    estimates = 2 * sources * tiles * _whole(n.n1, tile["STEP"])
    if name == "forward":
        return Stage(given, loaded, 0, estimates + terms)
    # Every block of filters takes the estimates again, and reads its operand once more.
    steps = _blocks(n.n1, tile["FILTERS"])
    gradient = 2 * sources * tiles * tile["FILTERS"]
    if name == "features":
        out, blocks, owned = layers.features, wide, high * steps
        operand = layers.vertical_weight * high
    else:
        out, blocks, owned = layers.vertical_weight, high, wide * steps
        operand = layers.features * wide
    splits, _ = shares(blocks, 1, owned)
    summed = out * (2 * splits + 1)
    return Stage(
        given + summed,
        loaded * steps + operand + summed,
        0,
        steps * (estimates + terms + gradient),
    )


def overlap_decode(layers: Layers, fades: int, step: int, *, compact: bool = False) -> Work:
    """`overlap_decode` of contexts as a batch.

    Args:
        layers: the decoder's; a batch of contexts.
        fades: bytes of the fades.
        step: frames from one context to the next.
        compact: whether shares are float16.
    """
    n, contexts = layers.network, layers.batch
    columns, frames = n.channels * layers.bins, (contexts - 1) * step + layers.frames
    out = (_FLOAT // 2 if compact else _FLOAT) * layers.sources * frames * columns
    tile = shipped_config(
        "sepfast_overlap_decode_forward",
        precision=layers.precision,
        sources=max(2, 1 << (layers.sources - 1).bit_length()),
        features="few" if n.n1 <= FEW_FEATURES else "many",
    )
    high, wide = _blocks(frames, tile["ROWS"]), _blocks(columns, tile["BINS"])
    covering = _blocks(layers.frames, step)  # contexts that a frame lies in
    again = 1 if tile["HELD"] else covering
    estimates = layers.sources * contexts * layers.frames * columns
    tiles = layers.sources * high * tile["ROWS"] * wide * tile["BINS"] * covering
    decode = Stage(
        layers.features + layers.vertical_weight + fades + out,
        (layers.features + fades) * wide + layers.vertical_weight * high * again + out,
        (2 * n.n1 + _DECODED) * estimates,
        (2 * _whole(n.n1, tile["FEATURES"]) + _DECODED) * tiles,
    )
    least = layers.codes + layers.weights(True) + fades + out
    return total(least, layers.horizontal_transposed(), decode)


def total(least: int, *stages: Stage) -> Work:
    """Stages one behind the other, of which the whole has to move so much."""
    return Work(
        least,
        sum(stage.moved for stage in stages),
        sum(stage.requested for stage in stages),
        sum(stage.needed for stage in stages),
        sum(stage.performed for stage in stages),
    )


def stage(done: Work) -> Stage:
    """A whole operator as a stage of something larger."""
    return Stage(done.moved, done.requested, done.needed, done.performed)


def _summed(bytes_: int) -> Stage:
    """A sum over so many bytes, as the gradient of a bias is; its result is next to nothing."""
    return Stage(bytes_, bytes_, bytes_ // _FLOAT, bytes_ // _FLOAT)


def _blocks(length: int, block: int) -> int:
    return ceil(length / block)


def _whole(length: int, block: int) -> int:
    """A length in whole blocks."""
    return _blocks(length, block) * block
