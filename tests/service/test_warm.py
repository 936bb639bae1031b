"""What is compiled when an environment is made: all that a process calls, so that none waits for a compiler."""

import subprocess
import sys

LEFT_OUT = {
    "log", "largest",  # called by kernels alone, which hold them
    "place_in_list",  # of the network, which is off by default
}  # fmt: skip

LACKING = """
import importlib, pkgutil
from service.model import kernels
from service.warm import warm
warm()
for found in pkgutil.iter_modules(kernels.__path__):
    module = importlib.import_module(f"{kernels.__name__}.{found.name}")
    for name, value in vars(module).items():
        if name[0] != "_" and hasattr(value, "signatures") and value.py_func.__module__ == module.__name__:
            print(name, len(value.signatures))
"""


def test_every_kernel_is_compiled() -> None:
    told = subprocess.run([sys.executable, "-c", LACKING], capture_output=True, text=True, check=True).stdout
    calls = {name: int(n) for name, n in map(str.split, told.splitlines())}
    assert len(calls) > 10
    assert {name for name, n in calls.items() if n == 0} == LEFT_OUT
