import os

import pytest


@pytest.fixture
def clean_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting has its default."""
    for name in [name for name in os.environ if name.upper().startswith("TIDEMILL_")]:
        monkeypatch.delenv(name)
