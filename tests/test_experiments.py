"""The papers' experiments: their files, what they say, and what is refused."""

import tomllib
from collections import Counter
from pathlib import Path

import pytest

from sepfast import InputError, list_models
from sepfast.experiments import (
    RUN,
    experiment,
    list_experiments,
    loss_options,
    options_of_model,
    parse_experiment,
    training_options,
)
from sepfast.training import defaults_for

pytestmark = pytest.mark.usefixtures("one_thread")


ROOT = Path(__file__).parents[1]


NAMES = list_experiments()


@pytest.fixture(scope="module")
def found():
    return {name: experiment(name) for name in NAMES}


# The files


def test_there_is_a_file_for_each_experiment_of_each_system(found):
    assert sorted(path.stem for path in (ROOT / "configs").glob("*.toml")) == NAMES
    counts = {"A": 8, "B": 7, "C": 16, "D": 16, "E": 2}
    assert Counter(each.system for each in found.values()) == counts
    informed = ("bl1", "bl2", "m1", "m2", "a1", "a2", "a3.1", "a3.2")
    speaking = ("vl2m", "vl2m-ref", "av-concat", "av-concat-ref")
    assert set(NAMES) == {
        *(f"a-{number}" for number in range(1, 9)),
        *("b-stereo", "b-remix", "b-source-drop"),
        *(f"b-denoiser-{source}" for source in ("vocals", "drums", "bass", "other")),
        *(f"c-{kind}{more}" for kind in informed for more in ("", "-extra")),
        *(
            f"d-{data}-{model}{how}"
            for data in ("grid", "tcd")
            for model in speaking
            for how in ("", "-dependent")
        ),
        *("e-udt", "e-denoising-vae"),
    }


def test_the_files_are_installed():
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    assert "sepfast.configs" in setup["packages"]
    assert setup["package-dir"]["sepfast.configs"] == "configs"
    assert setup["package-data"]["sepfast.configs"] == ["*.toml"]


@pytest.mark.parametrize("name", NAMES)
def test_each_is_whole(name, found):
    """Its model and its options are made when it is read."""
    each = found[name]
    assert each.name == name
    assert each.text == (ROOT / "configs" / f"{name}.toml").read_text("utf-8")
    assert len(each.title) < 30  # so that the list fits 80 columns
    assert len(set(each.assumed)) == len(each.assumed) > 0
    for need, other in each.needs.items():
        assert need == "extra" or found[other].data == each.data
    if mask := each.needs.get("mask_model"):
        assert found[mask].model == "vl2m"
        assert found[mask].model_options["hidden"] == each.model_options["mask_hidden"]
        assert found[mask].model_options["layers"] == each.model_options["mask_layers"]
    assert ("extra" in each.needs) == name.endswith("-extra")
    assert ("separator" in each.needs) == (each.model == "denoiser")


def test_no_key_has_two_meanings():
    """So that --set is never ambiguous."""
    others = [set(training_options()), {"loss"}, set(loss_options()), set(RUN)]
    for model in list_models():
        places = [set(options_of_model(model)), *others]
        assert sum(map(len, places)) == len(set().union(*places)), model


# What they say, by the papers


@pytest.mark.parametrize(
    ("number", "split", "batch", "rate", "milestones", "filters", "vocals"),
    [
        (1, {"validate_on_test": True}, 30, 1e-5, (60, 120), (513, 30, 0), (-22.73, 2.51)),
        (2, {}, 30, 1e-3, (60, 120), (513, 30, 0), (-21.70, 2.21)),
        (3, {}, 64, 1e-3, (60, 120), (513, 30, 0), (-23.58, 2.086)),
        (4, {}, 128, 1e-3, (60, 120), (513, 30, 0), (-23.43, 2.08)),
        (5, {}, 30, 1e-3, (60, 120), (171, 5, 342), (-23.16, 1.88)),
        (6, {}, 30, 1e-3, (60, 120), (171, 5, 342), (-23.75, 2.10)),
        (7, {}, 30, 1e-5, (60, 120), (513, 30, 0), (-23.08, 1.90)),
        (8, {}, 30, 1e-5, (10, 50, 60, 120), (513, 30, 0), (-23.49, 1.94)),
    ],
)
def test_the_reports_eight(found, number, split, batch, rate, milestones, filters, vocals):
    each = found[f"a-{number}"]
    options, model = each.options, each.model_options
    assert each.run == (split or {"validation": 0.1, "test": 0.1})
    assert (options.batch_size, options.learning_rate) == (batch, rate)
    assert (options.epochs, options.patience, options.milestones) == (200, 7, milestones)
    weights = options.loss
    assert (weights.alpha, weights.beta, weights.beta_vocals) == (0.001, 0.01, 0.03)
    assert (model["f1"], model["n2"], model.get("pool", 0)) == filters
    assert (model["t2"], model["n1"], model["units"]) == (12, 50, 128)
    assert (model.get("dropout", 0) > 0) == (number == 6)
    assert each.published["vocals"]["SDR"] == vocals


def test_the_learning_rates_of_the_eighth(found):
    rate = found["a-8"].options.learning_rate_in
    assert [rate(epoch) for epoch in (10, 11, 50, 51)] == pytest.approx([1e-5, 1e-6, 1e-6, 1e-7])


def test_the_authors_scores_stand_beside_the_first(found):
    scores = [("vocals", 1.3, 2.4), ("drums", 2.4, 2.0), ("bass", 0.9, 2.7), ("other", 0.8, 1.5)]
    theirs = {
        part.split(",")[0]: scores["SDR"]
        for part, scores in found["a-1"].published.items()
        if "authors" in part
    }
    assert theirs == {source: (mean, deviation) for source, mean, deviation in scores}


def test_the_theses_models(found):
    stereo = found["b-stereo"]
    assert stereo.options == defaults_for("deepconvsep-stereo")
    options = stereo.options
    assert (options.batch_size, options.batches_per_epoch, options.epochs) == (5, 50, 3250)
    assert (options.optimizer, options.silence) == ("adadelta", 0.02)
    assert stereo.published["other"]["SDR"] == (9.2, 4.6)
    for name, option in (("b-remix", "remix"), ("b-source-drop", "source_drop")):
        varied = found[name].options
        assert vars(varied) == vars(options) | {option: 0.5}
        assert any(f"{option}: " in sentence for sentence in found[name].assumed)
    for source in ("vocals", "drums", "bass", "other"):
        each = found[f"b-denoiser-{source}"]
        options = each.options
        assert (options.batch_size, options.batches_per_epoch, options.epochs) == (1, 300, 100)
        assert (options.optimizer, options.learning_rate) == ("sgd", 1e-5)
        assert each.run["source"] == source
        assert each.needs == {"separator": "b-stereo"}


@pytest.mark.parametrize(
    ("name", "side", "steps"),
    [
        ("bl2", "BL2", 256),
        ("m1", "M1", 256),
        ("m2", "M2", 300),
        ("a1", "A1", 300),
        ("a2", "A2", 300),
        ("a3.1", "A3", 300),
        ("a3.2", "A3.2", 300),
    ],
)
def test_what_the_informed_models_are_told(found, name, side, steps):
    for more in ("", "-extra"):
        model = found[f"c-{name}{more}"].model_options
        assert (model["side"], model["side_steps"], model["hidden"]) == (side, steps, 513)
        assert model.get("attention", True)


def test_the_informed_models_are_trained_alike(found):
    informed = [each for each in found.values() if each.system == "C"]
    assert {each.options for each in informed} == {defaults_for("informed")}
    options = informed[0].options
    assert (options.batch_size, options.learning_rate, options.weight_decay) == (128, 1e-4, 1e-3)
    assert (options.optimizer, options.patience, options.augmentation) == ("adam", 100, 4)
    assert all(each.run == {"validation": 0.2} for each in informed)
    assert found["c-bl1"].model_options["attention"] is False
    scores = {each.name: dict(each.published) for each in informed if each.published}
    assert scores == {
        "c-bl1": {"vocals": {"median SDR": 3.0}},
        "c-bl2": {"vocals": {"median SDR": 3.33}},
    }


@pytest.mark.parametrize(
    ("name", "layers", "two", "three"),
    [
        ("d-grid-vl2m-dependent", 5, (3.17, 1.51, 1.16), None),
        ("d-grid-vl2m-ref-dependent", 1, (6.50, 2.58, 2.99), None),
        ("d-grid-av-concat-dependent", 3, (6.31, 2.49, 2.83), None),
        ("d-grid-av-concat-ref-dependent", 3, (6.17, 2.58, 2.96), None),
        ("d-grid-vl2m", 5, (3.02, 1.81, 1.70), (-2.03, 1.43, 1.25)),
        ("d-grid-vl2m-ref", 1, (6.52, 2.53, 3.02), (2.83, 2.19, 2.53)),
        ("d-grid-av-concat", 3, (7.37, 2.65, 3.03), (3.02, 2.24, 2.49)),
        ("d-grid-av-concat-ref", 3, (8.05, 2.70, 3.07), (4.02, 2.33, 2.64)),
        ("d-tcd-vl2m", 5, (2.88, 2.25, 2.62), (-0.51, 1.99, 1.98)),
        ("d-tcd-vl2m-ref", 1, (9.24, 2.81, 3.09), (5.27, 2.44, 2.54)),
        ("d-tcd-av-concat", 3, (9.56, 2.80, 3.09), (5.15, 2.41, 2.52)),
        ("d-tcd-av-concat-ref", 3, (10.55, 3.03, 3.21), (5.37, 2.45, 2.58)),
        ("d-tcd-vl2m-dependent", 5, None, None),
        ("d-tcd-vl2m-ref-dependent", 1, None, None),
        ("d-tcd-av-concat-dependent", 3, None, None),
        ("d-tcd-av-concat-ref-dependent", 3, None, None),
    ],
)
def test_the_talkers_models(found, name, layers, two, three):
    each = found[name]
    dependent = name.endswith("-dependent")
    assert f"d-{name.split('-')[1]}-{each.model}{'-dependent' * dependent}" == name
    assert each.run["split"] == ("utterances" if dependent else "speakers")
    assert each.run["test_talkers"] == 3
    assert (each.options.optimizer, each.options.patience, each.options.talkers) == ("adam", 5, 2)
    assert (each.model_options["hidden"], each.model_options["layers"]) == (250, layers)
    for part, scores in (("2 speakers", two), ("3 speakers", three)):
        assert tuple(each.published.get(part, {}).values()) == (scores or ())
    if two:
        noisy = {"grid": (-1.06 if dependent else 0.21), "tcd": 0.21}[name.split("-")[1]]
        assert each.published["2 speakers, unprocessed"]["SDR"] == noisy
    refining = each.model.endswith("-ref")
    assert set(each.needs) == ({"mask_model", "init"} if refining else set())


def test_style_transfer(found):
    for name in ("udt", "denoising-vae"):
        each = found[f"e-{name}"]
        assert each.model == name
        assert (each.options.snippet, each.options.voice) == (2.0, "f")
        assert (each.model_options["kernel"], each.model_options["dropout"]) == (5, 0.3)
        assert (each.model_options["blocks"], each.model_options["power"]) == (3, 0.7)
    assert found["e-udt"].published["test"]["median SI-SDR"] == 7.5


# What is refused


@pytest.mark.parametrize(
    ("there", "here", "match"),
    [
        ("batch_size", "batchsize", "the nearest is 'batch_size', which takes a whole number, 1"),
        ("batch_size = 30", "batch_size = 0", "takes a whole number, 1 or more; the nearest is 1"),
        ("batch_size = 30", "batch_size = true", "batch_size: got True, takes a whole number"),
        ('"adadelta"', '"adadleta"', "optimizer: got 'adadleta', .* the nearest is 'adadelta'"),
        ("[60, 120]", "[120, 60]", "milestones: got .120, 60., takes rising epochs"),
        ("[60, 120]", "60", "milestones: got 60, takes a list, each a whole number"),
        ("n1 =", "n_1 =", r"\[model\]: got 'n_1', the nearest is 'n1'"),
        ("n1 = 50", "dropout = 1.5", "takes a number, 0 to 1; the nearest is 1.0"),
        ("n1 = 50", 'framing = "landmark"', "the nearest is 'landmarks'"),
        ("f1 = 513", "f1 = 600", r"\[model\], f1: got 600, takes 1 to 513 bins"),
        ('"deepconvsep"', '"deepconvsp"', "name: got 'deepconvsp', .* nearest is 'deepconvsep'"),
        ('"code"', '"papers"', "loss, reading: got 'papers', .* the nearest is 'paper'"),
        ("alpha", "alhpa", "got 'alhpa', the nearest is 'alpha'"),
        ("patience = 7", "talkers = 3", r"\[training\], talkers: got 3, DeepConvSep is trained"),
        ("patience = 7", "xyz = 7", r"\[training\]: got 'xyz', takes batch_size, batches_per"),
        ("validate_on_test", "validate", r"\[run\]: got 'validate', the nearest is 'valid"),
        ("[run]", "[runs]", "got 'runs', the nearest is 'run'"),
        ("title", "titel", "got 'titel', the nearest is 'title'"),
        ('system = "A"', "", "has no system, takes name, title, system"),
        ("[-22.73, 2.51]", '"high"', r"\[published.vocals\], SDR: got 'high', takes a number"),
        ("[training]", "[training", "is no TOML"),
    ],
)
def test_a_file_is_refused_in_one_sentence(found, there, here, match):
    text = found["a-1"].text
    assert there in text
    with pytest.raises(InputError, match=match) as error:
        parse_experiment(text.replace(there, here, 1), "mine.toml")
    assert str(error.value).startswith("mine.toml")


def test_a_name_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"'a-9', .* the nearest is 'a-"):
        experiment("a-9")
    with pytest.raises(InputError, match="cannot be read"):
        experiment(tmp_path / "none.toml")
    (tmp_path / "mine.toml").write_bytes(b"\xff")
    with pytest.raises(InputError, match="is no text in UTF-8"):
        experiment(tmp_path / "mine.toml")
