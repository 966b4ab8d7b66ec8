"""A classifier behind HTTP on this machine, that can be told to misbehave."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Served", "serve"]

Pixels = NDArray[np.uint8]


@dataclass
class Served:
    """What an endpoint saw, and how it is to answer.

    Args:
        score: From ``(B, H, W, 3)`` uint8 pixels to what JSON can hold.
    """

    score: Callable[[Pixels], Any]
    url: str = ""
    batches: list[int] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    troubles: list[tuple[int, str]] = field(default_factory=list)  # states of the next answers
    delay_s: float = 0.0


@contextmanager
def serve(score: Callable[[Pixels], Any]) -> Iterator[Served]:
    """Run an endpoint until the block ends."""
    served = Served(score)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            served.times.append(time.monotonic())
            served.headers.append(dict(self.headers))
            if served.delay_s:
                time.sleep(served.delay_s)
            if served.troubles:
                state, text = served.troubles.pop(0)
                self.answer(state, text.encode())
                return
            pictures = [
                np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
                for text in json.loads(body)["pictures"]
            ]
            served.batches.append(len(pictures))
            self.answer(200, json.dumps({"scores": served.score(np.stack(pictures))}).encode())

        def answer(self, state: int, body: bytes) -> None:
            self.send_response(state)
            if 300 <= state < 400:
                self.send_header("Location", body.decode())
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):  # who asked may have gone
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            del arguments

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_address[1]}/score"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
