"""Training examples of system E: snippets of mixtures and of clean sounds, in batches.

B examples a batch, S samples of each at 16 kHz. A worker reads and mixes; the spectrograms are made
where the model is.

Every batch follows from its key (seed, epoch, item) alone.
Source: E (Venkataramani et al. 2019), section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sepfast.data.clips import Clip, Floats, SnippetDraw
from sepfast.data.duets import at_equal_power
from sepfast.data.style_transfer import Part, Role
from sepfast.errors import InputError
from sepfast.files import PathLike

#: First numbers of seeds, which set apart what is drawn for different ends. What is drawn without
#: a seed, for validation, has numbers of its own.
_MIXTURES, _CLEAN, _FIXED_MIXTURES, _FIXED_CLEAN = 7, 8, 9, 10


class MixedSnippet(NamedTuple):
    """A snippet of a mixture.

    Attributes:
        waveforms: (2, S), the mixture and its target; the target is zeros where it is not known.
        clips: what was read for it.
    """

    waveforms: Floats
    clips: tuple[Clip, ...]


class SnippetPool:
    """Snippets of some recordings at random.

    Of targets and interferers mixtures are made: a speaker of either at random, an utterance of
    each, a snippet of each, at 0 dB. Where there are mixtures, they are taken as they are, each as
    likely, from any sample on. Snippets of nothing but silence are drawn again.

    Args:
        parts: mixtures, or targets and interferers; and clean sounds, if such are to be drawn.
        samples: S.
        cache_dir: where decoded audio is kept; None for the user's cache.

    Attributes:
        paired: whether the target of every mixture is known.
        has_clean: whether clean sounds can be drawn.

    Raises:
        InputError: where there is nothing to make mixtures of, or `samples` is below 1.
    """

    def __init__(
        self, parts: Sequence[Part], samples: int, cache_dir: PathLike | None = None
    ) -> None:
        self.samples, self.cache_dir = samples, cache_dir
        groups = _groups(parts)
        self._made = "mixture" not in groups
        if self._made and not groups.keys() >= {"target", "interferer"}:
            raise InputError(
                f"parts: got {' and '.join(groups) or 'none'}, takes mixtures, or targets and "
                "interferers"
            )
        self._draws = {
            role: SnippetDraw(list(spoken.values()), samples, cache_dir)
            for role, spoken in groups.items()
        }
        self._targets = _targets(groups)
        self.paired = self._made or len(self._targets) == len(groups["mixture"])
        self.has_clean = "clean" in groups

    def mixture(self, random: np.random.Generator) -> Floats:
        """A mixture and its target, (2, S); the target is zeros where it is not known.

        Raises:
            InputError: where a file cannot be decoded, or a hundred snippets in a row are silent.
        """
        return self.draw_mixture(random).waveforms

    def clean(self, random: np.random.Generator) -> Floats:
        """A clean sound, (S,).

        Raises:
            InputError: where there are no clean sounds, and as of mixtures.
        """
        return self.draw_clean(random)[0]

    def draw_mixture(self, random: np.random.Generator, *, target: bool = True) -> MixedSnippet:
        """As `mixture`, and what was read for it.

        Args:
            random: what is drawn with.
            target: whether the target is wanted; without, a mixture's own file alone is read.
        """
        if self._made:
            heard, other = (self._draws[role].draw(random) for role in ("target", "interferer"))
            waveforms = at_equal_power(heard.waveform, other.waveform)[:2]
            return MixedSnippet(waveforms, (heard.clip, other.clip))
        drawn = self._draws["mixture"].draw(random)
        known = self._targets.get(drawn.clip.key) if target else None
        if known is None:
            waveforms = np.stack([drawn.waveform, np.zeros_like(drawn.waveform)])
            return MixedSnippet(waveforms, (drawn.clip,))
        waveforms = np.stack(
            [drawn.waveform, known.read(drawn.start, self.samples, self.cache_dir)]
        )
        return MixedSnippet(waveforms, (drawn.clip, known))

    def draw_clean(self, random: np.random.Generator) -> tuple[Floats, Clip]:
        """As `clean`, and the recording that it is of."""
        if not self.has_clean:
            raise InputError("parts: got no clean ones, takes at least one where they are drawn")
        drawn = self._draws["clean"].draw(random)
        return drawn.waveform, drawn.clip


def _groups(parts: Sequence[Part]) -> dict[Role, dict[str, list[Clip]]]:
    """The recordings in each role, speaker by speaker."""
    groups: dict[Role, dict[str, list[Clip]]] = {}
    for part in parts:
        groups.setdefault(part.role, {}).setdefault(part.speaker, []).append(part.clip)
    return groups


def _targets(groups: Mapping[Role, Mapping[str, Sequence[Clip]]]) -> dict[str, Clip]:
    """The clean target of each mixture by the mixture's key, where one of its name is as long."""
    mixtures, clean = groups.get("mixture", {}), groups.get("clean", {})
    pairs = ((mixtures[name][0], clean[name][0]) for name in mixtures.keys() & clean.keys())
    return {
        mixture.key: target
        for mixture, target in pairs
        if abs(mixture.samples - target.samples) <= 1  # two rates are rounded apart
    }


class StyleTransferExamples(Dataset[tuple[Tensor, Tensor]]):
    """Mixtures and clean sounds in batches, drawn anew in every epoch.

    `examples[epoch, item]` is mixtures (B, S) and clean sounds (B, S), float32. An epoch has as
    many items as are asked for. The mixtures of a key are the same, paired or not.

    Args:
        pool: what is drawn from.
        batch_size: B.
        seed: of all draws, 0 or more. None: the same batches in every epoch, for validation.
        paired: whether the clean sounds are the mixtures' own targets, or drawn for themselves.

    Raises:
        InputError: for a batch of nothing, targets that are wanted and not known, or clean sounds
            that are wanted and not there.
    """

    def __init__(self, pool: SnippetPool, batch_size: int, seed: int | None, paired: bool) -> None:
        if batch_size < 1 or (seed or 0) < 0:
            raise InputError(f"batch_size, seed: got {batch_size}, {seed}, take at least 1 and 0")
        if paired and not pool.paired:
            raise InputError("pool: holds mixtures whose targets are not known, takes paired ones")
        if not paired and not pool.has_clean:
            raise InputError("pool: holds no clean sounds, takes some where they are not paired")
        self.pool, self.batch_size, self.seed, self.paired = pool, batch_size, seed, paired

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """A batch by its epoch and item.

        Raises:
            InputError: where a file cannot be read, or nothing but silence is drawn.
        """
        mixtures, clean, _ = self._drawn(*key)
        return torch.from_numpy(np.stack(mixtures)), torch.from_numpy(np.stack(clean))

    def drawn(self, epoch: int, item: int) -> list[Clip]:
        """The recordings in a batch, each once; they are read again, since silence is left out."""
        return list(dict.fromkeys(self._drawn(epoch, item)[2]))

    def names(self, epoch: int, item: int) -> list[str]:
        """The keys of the recordings in a batch, each once."""
        return [clip.key for clip in self.drawn(epoch, item)]

    def _drawn(self, epoch: int, item: int) -> tuple[list[Floats], list[Floats], list[Clip]]:
        """Mixtures, clean sounds, and what was read for them."""
        rows = range(self.batch_size)
        random, other = self._random(epoch, item)
        mixed = [self.pool.draw_mixture(random, target=self.paired) for _ in rows]
        clips = [clip for each in mixed for clip in each.clips]
        mixtures = [each.waveforms[0] for each in mixed]
        if self.paired:
            return mixtures, [each.waveforms[1] for each in mixed], clips
        clean = [self.pool.draw_clean(other) for _ in rows]
        return mixtures, [waveform for waveform, _ in clean], clips + [clip for _, clip in clean]

    def _random(self, epoch: int, item: int) -> tuple[np.random.Generator, np.random.Generator]:
        """What mixtures and what clean sounds are drawn with."""
        if self.seed is None:
            seeds = [(_FIXED_MIXTURES, item), (_FIXED_CLEAN, item)]
            return np.random.default_rng(seeds[0]), np.random.default_rng(seeds[1])
        mixtures, clean = ((end, self.seed, epoch, item) for end in (_MIXTURES, _CLEAN))
        return np.random.default_rng(mixtures), np.random.default_rng(clean)
