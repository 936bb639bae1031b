from pathlib import Path

import pytest

from service.up.options import UpOptions


@pytest.mark.parametrize(
    "wrong",
    [
        {"events": Path("e")}, {"rate": 5.0}, {"demo": True, "items": Path("i")}, {"demo": True, "speed": 2.0},
        {"demo": True, "events": Path("e"), "rate": 1.0, "speed": 1.0}, {"scorers": 0}, {"seconds": -1.0},
        {"demo": True, "rate": float("nan")},
    ],
)  # fmt: skip
def test_options_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="--"):
        UpOptions(**wrong)  # type: ignore[arg-type]
