"""The errors of commands."""


class CannotRun(Exception):
    """The command cannot run. The message is for its user: one line, with what to change."""
