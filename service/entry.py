"""What the command `tidemill` starts with: no import here takes long, so a Ctrl-C is always met."""


def main() -> int:
    try:
        from service.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130
