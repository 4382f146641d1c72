"""The process on the stub: `stub.Stub.call` starts it, with a function and its arguments on its standard input."""

import pickle
import sys
from pathlib import Path


def main(answer: Path) -> None:
    """Call the function, and leave what it returned or raised in a file."""
    function, arguments = pickle.load(sys.stdin.buffer)
    result, error = None, None
    try:
        result = function(*arguments)
    except Exception as raised:
        error = raised
    answer.write_bytes(pickle.dumps((result, error)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
