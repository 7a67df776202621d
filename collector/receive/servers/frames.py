"""What the frames of an HTTP/2 connection cost, told from their headers before anything else reads them.

The law: what a client makes us do is paid for by what it sends us to keep. Data and answered requests earn; pings, settings,
empty frames and, most of all, resets cost; a connection with nothing left is closed. No frame and no head is too large.
"""

from typing import Final

from h2.errors import ErrorCodes

# RFC 9113: a frame's header (9.1 of them: length 3, type 1, flags 1, stream 4), and the types that are told apart.
_HEADER_BYTES: Final = 9
_DATA: Final = 0
_HEADERS: Final = 1
_RST_STREAM: Final = 3
_CONTINUATION: Final = 9
_END_HEADERS: Final = 4
# The least that a client may be told, and we tell no other.
FRAME_BYTES_MAX: Final = 16_384
# Frames this large, or answers of so many bytes, pay for one frame that carries nothing.
_BYTES_A_FRAME: Final = 256
# A reset wastes what was begun for its request; an answered request has been worth as much.
_RESET_COST: Final = 20
_ANSWER_WORTH: Final = 20


class Flood(Exception):
    """The client sends what it must not, or more than it earns. `code`: what GOAWAY says."""

    def __init__(self, code: ErrorCodes) -> None:
        super().__init__(code)
        self.code: Final = code


class FrameMeter:
    """One for a connection: `feed` it all that comes in."""

    def __init__(self, preface_bytes: int, control_frames_max: int, header_bytes_max: int) -> None:
        """`header_bytes_max`: of one head as sent, compressed, in however many frames."""
        self._credit_max: Final = control_frames_max
        self._header_bytes_max: Final = header_bytes_max
        self._credit = control_frames_max
        self._left_bytes = preface_bytes  # of the frame at hand
        self._header = b""  # the part of a frame's header that is here
        self._head_bytes = 0
        self._in_head = False
        self.frames = 0  # that were begun

    @property
    def is_between(self) -> bool:
        """Whether neither a frame nor a head is half here."""
        return not (self._left_bytes or self._header or self._in_head)

    def feed(self, data: bytes) -> None:
        """Raises Flood."""
        at, end = 0, len(data)
        while at < end:
            if self._left_bytes:
                step = min(self._left_bytes, end - at)
                self._left_bytes -= step
                at += step
                continue
            header = self._header + data[at : at + _HEADER_BYTES - len(self._header)]
            at += len(header) - len(self._header)
            if len(header) < _HEADER_BYTES:
                self._header = header
                return
            self._header = b""
            self._begin(int.from_bytes(header[:3], "big"), header[3], header[4])

    def _begin(self, length_bytes: int, type_: int, flags: int) -> None:
        if length_bytes > FRAME_BYTES_MAX:
            raise Flood(ErrorCodes.FRAME_SIZE_ERROR)
        self.frames += 1
        self._left_bytes = length_bytes
        if type_ == _HEADERS or type_ == _CONTINUATION:
            self._head_bytes = length_bytes + (self._head_bytes if type_ == _CONTINUATION else 0)
            self._in_head = not flags & _END_HEADERS
            if self._head_bytes > self._header_bytes_max:
                raise Flood(ErrorCodes.ENHANCE_YOUR_CALM)
        if type_ == _DATA:
            self._earn(length_bytes // _BYTES_A_FRAME - 1)
        elif type_ != _HEADERS:  # how many requests there may be at once is limited elsewhere
            self._earn(-_RESET_COST if type_ == _RST_STREAM else -1)
        if self._credit < 0:
            raise Flood(ErrorCodes.ENHANCE_YOUR_CALM)

    def answered(self) -> None:
        """A request was."""
        self._earn(_ANSWER_WORTH)

    def sent(self, size_bytes: int) -> None:
        """A frame of an answer, which the client will acknowledge."""
        self._earn(1 + size_bytes // _BYTES_A_FRAME)

    def _earn(self, frames: int) -> None:
        self._credit = min(self._credit_max, self._credit + frames)
