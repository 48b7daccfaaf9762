"""Loading a configuration, and what a wrong one is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import ConfigError
from app.settings import Settings, load_settings

Load = Callable[..., Settings]
Refusal = Callable[..., str]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load this text as the file, with these variables and no others."""

    def load(text: str = "", **environ: str) -> Settings:
        file = tmp_path / "config.yml"
        file.write_text(text, "utf-8")
        return load_settings(file, environ)

    return load


@pytest.fixture
def refusal(load: Load, tmp_path: Path) -> Refusal:
    """What loading is refused with, without the directory of the file."""

    def refusal(text: str = "", **environ: str) -> str:
        with pytest.raises(ConfigError) as caught:
            load(text, **environ)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return refusal
