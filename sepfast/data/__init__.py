"""Audio files and songs with stems."""

from sepfast.data.audio import AudioReader, AudioWriter, read, resample, write
from sepfast.data.songs import SOURCES, Song, SongAudio, Track, find_songs

__all__ = [
    "SOURCES",
    "AudioReader",
    "AudioWriter",
    "Song",
    "SongAudio",
    "Track",
    "find_songs",
    "read",
    "resample",
    "write",
]
