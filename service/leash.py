"""A child process that cannot outlive us, nor can anything it started: not even when we are killed without warning.

A child gets a session of its own, so the terminal's Ctrl-C reaches only us and we decide the order of ending. Between
us and the command stands a launcher (this file, run as a script): it leaves a watcher in the child's process group and
then becomes the command. The watcher holds the reading end of a pipe that nobody ever writes to; when we die, however
we die, the kernel closes the writing end, the watcher reads the end of the file and kills the group.

Why not `PR_SET_PDEATHSIG`: it is Linux only, it fires when the *thread* that started the child ends, and it reaches
the child but not what the child started. Why a watcher of its own: the command may know nothing of us, as Redis.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

LOG_LIMIT_BYTES = 32 * 1024 * 1024
_TAIL_BYTES = 16 * 1024
_CANNOT_EXECUTE = 127  # as shells say it


class Child:
    """A command running on a leash, with its output in a log.

    The log is a file without a name, so that nothing is left of it in any case, or `log_path`, which is appended to.
    Raises OSError when no process can be made; a command that cannot be executed ends with 127 and says so in the log.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        directory: str | None = None,
        log_path: Path | None = None,
        output_to_us: bool = False,
    ) -> None:
        self.command = tuple(command)
        self._log = open(log_path, "ab+") if log_path is not None else tempfile.TemporaryFile("w+b")  # noqa: SIM115
        # the child goes on at the end after `trim_log`
        flags = fcntl.fcntl(self._log, fcntl.F_GETFL)
        fcntl.fcntl(self._log, fcntl.F_SETFL, flags | os.O_APPEND)
        watched, self._leash = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, str(watched), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if output_to_us else self._log,
                stderr=self._log,
                env=None if environment is None else dict(environment),
                cwd=directory,
                pass_fds=(watched,),
                start_new_session=True,
            )
        except BaseException:
            os.close(self._leash)
            self._log.close()
            raise
        finally:
            os.close(watched)
        self._ended = False

    @property
    def pid(self) -> int:
        """The command's process id, which is also its process group's."""
        return self._process.pid

    @property
    def output(self) -> IO[bytes]:
        """The command's standard output; only with `output_to_us`."""
        assert self._process.stdout is not None
        return self._process.stdout

    def poll(self) -> int | None:
        """The exit status (minus the signal's number when a signal ended it), or None while it runs."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        """Send the command a signal; nothing happens when it has ended."""
        self._process.send_signal(number)

    def stop(self, grace_seconds: float = 0.0) -> int:
        """End the command and all of its group, and return its exit status. May be called again.

        With a grace it gets SIGTERM first and that many seconds; then, and in any case for what is left of the group,
        SIGKILL.
        """
        if self._ended:
            return self._process.wait()
        if grace_seconds > 0 and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.send_signal(signal.SIGCONT)  # a stopped process does not see SIGTERM before it goes on
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_seconds)
        # The watcher is in the group until now, so the number cannot belong to anyone else yet. macOS answers "not
        # permitted" when only dead ones are left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        os.close(self._leash)
        self._ended = True
        return status

    def tail(self, lines: int = 20) -> list[str]:
        """The last lines of the log, without control characters."""
        descriptor = self._log.fileno()
        size = os.fstat(descriptor).st_size
        # pread: the position in the file is the child's too, and must stay where it is
        raw = os.pread(descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        text = raw.decode(errors="replace").rstrip()
        return ["".join(c if c.isprintable() else " " for c in line).rstrip() for line in text.splitlines()[-lines:]]

    def trim_log(self) -> None:
        """Empty a log without a name that has grown too large, so that days of running do not fill the disk."""
        if os.fstat(self._log.fileno()).st_size > LOG_LIMIT_BYTES and isinstance(self._log.name, int):
            os.ftruncate(self._log.fileno(), 0)

    def close(self) -> None:
        """End what is left, and let go of the log."""
        self.stop()
        self._log.close()


def describe(status: int) -> str:
    """An exit status in words: "killed by SIGKILL", "exit status 1"."""
    if status < 0:
        try:
            return f"killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"killed by signal {-status}"
    return f"exit status {status}"


def end_together(children: Sequence[Child], grace_seconds: float, hurry: Callable[[], bool] = lambda: False) -> None:
    """End several children at once: all get SIGTERM and share one grace; what is left, or on `hurry`, is killed."""
    for child in children:
        if child.poll() is None:
            child.signal(signal.SIGTERM)
            child.signal(signal.SIGCONT)
    deadline = time.monotonic() + grace_seconds
    while any(child.poll() is None for child in children) and time.monotonic() < deadline and not hurry():
        time.sleep(0.01)
    for child in children:
        child.stop()


def _watch(pipe: int) -> None:
    """Wait until the other end of the pipe is closed, then kill the group, ourselves included."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # whoever reads the command's output must see its end
        os.dup2(nothing, standard)
    os.read(pipe, 1)
    os.killpg(0, signal.SIGKILL)


def _launch(pipe: int, command: list[str]) -> None:
    # forked twice, so that the command does not find a child it does not know
    first = os.fork()
    if first == 0:
        if os.fork() == 0:
            _watch(pipe)
        os._exit(0)
    os.waitpid(first, 0)
    os.close(pipe)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot execute {command[0]}: {error.strerror}\n".encode())
        os._exit(_CANNOT_EXECUTE)


if __name__ == "__main__":
    _launch(int(sys.argv[1]), sys.argv[2:])
