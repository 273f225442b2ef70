"""Audio files, songs with stems, and side information."""

from sepfast.data.audio import AudioReader, AudioWriter, read, write
from sepfast.data.resampling import resample
from sepfast.data.side_information import (
    SIDE_KINDS,
    SideInformation,
    read_side_information,
    side_information,
)
from sepfast.data.song_audio import SongAudio
from sepfast.data.songs import SOURCES, Song, Track, find_songs

__all__ = [
    "SIDE_KINDS",
    "SOURCES",
    "AudioReader",
    "AudioWriter",
    "SideInformation",
    "Song",
    "SongAudio",
    "Track",
    "find_songs",
    "read",
    "read_side_information",
    "resample",
    "side_information",
    "write",
]
