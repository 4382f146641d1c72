"""How often the system is called for an answer: once, where its head and its body are there at the same time."""

import pytest

from service.answers import Answers

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Transport:
    """Notes what is sent by each call."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        self.calls.append(b"".join(parts))

    def is_closing(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("answers", "calls"),
    [
        ([[b"head", b"body"]], [b"headbody"]),
        ([[b"head", b"some", b"more"]], [b"headsome", b"more"]),
        ([[CONTINUE, b"head", b"body"]], [CONTINUE, b"headbody"]),
        ([[b"head"]], [b"head"]),
        ([[b"head", b""]], [b"head"]),
        ([[b"head"], [b"head2", b"body2"]], [b"head", b"head2body2"]),
        ([[]], []),
    ],
    ids=["a body", "pieces", "continue", "no body", "an empty body", "two answers", "nothing"],
)
def test_a_head_is_sent_with_its_body(answers, calls):
    transport = Transport()
    sent = Answers(transport, list)
    for pieces in answers:
        sent.begin()
        for piece in pieces:
            sent.write(piece)
        sent.flush()
    assert transport.calls == calls


def test_what_was_written_is_sent_before_the_end():
    transport = Transport()
    sent = Answers(transport, lambda: transport.calls.append(b"end"))
    sent.begin()
    sent.write(b"head")
    sent.close()
    assert transport.calls == [b"head", b"end"]
