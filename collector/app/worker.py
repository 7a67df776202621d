"""A worker process of the gateway or of the writer: `python -m collector.app.worker FD`, started by
collector/app/supervisor.py."""

import signal
import socket
import sys

from collector.app.worker_messages import receive_job


def main() -> int:
    """Run the worker until its end. Return the exit status."""
    # Ctrl-C goes to every process of the terminal, and the supervisor passes it on. The supervisor has blocked SIGINT here
    # until now, or Python would print a traceback while it starts.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    try:
        job = receive_job(connection)
    except EOFError:
        return 1
    from collector.app import roles  # noqa: PLC0415  # loading takes a second, so it waits for a job

    return roles.work(job, connection)


if __name__ == "__main__":
    sys.exit(main())
