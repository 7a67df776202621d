"""The parts that connections of every protocol share: sockets, TLS, deadlines, shutdown."""
