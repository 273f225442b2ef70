"""`sepfast models`."""

from __future__ import annotations

from sepfast.cli.console import show


def models() -> None:
    """List the models, their sizes and the options that `train --set` takes.

    [bold]Example[/bold]: sepfast models
    """
    from sepfast.models import create_model, list_models, model_options

    rows = []
    for name in list_models():
        size = sum(p.numel() for p in create_model(name).parameters())
        options = ", ".join(f"{key}={_shown(value)}" for key, value in model_options(name).items())
        rows.append((name, f"{size:,}", options))
    show(("model", "parameters", "options and their defaults"), rows)


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
