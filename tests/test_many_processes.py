"""Separating and scoring with several processes: shared out, taken up again, joined."""

import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.distributed import HashStore
from typer.testing import CliRunner

from sepfast import InputError, create_model, save
from sepfast.cli.app import _app
from sepfast.data import SOURCES, read
from sepfast.evaluation import SongScores, SourceScores
from sepfast.evaluation import songs as scoring
from sepfast.evaluation.songs import Estimator, evaluate_songs
from sepfast.metrics import SilenceEnergy
from sepfast.sharing import Team, how_many, shared

RATE = 8000
PROGRAM = [sys.executable, "-m", "sepfast"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

#: The program with scores that take no time, but for the songs that are named in STUCK.
CHEAP = """
import os, sys, time
sys.path.insert(0, {tests!r})
from test_many_processes import scores_of
from sepfast.cli import main
from sepfast.evaluation import songs

def score(name, *_, **framing):
    time.sleep(1000 if name in os.environ["STUCK"] else 0)
    return scores_of(name, **framing)

songs.score_song = score
songs.spectrograms = lambda *_: None
if __name__ == "__main__":
    main()
"""


def _start(command, *arguments, **variables):
    bare = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=bare | {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "TERM": "dumb"} | variables,
    )


def _finished(command, *arguments, **variables):
    with _start(command, *arguments, **variables) as going:
        out, errors = going.communicate(timeout=300)
    return going.returncode, out, errors


def _pair(program, *arguments, **variables):
    """Two processes without torchrun, the first of which holds the store."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [_start(program, *arguments, RANK=str(rank), **variables) for rank in range(2)]


def scores_of(name, *, window, hop):
    """Scores that differ with the song, some of them without a number."""
    base = sum(name.encode()) / 7
    frames = {"sdr": [base, -base], "isr": [base, math.nan], "sir": [math.inf, 1], "sar": [0, base]}
    arrays = {metric: np.array(values, np.float64) for metric, values in frames.items()}
    silence = SilenceEnergy(math.nan, 0), SilenceEnergy(-base, 2)
    sources = {source: SourceScores(arrays, 1, *silence) for source in SOURCES}
    return SongScores(name, sources, window, hop, base, True)


def _songs(folder, names):
    for name in names:
        (folder / name).mkdir(parents=True)
        random = np.random.default_rng(sum(name.encode()))
        for source in SOURCES:
            wave = 0.1 * random.standard_normal((800, 2))
            soundfile.write(folder / name / f"{source}.wav", wave, RATE, "FLOAT")
    return folder


def _files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


class TestTeam:
    def test_one_is_all(self, monkeypatch):
        monkeypatch.delenv("RANK", raising=False)
        monkeypatch.setenv("WORLD_SIZE", "4")  # a scheduler's
        with shared() as team:
            assert (team.rank, team.size, how_many()) == (0, 1, 1)
            assert team.share("abc") == "abc"
            assert team.exchange({"a": 1}, last=True) == [{"a": 1}]

    @pytest.mark.parametrize("given", [("2", "2", "0"), ("x", "2", "0"), ("0", "", "0")])
    def test_a_broken_environment_is_refused(self, given, monkeypatch):
        for name, value in zip(("RANK", "WORLD_SIZE", "LOCAL_RANK"), given, strict=True):
            monkeypatch.setenv(name, value)
        with pytest.raises(InputError, match=f"got RANK='{given[0]}', .*, takes what torchrun set"):
            how_many()

    def test_torchruns_signal_is_an_interruption(self, monkeypatch):
        for name, value in (("RANK", "1"), ("WORLD_SIZE", "3")):
            monkeypatch.setenv(name, value)
        before = signal.getsignal(signal.SIGTERM)
        with shared() as team:
            assert (team.rank, team.size, team.local_rank) == (1, 3, 1)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is before

    @pytest.mark.parametrize("size", [2, 3])
    def test_they_hear_each_other_and_share_everything_once(self, size):
        def talk(team):
            team.agree(["a", "b"])
            heard = team.exchange([team.rank, list(team.share(range(7)))], last=True)
            return sorted(i for _, share in heard for i in share), [rank for rank, _ in heard]

        assert _together(size, talk) == [(list(range(7)), list(range(size)))] * size

    def test_they_wait_for_the_last(self):
        late, times = 0.5, {}

        def talk(team):
            time.sleep(late * team.rank)
            team.exchange(None, last=True)
            times[team.rank] = time.monotonic()

        began = time.monotonic()
        _together(2, talk)
        assert min(times.values()) - began >= late

    def test_the_first_stays_until_the_others_have_heard_it(self):
        first, second = Team(0, 2), Team(1, 2)
        first._store = second._store = store = HashStore()
        store.set("sepfast/0/0/1", '"said"')
        with ThreadPoolExecutor() as threads:
            leaving = threads.submit(first.exchange, "hello", last=True)
            time.sleep(0.3)
            stayed = not leaving.done()
            assert second.exchange("said", last=True) == ["hello", "said"]
            assert leaving.result(10) == ["hello", "said"]
        assert stayed

    def test_work_that_differs_is_refused(self):
        def talk(team):
            with pytest.raises(InputError, match=r"find different work \(1, 2 pieces\)"):
                team.agree(["a", "b"][: 1 + team.rank])

        _together(2, talk)

    def test_each_has_its_own_gpu(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
        monkeypatch.setattr("sepfast.sharing.pick_device", lambda name: name)
        own = [Team(rank, 3, rank).device(None) for rank in range(3)]
        assert own == ["cuda:0", "cuda:1", "cuda:0"]
        assert Team(1, 3, 1).device("cuda") == "cuda:1"
        assert Team(1, 3, 1).device("cpu") == "cpu"
        assert Team().device(None) is None


def _together(size, talk):
    """What processes find that are threads here."""
    store, teams = HashStore(), [Team(rank, size, rank) for rank in range(size)]
    for team in teams:
        team._store = store
    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(talk, teams))


class TestScoring:
    @pytest.fixture
    def cheap(self, monkeypatch):
        """The songs that were scored, which takes no time."""
        scored = []

        def once(name, *_, **framing):
            scored.append(name)
            return scores_of(name, **framing)

        monkeypatch.setattr(scoring, "score_song", once)
        monkeypatch.setattr(scoring, "spectrograms", lambda *_: None)
        monkeypatch.setattr(scoring, "box_plots", lambda *_: None)
        return scored

    @staticmethod
    def _estimator(broken=()):
        def estimates(song):
            if song.name in broken:
                raise InputError(f"{song.name}: broken")
            return song.stems

        return Estimator(estimates)

    def test_what_was_scored_is_not_scored_again(self, cheap, tmp_path):
        songs, out = _songs(tmp_path / "songs", "abc"), tmp_path / "out"
        settings = {"window": 0.5, "hop": 0.5, "made_by": "x"}
        evaluate_songs(songs, self._estimator("b"), out, **settings)
        del cheap[:]
        notes = []
        report = evaluate_songs(
            songs, self._estimator(), out, resume=True, note=notes.append, **settings
        )
        assert cheap == ["b"]
        assert notes == ["2 of 3 songs are scored already"]
        assert [song.name for song in report.songs] == ["a", "b", "c"]
        evaluate_songs(songs, self._estimator(), tmp_path / "whole", **settings)
        files = [(folder / "scores.json").read_bytes() for folder in (out, tmp_path / "whole")]
        assert files[0] == files[1]
        (out / "songs/c.json").write_text('{"format": "sepf')
        for changed, again in [({}, "c"), ({"window": 1.0}, "abc"), ({"made_by": "y"}, "abc")]:
            del cheap[:]
            evaluate_songs(songs, self._estimator(), out, resume=True, **settings | changed)
            assert cheap == list(again)
        del cheap[:]
        evaluate_songs(songs, self._estimator(), out, **settings)
        assert cheap == list("abc")

    def test_two_find_what_one_finds(self, cheap, tmp_path):
        songs, notes = _songs(tmp_path / "songs", "abcde"), {0: [], 1: []}
        old = tmp_path / "two/songs/c.json"  # of a run before this one
        old.parent.mkdir(parents=True)

        def of(team, folder):
            return evaluate_songs(
                songs,
                self._estimator("c"),
                tmp_path / folder,
                window=0.5,
                hop=0.5,
                team=team,
                note=notes[team.rank].append,
            )

        of(Team(), "one")
        old.write_bytes((tmp_path / "one/songs/b.json").read_bytes())
        del cheap[:], notes[0][:]
        first, _ = _together(2, lambda team: of(team, "two"))
        assert sorted(cheap) == list("abde")
        assert [song.name for song in first.songs] == list("abde")
        for name in ("scores.json", "scores.csv", "scores.summary.csv", "songs/b.json"):
            assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
        listed = ["1 of 5 songs could not be scored:", "  c: broken"]
        assert notes == {0: ["skipped: c: broken", *listed], 1: []}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    torch.manual_seed(0)
    save(create_model("deepconvsep-stereo"), path)
    return path


def test_separating_with_torchrun(model, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in "abde":
        soundfile.write(folder / f"{name}.wav", random.uniform(-0.5, 0.5, (4000, 2)), RATE)
    (folder / "c.wav").write_bytes(b"RIFF0000WAVEfmt nonsense")
    options = ["separate", folder, "-m", model, "--device", "cpu", "-o"]
    alone = CliRunner().invoke(_app(), [*map(str, options), str(tmp_path / "one")])
    assert alone.exit_code == 2
    (tmp_path / "two/e").mkdir(parents=True)
    for source in SOURCES:
        (tmp_path / f"two/e/{source}.wav").touch()
    (tmp_path / "two/b").mkdir()
    (tmp_path / "two/b/vocals.wav").touch()  # not all of them
    with_both = [*TORCHRUN, *PROGRAM[1:], *options]
    code, out, errors = _finished(with_both, tmp_path / "two", "--skip-existing")
    assert code == 1, errors  # torchrun's own; the first process's is 2
    assert re.search(r"exitcode *: 2\b", errors)
    assert "sepfast: 1 of 4 files could not be separated" in errors
    assert errors.count(f"{folder}/c.wav: ") == 2  # when it failed, and in the list at the end
    assert out.count("1 of 5 recordings have their stems already") == 1
    assert _files(tmp_path / "two") == _files(tmp_path / "one")
    for name in "abd":
        for source in SOURCES:
            of = [read(tmp_path / f"{n}/{name}/{source}.wav")[0] for n in ("one", "two")]
            np.testing.assert_allclose(*of, atol=1e-6)
    assert (tmp_path / "two/e/vocals.wav").stat().st_size == 0


def test_scoring_after_a_kill(tmp_path):
    songs = _songs(tmp_path / "songs", "abcde")
    soundfile.write(songs / "c/bass.wav", np.zeros((10, 2)), RATE)
    program = tmp_path / "cheap.py"
    program.write_text(CHEAP.format(tests=str(Path(__file__).parent)))
    options = ["evaluate", songs, "--oracle", "mixture", "-o"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "score_song", lambda name, *_, **framing: scores_of(name, **framing))
        patch.setattr(scoring, "spectrograms", lambda *_: None)
        alone = CliRunner().invoke(_app(), [*map(str, options), str(tmp_path / "one")])
    assert alone.exit_code == 0, alone.output

    both = _pair([sys.executable, program], *options, tmp_path / "two", STUCK="de")
    kept = tmp_path / "two/songs"
    paths, deadline = [kept / "a.json", kept / "b.json"], time.monotonic() + 200
    while not all(p.is_file() for p in paths) and time.monotonic() < deadline:
        time.sleep(0.05)
    for one in both:
        one.kill()
        one.communicate()
    before = [path.stat().st_mtime_ns for path in paths]
    assert not (tmp_path / "two/scores.json").exists()

    again = [*TORCHRUN, program, *options, tmp_path / "two", "--resume"]
    code, out, errors = _finished(again, STUCK="ab")
    assert code == 0, errors
    assert out.count("2 of 5 songs are scored already") == 1
    assert "1 of 5 songs could not be scored:" in out
    assert out.count("SDR (dB)") == 1
    assert [path.stat().st_mtime_ns for path in paths] == before
    for name in ("scores.json", "scores.csv", "scores.summary.csv"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert _files(tmp_path / "two") == _files(tmp_path / "one")


def test_ended_by_torchrun_leaves_nothing_half_written(model, tmp_path):
    with soundfile.SoundFile(tmp_path / "long.wav", "w", RATE, 1) as file:
        for _ in range(300):
            file.write(np.random.default_rng(0).uniform(-0.5, 0.5, RATE))
    options = ["separate", tmp_path / "long.wav", "-m", model, "--device", "cpu", "-o"]
    both = _pair(PROGRAM, *options, tmp_path / "out")
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob("out/long/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert both[1].poll() is None  # has nothing to do, and waits
    for one in both:
        one.terminate()
    errors = [one.communicate(timeout=100)[1] for one in both]
    assert [one.returncode for one in both] == [130, 130], errors
    assert all("interrupted; nothing half-written is left" in text for text in errors)
    assert not (tmp_path / "out").exists()
