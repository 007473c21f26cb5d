"""Show the built book in a browser, from this machine alone: `python -m tools.serve [PORT]`."""

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tools.places import PAGES


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line per request."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def server(folder: Path = PAGES, port: int = 0) -> ThreadingHTTPServer:
    """A server of `folder` on this machine; port 0 takes any that is free."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(Quiet, directory=str(folder)))


def main() -> int:
    """Serve the book until interrupted."""
    if not (PAGES / "index.html").exists():
        print("There is no book yet: run `make book`.", file=sys.stderr)
        return 1
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    try:
        running = server(port=port)
    except OSError as error:
        print(f"Port {port}: {error.strerror}. Try `make serve PORT={port + 1}`.", file=sys.stderr)
        return 1
    print(f"The book is at http://localhost:{port}/ (Ctrl-C stops it)", flush=True)
    try:
        running.serve_forever()
    except KeyboardInterrupt:
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
