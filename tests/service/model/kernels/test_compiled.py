"""How compiled kernels are kept: where nothing can be written, and where a kernel has changed."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.model.kernels import compiled

SOURCE = Path(compiled.__file__).parent
INNER, OUTER = "inner.py", "outer.py"
TWO_KERNELS = {
    INNER: """
from service.model.kernels.compiled import kernel

@kernel
def inner(x):
    return x + 1
""",
    OUTER: """
from service.model.kernels.compiled import kernel
from service.model.kernels.inner import inner

@kernel
def outer(x):
    return 10 * inner(x)
""",
}
CALL = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from service.model.kernels.outer import outer
print(outer(1), len(outer.stats.cache_hits), "of", len(outer.signatures))
"""


@pytest.fixture
def kernels(tmp_path: Path) -> Iterator[Path]:
    """A folder of two kernels, one of which calls the other, in a package of their own."""
    folder = tmp_path / "service" / "model" / "kernels"
    folder.mkdir(parents=True)
    for package in (folder, folder.parent, folder.parent.parent):
        shutil.copy(SOURCE / "__init__.py", package)
    shutil.copy(compiled.__file__, folder)
    for name, text in TWO_KERNELS.items():
        (folder / name).write_text(text)
    yield folder
    for path in (folder, folder / "__pycache__"):
        if path.exists():
            path.chmod(stat.S_IRWXU)


def call(kernels: Path, *, writes: bool = True) -> list[str]:
    """What a process says that calls the outer one; where not `writes`, of a user whom permissions concern."""
    python = [sys.executable, "-B", "-c", CALL]
    if not writes and os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("root may write everywhere, and there is no setpriv")
        python = [setpriv, "--bounding-set=-dac_override", "--inh-caps=-dac_override", *python]
    environment = {**os.environ, "PYTHONPATH": str(kernels.parents[2])}
    found = subprocess.run(python, env=environment, cwd=kernels, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


def test_what_was_compiled_is_loaded_by_the_next_process(kernels: Path) -> None:
    assert call(kernels) == ["20 0 of 1"]
    assert call(kernels) == ["20 1 of 1"]


@pytest.mark.parametrize("name", [INNER, OUTER])
def test_a_change_in_one_kernel_is_noticed_by_those_that_call_it(kernels: Path, name: str) -> None:
    assert call(kernels) == ["20 0 of 1"]
    file = kernels / name
    file.write_text(file.read_text().replace("x + 1", "x + 4").replace("10 *", "25 *"))
    assert call(kernels) == [f"{50} 0 of 1"]


@pytest.mark.parametrize("kept", [False, True], ids=["nothing kept", "kept before"])
def test_a_file_system_that_cannot_be_written_is_no_obstacle(kernels: Path, kept: bool) -> None:
    if kept:
        call(kernels)
        (kernels / "__pycache__").chmod(stat.S_IRUSR | stat.S_IXUSR)
    kernels.chmod(stat.S_IRUSR | stat.S_IXUSR)
    *said, result = call(kernels, writes=False)
    assert result == f"20 {int(kept)} of 1"
    assert [line.partition(":")[0] for line in said] == (
        [] if kept else ["compiled kernels cannot be kept, so every process that starts compiles them"]
    )


def test_the_stamp_covers_the_sources_of_all_kernels(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "__file__", str(kernels / "compiled.py"))
    stamps = [compiled._sources.__wrapped__()]
    for name in (INNER, OUTER, "compiled.py"):
        with (kernels / name).open("a") as file:
            file.write("# changed\n")
        stamps.append(compiled._sources.__wrapped__())
    assert len(set(stamps)) == len(stamps)
