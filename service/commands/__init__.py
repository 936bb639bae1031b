"""The commands, one a file: `arguments` adds what a command can be given, `run` does it and returns the exit code."""
