"""Python runs this at its start where the folder is on PYTHONPATH: so a process is armed that knows nothing of it."""

from tests.faults.kill_points import arm

arm()
