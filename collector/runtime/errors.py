"""What a command could not do."""


class CannotRun(Exception):
    """The command cannot run. The message is for its user: one line, with what to change."""
