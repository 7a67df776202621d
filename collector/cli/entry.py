"""The entry point of the program: it loads the commands, and runs the one that was typed.

Invariants:
1. Ctrl-C while the commands load ends the process by that signal, without a traceback; a shell reports status 130
   (test_ctrl_c_while_the_commands_load_prints_nothing).
2. Characters that the terminal's encoding lacks are printed escaped (test_a_terminal_that_is_not_utf_8_gets_every_text).
"""

import io
import signal
import sys


def main() -> None:
    """Run the command that was typed."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as Python does for stderr
    handler = signal.getsignal(signal.SIGINT)
    # Python's own handler raises KeyboardInterrupt, which can't be caught inside an import. A signal that is ignored stays so.
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from collector.cli.main import main as run  # noqa: PLC0415  # it takes a second to load

    signal.signal(signal.SIGINT, handler)
    run()
