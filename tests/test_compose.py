import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPOSE = (ROOT / "docker-compose.yml").read_text()


def services() -> dict[str, str]:
    """The text of each service of docker-compose.yml, by its indentation."""
    block = re.split(r"^\w.*\n", COMPOSE.partition("\nservices:\n")[2], flags=re.MULTILINE)[0]
    parts = re.split(r"^  ([\w-]+):\n", block, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def run(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


@pytest.mark.parametrize("profile", [(), ("--profile", "gpu")])
def test_compose_is_valid(profile: tuple[str, ...]) -> None:
    resolved = run("docker-compose", *profile, "config")
    assert "image: apache/kafka:" in resolved


def test_prometheus_configuration_is_valid() -> None:
    run("promtool", "check", "config", "deploy/prometheus.yml")


def test_alert_rules_are_valid() -> None:
    run("promtool", "check", "rules", "deploy/alerts.yml")


def test_there_is_everything_that_is_needed() -> None:
    assert set(services()) == {
        "kafka", "redis", "trainer", "trainer-gpu", "scorer-1", "scorer-2", "prometheus",
    }  # fmt: skip
    for name in ("kafka", "redis"):
        assert "healthcheck:" in services()[name]
    assert "appendonly" in services()["redis"]
    assert 'profiles: ["gpu"]' in services()["trainer-gpu"]


def test_each_of_our_services_runs_a_command_that_exists() -> None:
    commands = {
        name: found[1] for name, text in services().items() if (found := re.search(r'command: \["(\w+)"\]', text))
    }
    assert commands == {"trainer": "trainer", "trainer-gpu": "trainer", "scorer-1": "scorer", "scorer-2": "scorer"}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["trainer", "scorer"])
def test_the_command_line_knows_it(command: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    usage = [sys.executable, "-m", "service.cli", command, "--help"]
    assert subprocess.run(usage, env=environment, capture_output=True, timeout=60, check=False).returncode == 0


def test_prometheus_scrapes_each_of_our_services_at_its_port() -> None:
    ours = {
        f"{name}:{found[1]}"
        for name, text in services().items()
        if (found := re.search(r"TIDEMILL_METRICS_PORT: (\d+)", text))
    }
    targets = re.findall(r'"([\w-]+:\d+)"', (ROOT / "deploy" / "prometheus.yml").read_text())
    assert set(targets) == ours


def test_alerts_name_metrics_that_exist() -> None:
    from prometheus_client import generate_latest

    from service.metrics import ScorerMetrics, TrainerMetrics

    known = set()
    for metrics in (TrainerMetrics(), ScorerMetrics()):
        known |= set(re.findall(r"# TYPE (\w+) ", generate_latest(metrics.registry).decode()))
    for name in re.findall(r"tidemill_\w+", (ROOT / "deploy" / "alerts.yml").read_text()):
        assert name.removesuffix("_bucket") in known, name


def test_the_image_is_not_run_by_root_and_says_how_it_is() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^USER (?!root)", dockerfile, re.MULTILINE)
    assert "HEALTHCHECK" in dockerfile
    assert 'ENTRYPOINT ["tidemill"]' in dockerfile
    for copied in re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE):
        for source in copied.split():
            # what .dockerignore keeps out cannot be copied
            assert f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines(), source
