"""`sepfast evaluate` of mixtures whose clean target is known: duets of a manifest, or pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sepfast.cli.console import bar, say
from sepfast.errors import InputError

if TYPE_CHECKING:
    from sepfast.evaluation import ScoreTable
    from sepfast.evaluation.transfer import Item, TargetEstimator


def are_transfers(references: list[Path]) -> bool:
    """Whether these are manifests of duets, or a folder with mixtures/ and clean/.

    Raises:
        InputError: where there is something else beside.
    """
    from sepfast.data.duets import is_duet_manifest
    from sepfast.data.pairs import is_pair_folder

    duets = [path.is_file() and is_duet_manifest(path) for path in references]
    pairs = [path.is_dir() and is_pair_folder(path) for path in references]
    if any(pairs) and len(references) > 1:
        raise InputError("evaluate: takes one folder with mixtures/ and clean/, and nothing beside")
    if any(duets) and not all(duets):
        other = references[duets.index(False)]
        raise InputError(f"{other}: is no manifest of duets, takes manifests of one kind")
    return any(duets) or any(pairs)


def score_transfers(
    references: list[Path],
    data: Path | None,
    output: Path,
    *,
    estimates: Path | None,
    model: Path | None,
    device: str | None,
) -> ScoreTable:
    """Score, write what was found, and give it as a table."""
    if (estimates is None) == (model is None):
        raise InputError("evaluate: takes of duets and pairs one of --estimates and --model")
    from sepfast.evaluation.transfer import evaluate_transfer
    from sepfast.evaluation.transfer_scores import transfer_table

    items = _items(references, data)
    estimator = _estimator(estimates, model, device)
    with bar("scoring") as progress:
        report = evaluate_transfer(items, estimator, output, progress=progress, note=say)
    return transfer_table(report)


def _items(references: list[Path], data: Path | None) -> Sequence[Item]:
    from sepfast.data.duets import read_duets
    from sepfast.data.pairs import find_pairs

    if references[0].is_dir():
        if data is not None:
            raise InputError("evaluate: takes of a folder with mixtures/ and clean/ no --data")
        pairs, skipped = find_pairs(references[0])
        for reason in skipped:
            say(f"skipped: {reason}")
        return pairs
    if data is None:
        raise InputError("evaluate: takes --data with a manifest, the folder of its recordings")
    return [duet for path in references for duet in read_duets(path, data)]


def _estimator(estimates: Path | None, model: Path | None, device: str | None) -> TargetEstimator:
    from sepfast.evaluation.transfer import FolderTargets, ModelTargets

    if estimates is not None:
        return FolderTargets(estimates)
    from sepfast.checkpoint import load
    from sepfast.device import pick_device

    assert model is not None
    return ModelTargets(load(model), device=pick_device(device))
