"""What a command could not do."""


class CannotRun(Exception):
    """The message is for whoever typed the command: one line, with what to change."""
