"""Training denoisers: on a frozen separator's output, which they bring nearer to the source."""

import copy
from dataclasses import replace

import pytest
import torch
import typer
from denoising import HELD_OUT, QUICK, SONGS, fresh, learnt_separator, song
from learning import losses, write_song
from typer.testing import CliRunner

from sepfast import InputError, Separator, create_model, load, save
from sepfast.data.audio import read
from sepfast.data.examples import Examples, Excerpts, SilenceFilter, batch_features
from sepfast.training import defaults_for, train, train_folder
from sepfast.training.course import Material
from sepfast.training.course_denoiser import DenoiserCourse
from sepfast.training.history import Silent

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def separator(tmp_path_factory):
    """Not to be changed."""
    return learnt_separator(tmp_path_factory.mktemp("separator"))


def course_of(model, songs=SONGS, options=QUICK) -> DenoiserCourse:
    return DenoiserCourse(model, Material(songs, [], options, None, Silent()))


def of_folder(tmp_path, separator) -> tuple:
    """A folder of songs and a file of a separator."""
    for number in range(2):
        write_song(tmp_path / "data" / f"song {number}", song(number, 9000), channels=1)
    save(separator, tmp_path / "separator.safetensors")
    return tmp_path / "data", tmp_path / "separator.safetensors"


# What it learns


def test_a_denoiser_brings_estimates_nearer_to_songs_that_it_never_heard(separator, tmp_path):
    """To three quarters of the separator's L1, where neither silence nor a constant would do."""
    model = fresh(separator, features=128)
    options = replace(QUICK, batches_per_epoch=60, epochs=2, learning_rate=5e-3, milestones=(1,))
    train(model, SONGS, [], options, tmp_path)
    many = replace(QUICK, batch_size=48)
    with torch.no_grad():
        _, heard = (course := course_of(model, SONGS, many)).pairs(course.examples[1, 0])
        noisy, target = (course := course_of(model, HELD_OUT, many)).pairs(course.examples[1, 0])
        constant = heard.transpose(1, 2).flatten(0, 1).median(0).values[:, None]
        rivals = {"separator": noisy, "silence": torch.zeros(()), "constant": constant}
        error = {name: float((guess - target).abs().sum()) for name, guess in rivals.items()}
        denoised = float((model(noisy) - target).abs().sum())
    assert denoised < 0.75 * error["separator"]  # 0.72
    assert denoised < 0.65 * error["silence"]  # 0.61
    assert denoised < 0.8 * error["constant"]  # 0.76


@pytest.mark.parametrize("published", [False, True])
def test_the_loss_is_that_of_the_frozen_separators_output(separator, tmp_path, published):
    options = replace(QUICK, batches_per_epoch=1, epochs=1, seed=3, target_slope=0.5)
    before = copy.deepcopy(separator.state_dict())
    made = {"published": published, "merge": "project"}
    model = fresh(separator, "bass", **made)
    history = train(model, SONGS, [], options, tmp_path)

    excerpts = Excerpts(SONGS, 7 * 256 + 1024)
    keep = SilenceFilter.of(separator, 0.001)
    waveforms = Examples(excerpts, 4, 3, keep)[1, 0]
    mixture, targets = batch_features(separator, waveforms, target_slope=0.5)
    estimates = separator(mixture).unflatten(1, (4, 2))
    total = estimates.sum(1)
    noisy = torch.where(total > 0, estimates[:, 2] / total, 0.25) * mixture
    twin = fresh(separator, "bass", **made)
    sequence, _ = twin.recurrent(twin.encoder(noisy).flatten(0, 1))
    projected = sequence if published else twin.project(sequence)
    out = twin.decoder(projected.unflatten(0, (4, 2)))
    expected = (out - targets[:, 2]).abs().sum()
    assert history.epochs[0].training_loss == pytest.approx(expected.item(), rel=1e-5)
    after = separator.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(not p.requires_grad for p in model.attached.parameters())


def test_plain_gradient_descent(separator, tmp_path):
    """The published optimizer: a weight moves by its gradient times the learning rate."""
    options = replace(
        QUICK, optimizer="sgd", learning_rate=1e-5, batches_per_epoch=1, epochs=1, weight_decay=0.5
    )
    model, twin = fresh(separator), fresh(separator)
    course = course_of(twin, options=options)
    course.loss(course.examples[1, 0]).backward()
    train(model, SONGS, [], options, tmp_path)
    for moved, weight in zip(model.parameters(), twin.parameters(), strict=True):
        step = 1e-5 * (weight.grad + 0.5 * weight)
        torch.testing.assert_close(moved, weight - step, atol=1e-7, rtol=1e-5)


def test_defaults_are_the_papers():
    paper = defaults_for("denoiser")
    assert (paper.batch_size, paper.batches_per_epoch, paper.epochs) == (1, 300, 100)
    assert (paper.optimizer, paper.learning_rate, paper.silence) == ("sgd", 1e-5, 0.02)
    assert (paper.statistics, paper.target_slope) == (False, 0.0)


# What it leaves


def test_a_run_is_known_by_its_separator_and_resumes_to_the_same_losses(separator, tmp_path):
    whole = train(fresh(separator), SONGS, HELD_OUT, QUICK, tmp_path / "whole")
    parts = tmp_path / "parts"
    train(fresh(separator), SONGS, HELD_OUT, replace(QUICK, epochs=1), parts)
    other = copy.deepcopy(separator)
    other.bottleneck[0].bias.add_(1e-3)
    for stranger in (fresh(other), fresh(separator, "bass")):
        with pytest.raises(InputError, match="is of another run, model_options is"):
            train(stranger, SONGS, HELD_OUT, QUICK, parts, resume=True)
    resumed = train(fresh(separator), SONGS, HELD_OUT, QUICK, parts, resume=True)
    assert losses(resumed) == losses(whole)


def test_the_file_names_the_separator_and_does_not_hold_it(separator, tmp_path):
    data, path = of_folder(tmp_path, separator)
    options = replace(QUICK, epochs=1, silence=0.0)
    train_folder(data, tmp_path / "run", "denoiser", options, separator=path, source="drums")
    best = tmp_path / "run" / "best.safetensors"
    model = load(best)
    assert (model.source, model.separator) == ("drums", separator.digest())
    assert model.attached is None
    assert model.state_dict().keys() == create_model("denoiser").state_dict().keys()
    model.check(separator, "drums")
    # Another's denoiser to begin with, for another source.
    again = tmp_path / "again"
    train_folder(data, again, "denoiser", options, separator=path, source="bass", init=best)
    assert load(again / "best.safetensors").source == "bass"


def test_it_is_listened_to_on_its_separators_stem(separator, tmp_path):
    model = fresh(separator)
    train(model, SONGS[:1], HELD_OUT, replace(QUICK, epochs=1, listen=1), tmp_path)
    x, denoisers = HELD_OUT[0].waveforms[0], {"vocals": model}
    stems = Separator(separator, denoisers=denoisers)(x, 44100)
    for source, stem in stems.items():
        wave, _ = read(tmp_path / "validation" / "epoch-0001" / f"{source}.wav")
        torch.testing.assert_close(torch.from_numpy(wave), stem, atol=1e-6, rtol=0)


# What it refuses


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"separator": None}, "separator: got None, a denoiser learns what a trained separator"),
        ({"source": None}, "source: got None, a denoiser learns"),
        ({"source": "piano"}, "source: got 'piano', .* has vocals, drums, bass, other"),
        ({"separator": "denoiser"}, "separator: got denoiser in .*, takes deepconvsep"),
        ({"model_name": "informed"}, "separator: got .*, informed takes none"),
        ({"model_options": {"source": "bass"}}, "model_options: got source, takes it as"),
        ({"model_options": {"channels": 1}}, "denoiser: got one of vocals with 1 channels, takes"),
        ({"options": replace(QUICK, statistics=True)}, "statistics: got True, Denoiser is"),
    ],
)
def test_a_run_that_lacks_something_is_refused(separator, tmp_path, change, match):
    data, path = of_folder(tmp_path, separator)
    save(create_model("denoiser"), tmp_path / "denoiser")
    given = {"model_name": "denoiser", "options": QUICK, "separator": path, "source": "vocals"}
    given |= change
    if given["separator"] == "denoiser":
        given["separator"] = tmp_path / "denoiser"
    with pytest.raises(InputError, match=match):
        train_folder(data, tmp_path / "run", given.pop("model_name"), given.pop("options"), **given)
    assert not (tmp_path / "run" / "last.pt").exists()


def test_a_denoiser_of_nothing_is_not_trained(tmp_path):
    with pytest.raises(InputError, match="separator: got None, a denoiser learns from the output"):
        train(create_model("denoiser"), SONGS, [], QUICK, tmp_path)


def test_the_command(separator, tmp_path):
    from sepfast.cli.train import train as command

    app = typer.Typer()
    app.command()(command)
    data, path = of_folder(tmp_path, separator)
    run = tmp_path / "run"
    arguments = (data, "-o", run, "-m", "denoiser", "--separator", path, "--source", "vocals")
    arguments += ("--batches-per-epoch", 1, "--epochs", 1, "--device", "cpu")
    arguments += ("--set", "published=true", "--silence", 0)
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    model = load(run / "best.safetensors")
    assert (model.source, model.bidirectional) == ("vocals", False)
    identity = torch.load(run / "last.pt", weights_only=True)["identity"]
    assert (identity["optimizer"], identity["learning_rate"]) == ("sgd", 1e-5)
    assert (identity["model_options"]["separator"]) == separator.digest()
