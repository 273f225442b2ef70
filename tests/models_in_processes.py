"""Models of every system, trained in one process or in several with the same batches."""

from dataclasses import replace
from pathlib import Path

import torch
from learning import SONGS, VALIDATION, Recorder, fresh, losses
from test_training_audiovisual import holding, small, talks_of
from test_training_informed import SONGS as FRAGMENTED
from test_training_informed import VALIDATION as HELD_OUT
from test_training_informed import informed

from sepfast import create_model
from sepfast.data import draw_mixtures, find_utterances
from sepfast.training import TrainingOptions, train, train_folder

#: Plain descent: Adam would make of the rounding of a gradient near 0 a whole step.
QUICK = TrainingOptions(batch_size=5, batches_per_epoch=2, epochs=2, optimizer="sgd")


def deepconvsep(folder: Path, **more):
    return by_songs(fresh(), folder, replace(LONGER, epochs=2), **more)


def denoiser(folder: Path, **more):
    torch.manual_seed(1)
    model = create_model("denoiser", features=4, channels=1)
    model.attach(fresh(), "vocals")
    return by_songs(model, folder, replace(QUICK, learning_rate=1e-7), **more)


LONGER = replace(QUICK, epochs=3, learning_rate=0.02, silence=1e-4, remix=0.5, clip_norm=0.5)


def by_songs(model, folder: Path, options: TrainingOptions, **more):
    options = replace(options, validation_batches=3)
    return train(model, SONGS, VALIDATION, options, folder / "run", **more), model


def fragmented(side: str | None):
    def run(folder: Path, **more):
        """The last batch of three has one row, which is the first process's."""
        model = informed(side=side) if side else informed(attention=False)
        options = replace(QUICK, batch_size=2, batches_per_epoch=0, learning_rate=0.1)
        history = train(
            model, FRAGMENTED, HELD_OUT, options, folder / "run",
            cache_dir=folder.parent / "cache", **more,
        )  # fmt: skip
        return history, model

    return run


def talkers(make, name: str):
    def run(folder: Path, **more):
        """Seven mixtures of unequal lengths, the last batch of one."""
        utterances, _ = find_utterances(folder.parent / "talkers")
        mixtures, cache = draw_mixtures(utterances, 0, mixtures_per_utterance=1)[0], folder / "kept"
        talks = talks_of(utterances, mixtures, cache)
        options = replace(QUICK, batch_size=3, batches_per_epoch=0, learning_rate=1e-4)
        model = make(name)
        history = train(
            model, talks[:7], talks[7:], options, folder / "run", cache_dir=cache, **more
        )
        return history, model

    return run


def style_transfer(name: str):
    def run(folder: Path, **more):
        torch.manual_seed(1)
        options = replace(
            QUICK, batch_size=4, learning_rate=1e-2, snippet=0.25, validation_batches=2
        )
        sizes = {"framing": "landmarks", "hidden": 4, "dropout": 0.0}
        history = train_folder(
            folder.parent / "pairs", folder / "run", name, options, model_options=sizes,
            cache_dir=folder.parent / "cache", **more,
        )  # fmt: skip
        return history, None

    return run


#: All that one process computes too: nothing in them is drawn where the model is.
CASES = {
    "deepconvsep": deepconvsep,
    "denoiser": denoiser,
    "informed": fragmented("A3"),
    "informed without side information": fragmented(None),
    "vl2m": talkers(small, "vl2m"),
    "vl2m-ref": talkers(small, "vl2m-ref"),
    "vl2m-ref with a vl2m": talkers(holding, "vl2m-ref"),
    "av-concat": talkers(small, "av-concat"),
    "av-concat-ref": talkers(small, "av-concat-ref"),
}


OTHERS = {name: style_transfer(name) for name in ("udt", "denoising-vae")}


def trained(root: Path, cases) -> dict:
    """Losses, weights and what was said, of each case."""
    found = {}
    for name, case in cases.items():
        report = Recorder()
        (root / name).mkdir(exist_ok=True)
        history, model = case(root / name, device="cpu", report=report)
        weights = {} if model is None else model.state_dict()
        found[name] = losses(history), weights, len(report.steps), report.notes
    return found
