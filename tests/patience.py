"""How much longer a test waits than a machine of its own would need: tests run side by side, and on busy machines.

Where a condition is waited for, patience costs nothing until it fails.
"""

PATIENCE = 6
