"""The six workloads that operators are measured in: shapes of real uses, from five systems.

song            A song of 240 s at 44.1 kHz in stereo, separated: system B.
song-mono       The same in mono, with contexts of 30 frames that overlap in 25: system A.
training        A batch of 32 contexts of 30 frames, four sources: B's training.
style-transfer  A batch of 32 times 2 s at 16 kHz, frames of 2048 at a hop of 16: system E.
fragments       A batch of 128 fragments of 256 frames with side information: system C.
landmarks       A batch of 32 times 3 s at 16 kHz, 302 frames: system D.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sepfast.reference import FRAMINGS, Framing
from sepfast.separation.fades import context_count


@dataclass(frozen=True)
class Network:
    """Sizes of a DeepConvSep, by default those of the stereo one.

    Attributes:
        channels: that it hears.
        context: frames that it sees at once, T.
        step: frames from one context to the next in separation.
        span: frames that a horizontal filter spans, t2.
        n1: vertical filters.
        n2: horizontal filters.
        units: width of the bottleneck.
    """

    channels: int = 2
    context: int = 30
    step: int = 15
    span: int = 15
    n1: int = 50
    n2: int = 30
    units: int = 128

    @property
    def reach(self) -> int:
        """Frames of a context's codes, T'."""
        return self.context - self.span + 1

    def contexts(self, frames: int) -> int:
        """Contexts that cover so many frames."""
        return context_count(frames, self.context, self.context - self.step)


@dataclass(frozen=True)
class Workload:
    """The shapes of one use.

    Attributes:
        rows: channels, or batch and channels where there is one.
        samples: of a row.
        framing: how they become frames.
        sources: sources that they are separated into.
        network: what they go through.
    """

    rows: int
    samples: int
    framing: Framing
    sources: int = 1
    network: Network = Network()

    @property
    def frames(self) -> int:
        """Frames of a row."""
        return self.framing.frames(self.samples)

    @property
    def batch(self) -> int:
        """Lines of all the network's channels."""
        return self.rows // self.network.channels


#: By the names that cases begin with.
WORKLOADS: Mapping[str, Workload] = {
    "song": Workload(2, 240 * 44100, FRAMINGS["deepconvsep"], 4),
    "song-mono": Workload(1, 240 * 44100, FRAMINGS["deepconvsep"], 4, Network(channels=1, step=5)),
    "training": Workload(32 * 2, 28 * 256, FRAMINGS["deepconvsep"], 4),  # 30 frames
    "style-transfer": Workload(32, 2 * 16000, FRAMINGS["style-transfer"]),
    "fragments": Workload(128, 131_584, FRAMINGS["informed"]),  # 256 frames
    "landmarks": Workload(32, 3 * 16000, FRAMINGS["landmarks"]),
}
