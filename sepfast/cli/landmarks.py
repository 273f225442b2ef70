"""`sepfast landmarks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sepfast.cli.console import bar, complain, say
from sepfast.errors import InputError


def landmarks(
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO…", help="Films of one face each.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the text files.")],
    model: Annotated[
        Path | None,
        typer.Option(
            "-m", "--model", help="dlib's 68-point model, a .dat. (default: the installed one)"
        ),
    ] = None,
) -> None:
    """Find the landmarks of a face in films: each VIDEO becomes OUTPUT/NAME.txt and NAME.json.

    NAME.txt has one video frame a line, x and y of 68 points in whole pixels, 136 numbers.
    NAME.json tells the frame rate. Takes mp4, mpg, avi and whatever else FFmpeg reads.

    Needs dlib: pip install 'sepfast\\[landmarks]'

    [bold]Example[/bold]: sepfast landmarks grid/s1/video/bbaf2n.mpg -o grid/s1/landmarks
    """
    from sepfast.data.face import DlibDetector, extract_file, landmarks_path

    paths = [landmarks_path(video, output) for video in videos]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise InputError(f"landmarks: got several videos for {twice}, takes each name once")
    detector = DlibDetector(model)
    failed = 0
    for video in videos:
        try:
            with bar(str(video)) as progress:
                path, found = extract_file(video, output, detector, progress=progress)
        except InputError as error:
            if len(videos) == 1:
                raise
            failed += 1
            complain(error)
            continue
        missing = f", {found.missing} without a face interpolated" if found.missing else ""
        say(f"{path}: {len(found.landmarks)} frames at {found.video_rate:.4g} a second{missing}")
    if failed:
        raise InputError(f"{failed} of {len(videos)} videos have no usable face")
