"""Audio files and songs with stems."""

from sepfast.data.audio import AudioReader, AudioWriter, read, write
from sepfast.data.resampling import resample
from sepfast.data.song_audio import SongAudio
from sepfast.data.songs import SOURCES, Song, Track, find_songs

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
