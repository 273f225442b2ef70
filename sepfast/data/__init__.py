"""Audio files, songs with stems, side information, talkers with their faces, and TIMIT."""

from sepfast.data.audio import AudioReader, AudioWriter, read, write
from sepfast.data.clips import Clip
from sepfast.data.duets import Duet, draw_duets, read_duets, write_duets
from sepfast.data.landmarks import landmark_motion, read_landmarks
from sepfast.data.pairs import Pair, find_pairs
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
from sepfast.data.style_transfer import Part, StyleTransferParts, find_parts
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
from sepfast.data.timit import TimitUtterance, find_timit

__all__ = [
    "SIDE_KINDS",
    "SOURCES",
    "AudioReader",
    "AudioWriter",
    "Clip",
    "Duet",
    "Mixture",
    "Pair",
    "Part",
    "SideInformation",
    "SideLine",
    "Song",
    "SongAudio",
    "Split",
    "StyleTransferParts",
    "TimitUtterance",
    "Track",
    "TrueLine",
    "Utterance",
    "draw_duets",
    "draw_mixtures",
    "find_pairs",
    "find_parts",
    "find_songs",
    "find_timit",
    "find_utterances",
    "landmark_motion",
    "mix",
    "read",
    "read_duets",
    "read_landmarks",
    "read_manifest",
    "read_side_information",
    "resample",
    "side_information",
    "split_speakers",
    "split_utterances",
    "write",
    "write_duets",
    "write_manifest",
]
