"""What connections of every protocol share: sockets, TLS, deadlines, shutdown."""
