"""HTTP/2 (RFC 9113) without I/O: frames, streams, flow control, header compression."""
