"""Training of system D: a step, the two steps, what a run goes on from, and that it helps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from learning import Recorder, files, losses
from talking import chatter, crowd, talk
from typer.testing import CliRunner

from sepfast import InputError, create_model, load, save
from sepfast.data import (
    draw_mixtures,
    find_utterances,
    mix,
    read_manifest,
    split_speakers,
)
from sepfast.data.speaker_statistics import speaker_statistics
from sepfast.data.talker_examples import TalkerBatch, TalkerExamples, talker_features
from sepfast.data.talkers import FRAMING
from sepfast.metrics import si_sdr
from sepfast.reference import istft, magnitude, stft
from sepfast.training import Talk, TrainingOptions, defaults_for, train, train_folder

NAMES = ("vl2m", "vl2m-ref", "av-concat", "av-concat-ref")
SMALL = {"hidden": 3, "layers": 1}
QUICK = TrainingOptions(
    batch_size=4, batches_per_epoch=0, epochs=3, optimizer="adam", learning_rate=1e-3, patience=5
)


pytestmark = pytest.mark.usefixtures("one_thread")


def talks_of(utterances, mixtures, cache) -> list[Talk]:
    statistics = speaker_statistics(utterances, mixtures, cache_dir=cache)
    return [Talk(mixture, statistics[mixture.target.speaker]) for mixture in mixtures]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Seven mixtures to learn from, of unequal lengths, one with a silent target; one more."""
    root = tmp_path_factory.mktemp("study")
    crowd(root / "data", speakers=3, utterances=2, seconds=0.12)
    talk(root / "data/s1", "long", seconds=0.2, seed=5)
    talk(root / "data/s2", "quiet", seconds=0.16, waveform=np.zeros(2560))
    utterances, _ = find_utterances(root / "data")
    talks = talks_of(
        utterances, draw_mixtures(utterances, 0, mixtures_per_utterance=1)[0], root / "cache"
    )
    return talks[:7], talks[7:], root / "cache"


def small(name: str, **options) -> torch.nn.Module:
    torch.manual_seed(1)
    return create_model(name, **{**SMALL, **options})


def holding(name: str) -> torch.nn.Module:
    model = small(name)
    model.hold(small("vl2m", layers=2))
    return model


def run(model, study, path, options=QUICK, **more):
    training, validation, cache = study
    return train(model, training, validation, options, path, cache_dir=cache, **more)


# A step


def batch_of(talks, size, seed, item=0) -> TalkerBatch:
    statistics = {talk.mixture.target.speaker: talk.statistics for talk in talks}
    return TalkerExamples([talk.mixture for talk in talks], statistics, size, seed)[1, item]


@torch.no_grad()
def expected_loss(model, batch) -> float:
    """The model's own loss of a batch for each of its examples."""
    mixture, heard, target, binary_mask, motion, lengths = talker_features(batch)
    given = (motion, heard, mixture, target, lengths)
    if model.model_name == "vl2m":
        loss = model.loss(motion, binary_mask, lengths)
    elif model.model_name == "av-concat" or model.mask_model is not None:
        loss = model.loss(*given)
    else:
        loss = model.loss(*given, binary_mask)
    return loss.item() / len(lengths)


@pytest.mark.parametrize(
    ("make", "name"),
    [*((small, name) for name in NAMES), *((holding, name) for name in NAMES[1::2])],
)
def test_losses_are_the_models_on_the_batches_they_should_be(make, name, study, tmp_path):
    """The first step's, and that of all validation mixtures, of which the last batch is small."""
    still = replace(QUICK, batch_size=3, epochs=1, batches_per_epoch=1, learning_rate=0.0)
    training, _, cache = study
    fixed = training[:4]
    history = train(make(name), training, fixed, still, tmp_path, cache_dir=cache)
    first, parts = batch_of(training, 3, 0), [batch_of([talk], 1, None) for talk in fixed]
    model, epoch = make(name), history.epochs[0]
    assert epoch.training_loss == pytest.approx(expected_loss(model, first), rel=1e-5)
    each = [expected_loss(model, part) for part in parts]
    assert epoch.validation_loss == pytest.approx(np.mean(each), rel=1e-5)
    assert np.isfinite(each).all()


@pytest.mark.parametrize("name", ["vl2m-ref", "av-concat-ref"])
def test_the_second_step_leaves_the_mask_model_as_it_is(name, study, tmp_path):
    model, before = holding(name), holding(name).state_dict()
    run(model, study, tmp_path, replace(QUICK, epochs=1))
    moved = {
        key for key, value in model.state_dict().items() if not torch.equal(value, before[key])
    }
    assert moved == {key for key in before if not key.startswith("mask_model.")}
    alone = load(tmp_path / "best.safetensors")
    features = talker_features(batch_of(study[0], 7, None))
    scores = alone(features.motion, features.heard, features.lengths)
    assert alone.estimate(scores, features.mixture, features.lengths).isfinite().all()


def test_a_silent_target_and_unequal_lengths_leave_no_nan(study, tmp_path):
    training, _, cache = study
    silent = [talk for talk in training if talk.mixture.target.name == "quiet"]
    other = next(talk for talk in training if talk.mixture.target.name == "long")
    assert silent
    for name in NAMES:
        model = small(name)
        options = replace(QUICK, batch_size=2, epochs=2, learning_rate=1e-2)
        history = train(model, [*silent, other], silent, options, tmp_path / name, cache_dir=cache)
        assert np.isfinite(losses(history)).all()
        assert all(weight.isfinite().all() for weight in model.parameters())


# A run


@pytest.mark.parametrize(
    ("make", "name"), [(small, "vl2m"), (small, "vl2m-ref"), (holding, "av-concat-ref")]
)
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(make, name, study, tmp_path):
    """And with workers it is the same."""
    straight = make(name)
    history = run(straight, study, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        run(make(name), study, tmp_path / "run", report=Recorder(interrupt_after=3))
    model = make(name)
    again = run(model, study, tmp_path / "run", replace(QUICK, workers=1), resume=True)
    assert losses(again) == losses(history)
    want = straight.state_dict()
    assert all(torch.equal(want[key], value) for key, value in model.state_dict().items())


def test_a_run_is_known_by_its_mixtures_and_the_model_it_holds(study, tmp_path):
    training, validation, cache = study
    once = replace(QUICK, epochs=1)
    run(holding("vl2m-ref"), study, tmp_path, once)
    with pytest.raises(InputError, match=r"training mixture is 's1/a \+ s[23]/.*'s1/b"):
        run(holding("vl2m-ref"), (training[1:], validation, cache), tmp_path, once, resume=True)
    other = small("vl2m-ref")
    torch.manual_seed(9)
    other.hold(create_model("vl2m", hidden=3, layers=2))
    with pytest.raises(InputError, match="of another run, mask model is"):
        run(other, study, tmp_path, once, resume=True)
    with pytest.raises(InputError, match="of another run, talkers is 2 there and 3 here"):
        run(holding("vl2m-ref"), study, tmp_path, replace(once, talkers=3), resume=True)


def test_an_error_names_the_targets_or_the_file(study, tmp_path):
    training, _, cache = study
    with pytest.raises(InputError, match=r"step 1 of epoch 1, on s\d/\w+, s\d/\w+[,;]"):
        run(small("av-concat"), study, tmp_path / "run", replace(QUICK, learning_rate=1e30))
    mixture = training[0].mixture
    lost = replace(mixture.target, landmarks=cache / "no.txt")
    talks = [replace(training[0], mixture=mix(lost, mixture.interferers))]
    with pytest.raises(InputError, match=r"^[^\n]*no\.txt: there is no such file[^\n]*$"):
        run(small("vl2m"), (talks, [], cache), tmp_path / "lost", replace(QUICK, workers=1))


def test_what_cannot_be_trained_on_is_refused(study, tmp_path):
    with pytest.raises(InputError, match=r"power: got 0\.5, takes 0\.3 in training"):
        run(small("av-concat", power=0.5), study, tmp_path)
    with pytest.raises(InputError, match="landmarks: got 20, takes 136 in training"):
        run(small("vl2m", landmarks=20), study, tmp_path)
    with pytest.raises(InputError, match="augmentation: got 2, AudioVisual is trained with 0"):
        run(small("vl2m"), study, tmp_path, replace(QUICK, augmentation=2))
    with pytest.raises(InputError, match="talkers: got 1, takes a whole number, 2 or more"):
        replace(QUICK, talkers=1)
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_the_papers(name):
    options = defaults_for(name)
    assert (options.optimizer, options.patience, options.talkers) == ("adam", 5, 2)
    assert (options.batches_per_epoch, options.weight_decay, options.augmentation) == (0, 0.0, 0)


# From a folder


def test_a_folder_is_split_by_speakers_and_mixed_by_the_seed(tmp_path):
    data, cache = (
        crowd(tmp_path / "data", speakers=9, utterances=2, seconds=0.1),
        tmp_path / "cache",
    )
    options, report = replace(QUICK, epochs=1, talkers=3, batch_size=40), Recorder()
    common = {"model_options": SMALL, "validation": 0.34, "cache_dir": cache, "report": report}
    train_folder(data, tmp_path / "run", "vl2m", options, **common)
    train_folder(data, tmp_path / "same", "av-concat", options, **common)
    utterances, _ = find_utterances(data)
    parts = []
    for name in ("train", "validation", "test"):
        path = tmp_path / "run" / f"{name}.csv"
        assert path.read_text() == (tmp_path / "same" / f"{name}.csv").read_text()
        mixtures = read_manifest(path, utterances)
        assert {len(mixture.utterances) for mixture in mixtures} == {3}
        parts.append({u.speaker for mixture in mixtures for u in mixture.utterances})
    assert [len(part) for part in parts] == [3, 3, 3]
    assert len(set.union(*parts)) == 9
    assert "train: 6 utterances are in fewer mixtures; the first is s" in report.notes[0]
    identity = torch.load(tmp_path / "run/last.pt", weights_only=True)["identity"]
    assert len(identity["training mixture"]) == 12  # 6 utterances, each beside 2 pairs
    with pytest.raises(InputError, match=r"^validation: got 1 of the speakers, takes 3 or more"):
        train_folder(data, tmp_path / "few", "vl2m", options, **common | {"validation": None})
    with pytest.raises(InputError, match="validation: got elsewhere, takes of talkers a fraction"):
        train_folder(
            data, tmp_path / "few", "vl2m", options, **common | {"validation": "elsewhere"}
        )
    assert not (tmp_path / "few").exists()


def test_the_command_trains_in_two_steps_and_goes_on(tmp_path, monkeypatch):
    from sepfast.cli import train as module

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    app = typer.Typer()
    app.command()(module.train)
    data = crowd(tmp_path / "data", speakers=6, utterances=1, seconds=0.1)

    def command(run: str, model: str, *more: str) -> str:
        arguments = [str(data), "-o", str(tmp_path / run), "-m", model, "--validation", "0.3"]
        result = CliRunner().invoke(app, [*arguments, "--device", "cpu", *more])
        assert result.exit_code == 0, result.output
        return result.output

    def best(run: str) -> str:
        return str(tmp_path / run / "best.safetensors")

    sizes = ("--set", "hidden=3", "--set", "layers=1", "--epochs", "1")
    assert "Measuring speakers" in command("vl2m", "vl2m", *sizes)
    command("first", "av-concat-ref", *sizes)
    second = ("--init", best("first"), "--mask-model", best("vl2m"))
    command("second", "av-concat-ref", *second, "--epochs", "1")
    output = command("second", "av-concat-ref", *second, "--epochs", "2", "--resume")
    assert "epoch 2: training loss" in output
    whole, held = load(best("second")), load(best("vl2m")).state_dict()
    assert all(torch.equal(held[key], own) for key, own in whole.mask_model.state_dict().items())
    assert whole.hidden == 3


def test_the_second_step_begins_with_the_weights_of_the_first(tmp_path):
    data = crowd(tmp_path / "data", speakers=6, utterances=1, seconds=0.1)
    first, mask_model = small("vl2m-ref"), small("vl2m")
    save(first, tmp_path / "first.safetensors")
    save(mask_model, tmp_path / "vl2m.safetensors")
    still = replace(QUICK, epochs=1, learning_rate=0.0)
    common = {
        "validation": 0.3,
        "cache_dir": tmp_path / "cache",
        "init": tmp_path / "first.safetensors",
    }
    held = common | {"mask_model": tmp_path / "vl2m.safetensors"}
    train_folder(data, tmp_path / "run", "vl2m-ref", still, **held)
    after = load(tmp_path / "run/best.safetensors").state_dict()
    assert all(torch.equal(after[key], value) for key, value in first.state_dict().items())
    for name, more, match in [
        ("vl2m", held | {"init": None}, "mask_model: got .*, vl2m takes none"),
        ("av-concat", common, "holds vl2m-ref, takes av-concat to begin with"),
        ("vl2m-ref", held | {"mask_model": common["init"]}, "mask_model: got vl2m-ref in"),
        ("vl2m-ref", common | {"model_options": {"hidden": 4}}, "hidden: got 4, the model in"),
        ("vl2m-ref", {"model_options": {"mask_model": True}}, "takes a trained VL2M"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=match):
            train_folder(data, tmp_path / "no", name, still, **more)
    assert not (tmp_path / "no").exists()


# It helps


LEARNING = TrainingOptions(
    batch_size=8, batches_per_epoch=0, optimizer="adam", learning_rate=1e-2, patience=5
)
#: Epochs of each model; those with two steps have one more behind them.
EPOCHS = {"vl2m": 5, "vl2m-ref": 1, "av-concat": 6, "av-concat-ref": 2}


@torch.no_grad()
def ratios(model, batch: TalkerBatch, roll: int = 0) -> np.ndarray:
    """SI-SDR of each target in what a model makes of its mixture, with a face so far off."""
    features = talker_features(batch)
    motion = features.motion.roll(roll, 0)
    scores = model(motion, features.heard, features.lengths)
    loud = model.estimate(scores, features.mixture, features.lengths) ** (1 / model.power)
    mixture, target = batch.waveforms.unbind(1)
    spectrum = stft(mixture, FRAMING)
    phase = spectrum / magnitude(spectrum).clamp(min=1e-9)[..., None]
    return si_sdr(
        target.numpy(), istft(loud[..., None] * phase, FRAMING, mixture.shape[-1]).numpy()
    )


def parts_of(seed: int, root: Path) -> list[list[Talk]]:
    """Mixtures of 8 speakers to learn from, of 2 for validation, and of 6 for the test."""
    chatter(root / "data", speakers=16, utterances=6, seconds=0.5, seed=seed)
    utterances, _ = find_utterances(root / "data")
    split = split_speakers(utterances, seed, fractions=(1 / 2, 1 / 8, 3 / 8))
    return [talks_of(part, draw_mixtures(part, seed)[0], root / "cache") for part in split]


def learnt(name: str, seed: int, parts: list[list[Talk]], root: Path) -> torch.nn.Module:
    """The best model of a training; it begins with a mask that is about 1, not 5."""
    torch.manual_seed(seed)
    model = create_model(name, hidden=16, layers=1)
    if name != "vl2m":
        torch.nn.init.constant_(model.output.bias, -2.5)
    options = replace(LEARNING, seed=seed, epochs=EPOCHS[name])
    train(model, *parts[:2], options, root / name, cache_dir=root / "cache")
    if name.endswith("-ref"):
        model.hold(load(root / "vl2m/best.safetensors"))
        second = root / f"{name} 2"
        train(model, *parts[:2], replace(options, epochs=1), second, cache_dir=root / "cache")
        return load(second / "best.safetensors")
    return load(root / name / "best.safetensors")


def outcomes(seed: int, root: Path, names=NAMES) -> dict[str, tuple[float, float, float]]:
    """Mean SI-SDR with new speakers: mixtures, enhanced, enhanced by the face of another."""
    parts = parts_of(seed, root)
    batch = batch_of(parts[2], len(parts[2]), None)
    mixture, target = batch.waveforms.numpy().swapaxes(0, 1)
    noisy = si_sdr(target, mixture).mean()
    found = {}
    for name in names:
        model = learnt(name, seed, parts, root)
        # Three mixtures of a target follow each other: the fourth is of another.
        found[name] = (noisy, ratios(model, batch).mean(), ratios(model, batch, 3).mean())
    return found


def test_every_model_brings_out_a_voice_by_a_face_that_it_never_saw(tmp_path):
    """Speakers who sound alike, of whom the mouth tells when and which of two vowels is heard.

    The models are small, their training is of some seconds; settings were chosen on seeds 0 and 2.
    """
    for name, (noisy, enhanced, misled) in outcomes(0, tmp_path).items():
        assert enhanced > noisy + 2, name
        assert misled < noisy, name
