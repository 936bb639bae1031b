"""What the docs say of metrics, settings, commands, keys and files is what the code has."""

import argparse
import ast
import json
import re
from pathlib import Path

import pytest

from consumers.decode import Reason
from service.cli import build_parser, load
from service.metrics import ConsumerMetrics, ScorerMetrics, TrainerMetrics
from service.settings_text import settings_table

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()

LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?<![\w/.-])tidemill ([a-z][a-z-]*)((?:[ \t]+[^\s`#;|]+)*)")


def rows(page: str, marker: str) -> list[list[str]]:
    """The cells of the table between `<!-- marker: ... -->` and `<!-- end of marker -->`, without its head."""
    found = re.search(rf"<!-- {marker}:.*?-->\n(.*?)<!-- end of {marker} -->", page, re.DOTALL)
    assert found is not None, f"there is no table marked {marker!r}"
    lines = [line for line in found[1].splitlines() if line.startswith("|")]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def code_of(page: str) -> str:
    """What stands in backticks or in a fenced block: there a name is meant as it stands."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    return "\n".join([*fenced, *re.findall(r"`([^`\n]+)`", rest)])


def commands() -> dict[str, argparse.ArgumentParser]:
    parsers = build_parser()[1]
    for name, parser in parsers.items():
        load(name).arguments(parser)
    return parsers


def metrics_of(metrics: ConsumerMetrics) -> dict[str, tuple[str, str]]:
    """Name as exposed -> (labels as the docs write them, kind)."""
    found = {}
    for metric in vars(metrics).values():
        if hasattr(metric, "describe") and hasattr(metric, "_labelnames"):
            (family,) = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = (", ".join(f"`{label}`" for label in metric._labelnames), family.type)
    return found


def test_every_setting_is_in_the_readme_as_it_is() -> None:
    wanted = [[f"`{variable}`", default, meaning] for variable, default, meaning in settings_table()]
    assert rows(README, "settings") == wanted


def test_every_metric_is_in_the_docs_as_it_is() -> None:
    trainer, scorer = metrics_of(TrainerMetrics()), metrics_of(ScorerMetrics())
    assert len(trainer) > 20
    assert len(scorer) > 15
    wanted = {}
    for name, (labels, kind) in {**trainer, **scorer}.items():
        of = "both" if name in trainer and name in scorer else "trainer" if name in trainer else "scorer"
        wanted[f"`{name}`"] = (labels, kind, of)
    documented = rows(OPERATIONS, "metrics")
    assert {name: (labels, kind, of) for name, labels, kind, of, _ in documented} == wanted
    assert len(documented) == len(wanted)
    assert all(meaning for *_, meaning in documented)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_metrics_that_are_named_exist(page: Path) -> None:
    known = metrics_of(TrainerMetrics()) | metrics_of(ScorerMetrics())
    named = set(re.findall(r"\btidemill_\w+", code_of(page.read_text())))
    assert named <= known.keys()


def test_every_reason_of_a_reject_is_in_the_docs() -> None:
    assert [word for word in re.findall(r"^\| `(\w+)` \|", OPERATIONS, re.MULTILINE) if word in set(Reason)] == list(
        Reason
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_that_are_named_exist(page: Path) -> None:
    known = {variable for variable, _, _ in settings_table()}
    assert set(re.findall(r"\bTIDEMILL_[A-Z_]*[A-Z]", page.read_text())) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for _, target in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+://", target) or target.startswith("#"):
            continue
        there = (page.parent / target.split("#")[0]).resolve()
        assert there.is_relative_to(ROOT), f"{target} leads out of the repository"
        assert there.exists(), f"{target} does not exist"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_linked_by_its_name_is_defined_there(page: Path) -> None:
    """[`Scorer.turn`](../service/scoring/scorer.py): the file defines a Scorer that has a turn."""
    for text, target in LINK.findall(page.read_text()):
        name = text.strip("`")
        if text.startswith("`") and target.endswith(".py") and re.fullmatch(r"\w+(\.\w+)?", name):
            assert name in defined_in((page.parent / target).resolve()), f"{target} does not define {name}"


def defined_in(path: Path) -> set[str]:
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_named_exist(page: Path) -> None:
    known = commands()
    for name, rest in COMMAND.findall(code_of(page.read_text())):
        assert name in known, f"there is no `tidemill {name}`"
        options = {option for action in known[name]._actions for option in action.option_strings}
        for word in re.findall(r"--[a-z][a-z-]*", rest):
            assert word in options, f"`tidemill {name}` has no {word}"


def test_every_command_is_in_the_readme() -> None:
    assert {f"`tidemill {name}" for name in commands()} <= {
        found[0] for found in re.finditer(r"`tidemill [a-z-]+", README.partition("\n## Commands\n")[2])
    }


def test_examples_are_whole() -> None:
    for language, example in re.findall(r"^```(python|json)\n(.*?)^```", README + OPERATIONS, re.DOTALL | re.MULTILINE):
        if language == "python":
            compile(example, "README.md", "exec")
        else:
            json.loads(example)
