"""The scores of each song in a file of its own, from which scoring is taken up where it ended."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sepfast.data.songs import Song
from sepfast.evaluation.report import song_from_plain, song_to_plain
from sepfast.evaluation.score import SongScores
from sepfast.evaluation.written import plain, write_json

_FORMAT = "sepfast-song-scores"


@dataclass(frozen=True)
class KeptScores:
    """Scores of songs in `folder/SONG.json`, or `folder/SPLIT/SONG.json` where there are splits.

    Attributes:
        folder: where they are.
        window: seconds of a frame.
        hop: seconds from one frame to the next.
        made_by: what the estimates are of.
    """

    folder: Path
    window: float
    hop: float
    made_by: str

    def write(self, song: Song, scores: SongScores) -> None:
        """Keep a song's scores.

        Raises:
            InputError: where the file cannot be written.
        """
        content = {**self._head(), "song": song_to_plain(scores)}
        write_json(song.file_in(self.folder, ".json"), content, indent=None)

    def read(self, song: Song) -> SongScores | None:
        """A song's scores; None where there are none, or they were made otherwise."""
        try:
            content = json.loads(song.file_in(self.folder, ".json").read_text(encoding="utf-8"))
            if {key: content[key] for key in self._head()} != self._head():
                return None
            return song_from_plain(content["song"])
        except (OSError, KeyError, TypeError, ValueError, AttributeError):
            return None

    def _head(self) -> dict[str, Any]:
        settings = {"window": self.window, "hop": self.hop, "made_by": self.made_by}
        head: dict[str, Any] = plain({"format": _FORMAT, "version": 1, "settings": settings})
        return head
