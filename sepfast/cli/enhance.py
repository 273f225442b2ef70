"""`sepfast enhance`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sepfast.cli.console import bar, say
from sepfast.cli.options import Device
from sepfast.cli.separate import Subtype
from sepfast.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from sepfast.data.audio import AudioWriter
    from sepfast.data.landmarks import Floats

# Samples that are written at once.
_BLOCK = 1 << 18


def enhance(
    mixture: Annotated[Path, typer.Argument(help="The recording.")],
    landmarks: Annotated[
        Path,
        typer.Option(
            metavar="FACE", help="The speaker's landmarks, .txt or .npy, or a film of the face."
        ),
    ],
    model: Annotated[Path, typer.Option("-m", "--model", help="A model that sepfast saved.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The voice: .wav or .flac.")],
    video_rate: Annotated[
        float | None,
        typer.Option(help="Frames a second of the landmarks. (default: what FACE.json says)"),
    ] = None,
    statistics: Annotated[
        Path | None,
        typer.Option(help="What is usual for the speaker, .npz. (default: the recording's own)"),
    ] = None,
    subtype: Annotated[
        Subtype, typer.Option(help="Samples of the voice; float FLAC files have 24 bits.")
    ] = Subtype.float,
    device: Device = None,
) -> None:
    """Take one speaker's voice out of a recording, by the motion of the face.

    FACE is what sepfast landmarks writes, one video frame a line, with the frame rate in FACE.json
    beside it. An mp4, mov, mpg or other film is looked at here and now, for which dlib is needed:
    pip install 'sepfast\\[landmarks]'

    [bold]Example[/bold]: sepfast enhance mixture.wav --landmarks face.txt -m vl2m.safetensors
    -o voice.wav

    The network expects levels and motion as they are usual for the speaker. Without --statistics
    they are measured on this recording; with more recordings of the same speaker, measure those:
    Enhancer.statistics and write_statistics of sepfast.separation make the file.
    """
    from sepfast.checkpoint import load
    from sepfast.data.audio import AudioWriter, read
    from sepfast.device import pick_device
    from sepfast.separation import Enhancer, read_statistics

    _check_output(output, mixture, landmarks)
    enhancer = Enhancer(load(model), device=pick_device(device))
    usual = None if statistics is None else read_statistics(statistics)
    waveform, sample_rate = read(mixture)
    # Made before the work, as it refuses names; it writes when the work is done.
    writer = AudioWriter(output, sample_rate, len(waveform), subtype=subtype.value)
    face, rate = _face(landmarks, video_rate)
    with bar(str(mixture)) as progress:
        voice = enhancer(
            waveform, sample_rate, face, rate, statistics=usual, progress=progress
        ).numpy()
    _write(writer, voice)
    say(f"{output}: peak {writer.peak:.2f}")
    if writer.clipped:
        say(
            f"{output}: {writer.clipped} samples beyond full scale were cut off "
            f"(peak {writer.peak:.2f}); a .wav with --subtype float keeps them"
        )


def _check_output(output: Path, *inputs: Path) -> None:
    """Refuse to write over what is read, or where a folder is."""
    for path in inputs:
        if output.exists() and path.exists() and output.samefile(path):
            raise InputError(f"{output}: is read from, takes another file to write to")
    if output.is_dir():
        raise InputError(f"{output}: is a folder, takes the name of a file")


def _face(path: Path, video_rate: float | None) -> tuple[Floats, float]:
    """Landmarks and their frame rate, of a file of them or of a film."""
    from sepfast.data.landmarks import LANDMARK_SUFFIXES, read_landmarks, read_video_rate

    if path.suffix.lower() not in LANDMARK_SUFFIXES:
        return _filmed(path, video_rate)
    landmarks = read_landmarks(path)
    rate = read_video_rate(path) if video_rate is None else video_rate
    if rate is None:
        raise InputError(
            f"{path}: has no {path.stem}.json that tells the video's frame rate, takes --video-rate"
        )
    return landmarks, rate


def _filmed(path: Path, video_rate: float | None) -> tuple[Floats, float]:
    """Landmarks and frame rate of a film, by dlib."""
    from sepfast.data.face import DlibDetector, extract_landmarks

    if not path.is_file():
        raise InputError(f"{path}: there is no such file; takes landmarks or a film")
    if video_rate is not None:
        raise InputError(f"video_rate: got {video_rate:g} for {path}, a film, which has its own")
    with bar(str(path)) as progress:
        found = extract_landmarks(path, DlibDetector(), progress=progress)
    return found.landmarks, found.video_rate


def _write(writer: AudioWriter, voice: np.ndarray) -> None:
    """Write a file whole."""
    with writer:
        for first in range(0, voice.shape[1], _BLOCK):
            writer.write(voice[:, first : first + _BLOCK])
