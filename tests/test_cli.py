"""The program as a person meets it: what it writes, prints and returns."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from sepfast import create_model, save
from sepfast.bench.memory import peak_memory
from sepfast.cli.app import _app
from sepfast.data.audio import read
from sepfast.evaluation.page import Picture, Section, Sound, Table, write_page

RATE = 44100
COMMANDS = ["demo", "separate", "train", "evaluate", "compare", "import", "models", "fuse-report"]
COMMANDS += ["landmarks", "enhance", "experiments", "profile", "doctor"]


def run(*arguments, cwd=None, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "sepfast", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env=_environment(), **options
    )


def _environment():
    return os.environ | {"COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    torch.manual_seed(0)
    save(create_model("deepconvsep-stereo"), path)
    return path


@pytest.fixture
def song(tmp_path) -> Path:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, 2))
    soundfile.write(tmp_path / "song.wav", samples, RATE)
    return tmp_path / "song.wav"


def _everything(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def test_import_needs_torch_and_numpy_alone():
    heavy = "soundfile soxr av museval stempeg scipy matplotlib h5py typer rich triton librosa"
    use = "sepfast.fuse(sepfast.create_model('deepconvsep')).replaced"
    check = f"import sys, sepfast; {use}; print([m for m in {heavy.split()} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_lists_the_commands_and_each_shows_an_example():
    listing = run("--help")
    assert listing.returncode == 0
    for command in COMMANDS:
        assert command in listing.stdout
    program = _app()
    for command in (*(c for c in COMMANDS if c != "import"), "import pytorchconvsep"):
        asked = [*command.split(), "--help"]
        shown = CliRunner().invoke(program, asked, env={"COLUMNS": "120", "TERM": "dumb"})
        assert f"Example: sepfast {command}" in shown.output


def test_models_lists_sizes():
    listing = run("models").stdout
    assert "678,536" in listing
    assert "32,160,996" in listing


def test_fuse_report_lists_what_is_fused_and_what_is_not(model, tmp_path):
    for given in ("deepconvsep-stereo", model):
        done = run("fuse-report", given)
        assert done.returncode == 0, done.stderr
        for row in (["mask", "SoftMask", "yes", "soft_mask"], ["encoder", "ConvPair", "conv_pair"]):
            assert any(all(cell in line for cell in row) for line in done.stdout.splitlines())
        assert "7 replaced, 0 skipped" in done.stdout
    assert "0 replaced, 0 skipped" in run("fuse-report", "denoiser").stdout
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    cases = [
        ("demucs", "got 'demucs', takes a file"),
        (tmp_path, "no such file"),
        (tmp_path / "broken.safetensors", "is broken"),
    ]
    for bad, message in cases:
        done = run("fuse-report", bad)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_separate_writes_stems_that_add_up(song, model, tmp_path):
    before = song.read_bytes()
    done = run("separate", song, "-m", model, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    names = ["vocals.wav", "drums.wav", "bass.wav", "other.wav"]
    assert ", ".join(names) in done.stdout
    stems = [read(tmp_path / "out/song" / name)[0] for name in names]
    np.testing.assert_allclose(sum(stems), read(song)[0], atol=1e-5)
    assert song.read_bytes() == before
    assert _everything(tmp_path) == {"song.wav", "out", "out/song"} | {
        f"out/song/{n}" for n in names
    }


def test_separate_takes_folders_and_real_formats(song, song_path, model, tmp_path):
    inner = "inner [live] :cd:"  # no markup, no emoji
    (tmp_path / "songs" / inner).mkdir(parents=True)
    song.rename(tmp_path / "songs" / inner / "song.wav")
    os.symlink(song_path, tmp_path / "songs/falcon.stem.mp4")
    options = ["--format", "flac", "--subtype", "int16"]
    done = run("separate", tmp_path / "songs", "-m", model, "-o", tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'out' / inner / 'song'}: vocals.flac, " in done.stdout
    assert soundfile.info(tmp_path / "out" / inner / "song/bass.flac").subtype == "PCM_16"
    assert soundfile.info(tmp_path / "out/falcon/bass.flac").frames == 268_288


def test_clipping_is_reported(model, tmp_path):
    soundfile.write(tmp_path / "loud.wav", np.full((5000, 2), 9.0), RATE, subtype="FLOAT")
    options = ["--subtype", "int16"]
    done = run("separate", tmp_path / "loud.wav", "-m", model, "-o", tmp_path, *options)
    assert done.returncode == 0, done.stderr
    assert "samples beyond full scale were cut off (peak " in done.stdout


def _corrupt(path: Path):
    path.write_bytes(b"RIFF0000WAVEfmt nonsense")


def _nan(path: Path):
    samples = np.zeros((2 * RATE, 2), np.float32)
    samples[:, 0] = 0.1
    samples[-5] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.touch(), "empty"),
        (_corrupt, "bad.wav"),
        (_nan, "NaN"),
        (lambda path: soundfile.write(path, np.zeros((RATE, 2)), RATE), "is silent"),
        (lambda path: soundfile.write(path, np.zeros((0, 2)), RATE), "bad.wav"),
        (lambda path: path.mkdir(), "holds no audio"),
    ],
)
def test_bad_songs_get_a_sentence_and_leave_nothing(make, message, model, tmp_path):
    make(tmp_path / "bad.wav")
    before = _everything(tmp_path)
    done = run("separate", tmp_path / "bad.wav", "-m", model, "-o", tmp_path / "out/put")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert _everything(tmp_path) == before


def test_one_bad_song_does_not_stop_the_others(song, model, tmp_path):
    _corrupt(tmp_path / "bad.wav")
    done = run("separate", tmp_path / "bad.wav", song, "-m", model, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "1 of 2 files could not be separated" in done.stderr
    assert (tmp_path / "out/song/vocals.wav").is_file()
    assert not (tmp_path / "out/bad").exists()


def test_bad_models_outputs_and_options(song, model, tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle.pt")
    (tmp_path / "half.safetensors").write_bytes(model.read_bytes()[:5000])
    cases = [
        (["-m", tmp_path / "pickle.pt", "-o", tmp_path / "out"], "is a pickle"),
        (["-m", tmp_path / "half.safetensors", "-o", tmp_path / "out"], "is broken"),
        (["-m", tmp_path / "none.safetensors", "-o", tmp_path / "out"], "no such file"),
        (["-m", model, "-o", song / "out"], "song.wav"),
        (["-m", model, "-o", tmp_path / "out", "--overlap", 30], "overlap: got 30"),
        (["-m", model, "-o", tmp_path / "out", "--device", "tpu"], "device: got 'tpu'"),
        (["-m", model, "-o", tmp_path / "out", "--format", "ogg"], "--format"),
    ]
    for arguments, message in cases:
        done = run("separate", song, *arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()


def test_songs_of_one_name_are_refused_before_any_work(song, model, tmp_path):
    soundfile.write(tmp_path / "song.flac", np.zeros((100, 2)), RATE)
    done = run("separate", song, tmp_path / "song.flac", "-m", model, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "separate them into two output folders" in done.stderr
    assert not (tmp_path / "out").exists()


def test_interrupted_separation_leaves_nothing(model, tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (300 * RATE, 2))
    soundfile.write(tmp_path / "long.wav", samples, RATE)
    before = _everything(tmp_path)
    arguments = ["separate", tmp_path / "long.wav", "-m", model, "-o", tmp_path / "out"]
    command = [sys.executable, "-m", "sepfast", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=_environment()) as going:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("out/long/*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        going.send_signal(signal.SIGINT)
        _, errors = going.communicate(timeout=60)
    assert going.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert _everything(tmp_path) == before


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory from /proc")
def test_memory_does_not_grow_with_the_song(model, tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, 2)).astype(np.float32)
    peaks = []
    for seconds in (20, 120):
        song = tmp_path / f"{seconds}.wav"
        with soundfile.SoundFile(song, "w", RATE, 2) as file:
            for _ in range(seconds):
                file.write(noise)
        peaks.append(peak_memory("separate", song, "-m", model, "-o", "out", cwd=tmp_path))
    # 100 s more of stereo and four stereo stems are 176 MB in float32.
    assert peaks[1] - peaks[0] < 40
    assert peaks[1] < 1024


def test_page_holds_its_pictures_and_sounds(tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG")
    sound = Sound(np.full((2, 100), 2.0), RATE)
    table = Table(["source", "listen"], [["vocals & <more>", sound]])
    write_page(
        tmp_path / "page.html",
        "Title",
        "Summary.",
        [Section("Part", [table, Picture(picture, "It")])],
    )
    page = (tmp_path / "page.html").read_text()
    assert "vocals &amp; &lt;more&gt;" in page
    assert 'src="data:image/png;base64,iVBORw=="' in page
    assert 'src="data:audio/flac;base64,' in page
    assert "http" not in page


def test_evaluate_prints_a_table_and_checks_its_options(song_path, model, tmp_path):
    for arguments in ([], ["-m", model, "--oracle", "mixture"]):
        done = run("evaluate", song_path, "-o", tmp_path / "out", *arguments)
        assert done.returncode == 2
        assert "takes one of --estimates, --model and --oracle" in done.stderr
    done = run("evaluate", tmp_path, "-o", tmp_path / "out", "--oracle", "mixture")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    options = ["--oracle", "mixture", "--window", "3", "--hop", "3"]
    done = run("evaluate", song_path, "-o", tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    assert "SDR (dB)" in done.stdout
    assert "SIR and SAR cannot be trusted" in done.stdout
    assert (tmp_path / "out/scores.png").is_file()


def test_train_separate_and_resume(song_path, tmp_path):
    options = ["--epochs", 1, "--batches-per-epoch", 1, "--batch-size", 1, "--silence", 0]
    done = run("train", song_path, "-o", tmp_path / "run", *options, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    best = tmp_path / "run/best.safetensors"
    done = run("separate", song_path, "-m", best, "-o", tmp_path / "stems")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("stems/*/*.wav"))) == 4
    done = run("train", song_path, "-o", tmp_path / "run", *options)
    assert done.returncode == 2
    assert "is of a run already" in done.stderr
    options[1] = 2
    done = run("train", song_path, "-o", tmp_path / "run", *options, "--resume", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "run/log.csv").read_text().splitlines()) == 3
