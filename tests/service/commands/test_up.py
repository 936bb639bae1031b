"""`tidemill up` as a process, with stand-ins for trainer and scorers: what it starts, and that it leaves nothing."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_store.redis_connection import RedisConnection, connect
from service.commands.up import run_up
from service.local import embedded_kafka, embedded_redis, free_port
from service.up.options import UpOptions
from tests.patience import PATIENCE
from tests.service.processes import ROOT, all_gone, answers, group_of, is_running, python, until

STANDIN = str(Path(__file__).with_name("standin.py"))


def program(trainer: str = "", scorer: str = "", plain: bool = True, **options: object) -> str:
    """The source of a run of `up` with stand-ins; `trainer` and `scorer` are their further arguments."""
    commands = [
        f"{name}_command={(sys.executable, STANDIN, name, *more.split())!r}"
        for name, more in (("trainer", trainer), ("scorer", scorer))
    ]
    arguments = [*commands, *(f"{name}={value!r}" for name, value in options.items())]
    return (
        "import signal, sys\nfrom pathlib import *\n"
        "from service.commands.up import run_up\nfrom service.up.options import UpOptions\n"
        # the tests themselves may run under nohup, or in the background, where SIGINT is ignored
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.exit(run_up(UpOptions({', '.join(arguments)}), plain={plain}))"
    )


class Running:
    """A run of `up`, with its lines as they come."""

    def __init__(self, process: "subprocess.Popen[str]", temporary: Path) -> None:
        self.process = process
        self.temporary = temporary
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._threads = [
            threading.Thread(target=lambda stream=stream, into=into: into.extend(iter(stream.readline, "")))
            for stream, into in ((process.stdout, self.lines), (process.stderr, self.errors))
        ]
        for thread in self._threads:
            thread.start()
        self._redis: RedisConnection | None = None

    @property
    def text(self) -> str:
        return "".join(self.lines)

    @property
    def kafka(self) -> str:
        return str(re.findall(r"^Kafka (\S+)", self.text, re.MULTILINE)[0])

    @property
    def redis_address(self) -> str:
        return str(re.findall(r"^Redis redis://(\S+)/0", self.text, re.MULTILINE)[0])

    @property
    def redis(self) -> RedisConnection:
        if self._redis is None:
            self._redis = connect(f"redis://{self.redis_address}/0", timeout=2.0, retries=0)
        return self._redis

    def children(self) -> list[int]:
        """The stand-ins started so far, dead ones too."""
        return [int(pid) for pid in self.redis.call("LRANGE", "standin:pids", 0, -1)]

    def until_children(self, count: int) -> list[int]:
        assert until(lambda: "Redis" in self.text and self.text.endswith("\n")), self.errors
        assert until(lambda: len(self.children()) >= count, 20), (self.text, self.errors)
        return self.children()

    def everything(self) -> list[int]:
        """Every process that `up` is answerable for."""
        tree = subprocess.run(["ps", "-eo", "pid=,ppid=,pgid="], capture_output=True, text=True, check=True).stdout
        rows = [[int(field) for field in row.split()] for row in tree.splitlines()]
        own = [pid for pid, parent, _ in rows if parent == self.process.pid]
        return [member for pid in own for member in group_of(pid)]

    def end(self, number: int = signal.SIGINT, seconds: float = 20.0) -> int:
        self.process.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds: float = 20.0) -> int:
        status = self.process.wait(PATIENCE * seconds)
        for thread in self._threads:
            thread.join(5)
        return status

    def left(self, processes: list[int]) -> list[str]:
        """What is still there after the end."""
        all_gone(processes)
        return [
            *(f"process {pid}" for pid in processes if is_running(pid)),
            *(f"server at {address}" for address in (self.kafka, self.redis_address) if answers(address)),
            *(str(path) for path in self.temporary.iterdir()),
        ]

    def close(self) -> None:
        if self._redis is not None:
            self._redis.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def up(tmp_path: Path) -> Iterator["list[Running]"]:
    made: list[Running] = []
    yield made
    for running in made:
        running.close()


def start(up: list[Running], tmp_path: Path, source: str) -> Running:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    up.append(Running(python(source, temporary=temporary), temporary))
    return up[-1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ends_cleanly_when_asked(up: list[Running], tmp_path: Path, number: int) -> None:
    running = start(up, tmp_path, program(scorers=2))
    running.until_children(3)
    processes = running.everything()
    assert len(processes) == 5 * 2  # five children and their watchers
    assert running.end(number) == 0
    assert running.left(processes) == []
    assert running.errors == []


def test_says_how_to_publish_and_read(up: list[Running], tmp_path: Path) -> None:
    running = start(up, tmp_path, program())
    running.until_children(2)
    assert until(lambda: "Ctrl-C" in running.text)
    assert running.end() == 0
    assert f"TIDEMILL_KAFKA_BOOTSTRAP={running.kafka} tidemill replay -" in running.text
    assert f"TIDEMILL_REDIS_URL=redis://{running.redis_address}/0 tidemill recs u1" in running.text


@pytest.mark.slow
def test_the_shop_is_published_and_shown_and_it_ends_by_itself(up: list[Running], tmp_path: Path) -> None:
    running = start(up, tmp_path, program(scorer="--lists", demo=True, rate=200.0, seconds=14.0))
    running.until_children(2)
    processes = running.everything()
    assert running.wait(30) == 0
    assert running.left(processes) == []
    assert running.errors == []
    assert re.search(r"^0:1\d \| published (1[5-9]|2[0-4])\d/s \| learned [\d,]+/s", running.text, re.MULTILINE)
    assert re.search(r"trainer ok, scorer ok", running.text)
    assert re.search(r"^    \S+-\d{4}: .+ => .+;", running.text, re.MULTILINE)  # a shopper and their list, with titles
    assert re.search(r"^published [12],?\d+ events \(simulated shop, 200 events/s\)$", running.text, re.MULTILINE)
    assert re.search(r"^live version \d+, \d+ published in this run$", running.text, re.MULTILINE)


@pytest.mark.slow
def test_a_file_is_replayed_and_its_bad_lines_are_told(up: list[Running], tmp_path: Path) -> None:
    events, items = tmp_path / "e.jsonl", tmp_path / "i.jsonl"
    events.write_text('{"user_id":"u1","item_id":"i1","type":"click","ts":1}\n' * 300 + "rubbish\n")
    items.write_text('{"item_id":"i1","title":"A lamp"}\n')
    running = start(
        up, tmp_path, program(demo=True, events=events, items=items, rate=200.0, seconds=12.0, scorer="--lists")
    )
    running.until_children(2)
    assert running.wait(30) == 0
    assert "published 300 events, 1 not (e.jsonl, 200 events/s)" in running.text
    assert "100% of the file" in running.text
    assert "u1: click A lamp, click A lamp, click A lamp => A lamp" in running.text
    assert "e.jsonl, line 301: not_json: " in running.errors[0]


@pytest.mark.slow
def test_the_embedded_kafka_is_not_given_more_than_it_keeps(up: list[Running], tmp_path: Path) -> None:
    events = tmp_path / "e.jsonl"
    events.write_text(
        "".join(
            f'{{"user_id":"u{n}","item_id":"i1","type":"click","ts":1,"query":"{"x" * 300}"}}\n' for n in range(90_000)
        )
    )
    source = program(trainer="--stuck", demo=True, events=events, rate=1e6, seconds=8.0)
    running = start(up, tmp_path, source)
    running.until_children(2)
    assert running.wait(40) == 0
    published = int(re.findall(r"^published ([\d,]+) events", running.text, re.MULTILINE)[0].replace(",", ""))
    assert 20_000 < published < 45_000  # 10 MB of them


def test_a_killed_scorer_is_started_again(up: list[Running], tmp_path: Path) -> None:
    running = start(up, tmp_path, program())
    first = running.until_children(2)
    os.kill(first[1], signal.SIGKILL)
    os.kill(first[0], signal.SIGKILL)
    again = running.until_children(4)
    assert until(lambda: len(running.errors) == 4)
    assert sorted(line.split(" ")[0] for line in running.errors if line[0] != " ") == ["scorer", "trainer"]
    assert all("by itself (killed by SIGKILL), starting it again in 0.5 s" in x for x in running.errors if x[0] != " ")
    processes = running.everything()
    assert running.end() == 0
    assert running.left([*processes, *again]) == []


def test_it_ends_cleanly_with_one_of_them_dead(up: list[Running], tmp_path: Path) -> None:
    running = start(up, tmp_path, program(scorers=2))
    pids = running.until_children(3)
    processes = running.everything()
    os.kill(pids[-1], signal.SIGKILL)
    assert running.end() == 0
    assert running.left(processes) == []


@pytest.mark.slow
def test_it_gives_up_on_what_cannot_run(up: list[Running], tmp_path: Path) -> None:
    running = start(up, tmp_path, program(scorer="--status 1"))
    running.until_children(2)
    processes = running.everything()
    assert running.wait(60) == 1
    assert running.left(processes) == []
    assert running.errors[-1] == "tidemill up: scorer cannot be kept running: it died 5 times in a row\n"
    assert running.errors.count("    something is badly wrong\n") == 5


@pytest.mark.parametrize("which", ["trainer", "--grandchild --deaf"])
def test_nothing_is_left_when_it_is_killed_itself(up: list[Running], tmp_path: Path, which: str) -> None:
    running = start(up, tmp_path, program(trainer=which, demo=True))
    running.until_children(2)
    processes = running.everything()
    assert len(processes) >= 8
    running.process.kill()
    assert running.wait() == -signal.SIGKILL
    assert running.left(processes) == []


def test_a_dead_embedded_server_ends_it(up: list[Running], tmp_path: Path) -> None:
    running = start(up, tmp_path, program())
    running.until_children(2)
    processes = running.everything()
    os.kill(running.redis.call("INFO", "server")["process_id"], signal.SIGKILL)
    assert running.wait(30) == 1
    assert (
        running.errors[-1] == "tidemill up: the embedded Redis has died, and everything that was in it: start again\n"
    )
    assert running.left(processes) == []


@pytest.mark.slow
def test_a_deaf_child_gets_ten_seconds_unless_asked_twice(up: list[Running], tmp_path: Path) -> None:
    running = start(up, tmp_path, program(scorer="--deaf"))
    running.until_children(2)
    processes = running.everything()
    running.process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    assert running.process.poll() is None
    began = time.monotonic()
    assert running.end() == 0
    assert time.monotonic() - began < 5
    assert running.left(processes) == []


def test_configured_servers_are_used_and_stay(up: list[Running], tmp_path: Path) -> None:
    with embedded_kafka() as bootstrap, embedded_redis() as url:
        running = start(up, tmp_path, program(bootstrap=bootstrap, redis_url=url))
        running.until_children(2)
        assert (running.kafka, f"redis://{running.redis_address}/0") == (bootstrap, url)
        assert "embedded" not in running.text
        processes = running.everything()
        assert running.end() == 0
        assert all_gone(processes)
        assert answers(bootstrap)
        assert answers(running.redis_address)


@pytest.mark.slow
def test_ctrl_c_at_any_moment_of_the_start_leaves_nothing(up: list[Running], tmp_path: Path) -> None:
    for n, delay in enumerate((0.3, 0.6, 0.8, 1.0)):
        (tmp_path / str(n)).mkdir()
        running = start(up, tmp_path / str(n), program(demo=True))
        time.sleep(delay)
        own = running.everything()
        # before anything of ours runs, Python itself ends by the signal
        assert running.end() in (0, -signal.SIGINT, 1)
        assert all_gone(own)
        assert list(running.temporary.iterdir()) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_on_a_terminal_it_draws_and_the_terminals_ctrl_c_ends_it(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(PYTHONPATH=str(Path(__file__).parents[3]), TERM="xterm", COLUMNS="100", LINES="30")
        os.execv(sys.executable, [sys.executable, "-c", program(demo=True, plain=False, scorer="--lists")])
    drawn = b""

    def see(what: bytes, seconds: float = 20.0) -> bool:
        nonlocal drawn
        deadline = time.monotonic() + seconds
        while what not in drawn and time.monotonic() < deadline:
            try:
                drawn += os.read(terminal, 65536)
            except OSError:  # Linux says so at the end
                break
        return what in drawn

    try:
        assert see(b"Recommended now")
        os.write(terminal, b"\x03")
        assert see(b"measured before learning"), drawn[-2000:]  # the summary stays on the screen
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(terminal)


def test_what_is_not_there_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_up(UpOptions(redis_url=f"redis://127.0.0.1:{free_port()}/0")) == 1
    assert run_up(UpOptions(demo=True, events=tmp_path / "nothing.jsonl")) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("tidemill up: ")
    assert lines[1] == f"tidemill up: cannot read {tmp_path}/nothing.jsonl: No such file or directory"


def test_logs_can_be_kept(up: list[Running], tmp_path: Path) -> None:
    running = start(up, tmp_path, program(logs=tmp_path / "logs"))
    running.until_children(2)
    assert running.end() == 0
    assert (tmp_path / "logs" / "trainer.log").read_text() == "trainer is running\n"


@pytest.mark.parametrize("redirections", ["<&- >&-", "<&- >&- 2>&-"])
def test_it_starts_with_its_standard_streams_closed(redirections: str) -> None:
    code = f"from service.cli import repair_standard_streams\nrepair_standard_streams()\n{program(seconds=0.5)}"
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {redirections}', sys.executable, code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
