"""Audio files, songs with stems, side information, and talkers with their faces."""

from sepfast.data.audio import AudioReader, AudioWriter, read, write
from sepfast.data.landmarks import landmark_motion, read_landmarks
from sepfast.data.resampling import resample
from sepfast.data.side_information import (
    SIDE_KINDS,
    SideInformation,
    read_side_information,
    side_information,
)
from sepfast.data.side_line import SideLine, TrueLine
from sepfast.data.song_audio import SongAudio
from sepfast.data.songs import SOURCES, Song, Track, find_songs
from sepfast.data.talker_mixtures import (
    Mixture,
    draw_mixtures,
    mix,
    read_manifest,
    write_manifest,
)
from sepfast.data.talkers import (
    Split,
    Utterance,
    find_utterances,
    split_speakers,
    split_utterances,
)

__all__ = [
    "SIDE_KINDS",
    "SOURCES",
    "AudioReader",
    "AudioWriter",
    "Mixture",
    "SideInformation",
    "SideLine",
    "Song",
    "SongAudio",
    "Split",
    "Track",
    "TrueLine",
    "Utterance",
    "draw_mixtures",
    "find_songs",
    "find_utterances",
    "landmark_motion",
    "mix",
    "read",
    "read_landmarks",
    "read_manifest",
    "read_side_information",
    "resample",
    "side_information",
    "split_speakers",
    "split_utterances",
    "write",
    "write_manifest",
]
