"""The entry point of the command: it loads the commands, and runs the one that was typed.

Invariants:
1. Ctrl-C while the commands load ends the process by that signal, without a traceback; a shell reports status 130
   (test_ctrl_c_while_the_commands_load_prints_nothing).
"""

import signal


def main() -> None:
    """Run the command that was typed."""
    handler = signal.getsignal(signal.SIGINT)
    # Python's own handler raises KeyboardInterrupt, which nobody can catch inside an import. One that is ignored stays ignored.
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from collector.cli.main import main as run  # noqa: PLC0415  # a second to load

    signal.signal(signal.SIGINT, handler)
    run()
