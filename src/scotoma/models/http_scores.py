"""Classifiers behind an HTTP endpoint: pictures out as JSON, scores back.

::

    POST URL   {"pictures": ["<PNG, base64>", ...]}      of the size that the JSON file names
    200        {"scores": [[0.1, 0.9], ...]}             one row (or one label) per picture

The JSON file beside it says how to ask::

    {"input_size": [3, 224, 224], "crop_pct": 0.875, "interpolation": "bilinear",
     "answers": "probabilities", "classes": ["cat", "dog"],
     "endpoint": {"headers": {"Authorization": "Bearer $TOKEN"}, "batch": 16,
                  "timeout_s": 30, "retries": 4, "per_second": 5}}

Pictures are resized and cropped here; the endpoint normalizes them as its model needs.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from scotoma.core.errors import ModelError, SettingsError, SilentModelError, UnknownNameError
from scotoma.models.answers import answers_of, as_logits
from scotoma.models.assembly import assemble
from scotoma.models.classifier import Classifier
from scotoma.models.config import read_config
from scotoma.models.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Endpoint", "HttpScores", "load_http"]

_BUSY = (408, 425, 429, 500, 502, 503, 504)  # states that may be over at the next try
_MOST_BYTES = 1 << 28
_SHOWN = 200


@dataclass(frozen=True)
class Endpoint:
    """How an endpoint is asked.

    Args:
        pictures: Name under which pictures are sent.
        scores: Name under which scores come back.
        headers: Sent with each request; ``$NAME`` is taken from the environment, so that no
            secret needs to lie in a file. They are in no message and in no representation.
        batch: Most pictures of one request.
        timeout_s: Seconds to wait for an answer.
        retries: How often a request is repeated that was not answered.
        pause_s: Seconds before the first repetition; doubled each time.
        per_second: Most requests in a second; None does not limit them.

    Raises:
        SettingsError: A number out of range.
    """

    pictures: str = "pictures"
    scores: str = "scores"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    batch: int = 16
    timeout_s: float = 30.0
    retries: int = 4
    pause_s: float = 0.5
    per_second: float | None = None

    def __post_init__(self) -> None:
        if not self.batch >= 1:
            raise SettingsError(f"expected a batch of at least 1, got {self.batch}")
        if not (self.retries >= 0 and self.pause_s >= 0):
            raise SettingsError(
                f"expected retries and pause_s of at least 0, got {self.retries}, {self.pause_s}"
            )
        if not self.timeout_s > 0:
            raise SettingsError(f"expected a positive timeout_s, got {self.timeout_s}")
        if self.per_second is not None and not self.per_second > 0:
            raise SettingsError(f"expected a positive per_second, got {self.per_second}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Endpoint:
        """Read the fields from ``endpoint`` in a model's JSON.

        Raises:
            UnknownNameError: A field that there is not.
            SettingsError: A value of the wrong type or out of range.
        """
        known = [item.name for item in fields(cls)]
        for name in config:
            if name not in known:
                raise UnknownNameError("setting of an endpoint", name, known)
        try:
            return cls(**config)
        except TypeError as error:
            raise SettingsError(f"expected settings of an endpoint, got: {error}") from error


class HttpScores:
    """An endpoint, called like a network.

    Args:
        url: Where pictures are posted.
        endpoint: How.
        preprocessing: What normalized inputs were made with; undone before they are sent.
        kind: Of answers, see :data:`scotoma.models.answers.ANSWERS`.
        classes: Number of classes, where the answers are labels.

    Security:
        Pictures, the private originals among them, go to the endpoint: it decides on them.
    """

    def __init__(
        self,
        url: str,
        endpoint: Endpoint,
        preprocessing: Preprocessing,
        *,
        kind: str = "logits",
        classes: int | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise SettingsError(f"expected an http:// or https:// address, got {url!r}")
        self.url = url
        self._opener = urllib.request.build_opener(_NoRedirect)
        self.endpoint = endpoint
        self._preprocessing = preprocessing
        self._kind = kind
        self._classes = classes
        self._headers = {name: _filled(text) for name, text in endpoint.headers.items()}
        self._next = 0.0

    def __call__(self, images: Tensor) -> Tensor:
        """Return ``(B, K)`` scores of ``(B, 3, H, W)`` normalized inputs.

        Raises:
            SilentModelError: The endpoint could not be reached, or did not answer in time.
            ModelError: It refused, or its answer has another form.
        """
        import torch

        rows = [self._ask(part) for part in torch.split(images, self.endpoint.batch)]
        try:
            answers = torch.cat([torch.tensor(part, dtype=torch.float32) for part in rows])
        except (TypeError, ValueError, RuntimeError) as error:
            raise ModelError(
                f"expected one row of numbers per picture from {self.url}, got: {error}"
            ) from error
        return as_logits(answers, self._kind, classes=self._classes).to(images.device)

    def _ask(self, images: Tensor) -> list[Any]:
        body = json.dumps({self.endpoint.pictures: [self._encode(image) for image in images]})
        answer = self._post(body.encode())
        try:
            found = json.loads(answer)[self.endpoint.scores]
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f'expected {{"{self.endpoint.scores}": [...]}} from {self.url}, got '
                f"{answer[:_SHOWN]!r}"
            ) from error
        if not isinstance(found, list) or len(found) != len(images):
            got = f"{len(found)}" if isinstance(found, list) else f"a {type(found).__name__}"
            raise ModelError(f"expected {len(images)} rows of scores from {self.url}, got {got}")
        return found

    def _encode(self, image: Tensor) -> str:
        import torch

        mean, std = (
            torch.tensor(part).view(3, 1, 1)
            for part in (self._preprocessing.mean, self._preprocessing.std)
        )
        pixels = ((image.cpu() * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, "png", compress_level=1)
        return base64.b64encode(buffer.getvalue()).decode("ascii")

    def _post(self, body: bytes) -> bytes:
        """Return the answer to a request, repeated where that may help."""
        pause, reason = self.endpoint.pause_s, ""
        for attempt in range(self.endpoint.retries + 1):
            if attempt:
                time.sleep(pause)
                pause *= 2
            self._wait()
            request = urllib.request.Request(  # noqa: S310 - only http and https get here
                self.url, body, {"Content-Type": "application/json", **self._headers}
            )
            try:
                with self._opener.open(request, timeout=self.endpoint.timeout_s) as answer:
                    content: bytes = answer.read(_MOST_BYTES)
                    return content
            except urllib.error.HTTPError as error:
                shown = error.read(_SHOWN).decode("utf-8", "replace").strip()
                reason = f"status {error.code} {shown}".strip()
                if error.code not in _BUSY:
                    raise ModelError(
                        f"expected {self.url} to answer, got {reason}; check the request's form "
                        "and the headers in the model's JSON"
                    ) from None
                pause = max(pause, _asked_pause(error.headers.get("Retry-After")))
            except TimeoutError:
                reason = f"no answer within {self.endpoint.timeout_s:g} s"
            except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
                reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise SilentModelError(
            f"expected {self.url} to answer, got {reason} after "
            f"{self.endpoint.retries + 1} tries; run the same command again when it does, what is "
            "done is not done again"
        )

    def _wait(self) -> None:
        """Keep to the rate."""
        if self.endpoint.per_second is None:
            return
        now = time.monotonic()
        time.sleep(max(0.0, self._next - now))
        self._next = max(now, self._next) + 1 / self.endpoint.per_second


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Headers may hold secrets, and pictures are private: neither follows to another address."""

    def redirect_request(self, *arguments: Any) -> None:  # noqa: ARG002
        return None


def load_http(spec: str, target: str, device: str) -> Classifier:
    """Return the classifier of ``http://HOST/PATH@FILE.json`` or of the same with ``https``.

    Raises:
        SettingsError: No JSON file is named, or a setting in it cannot be used.
        ModelError: The file is missing, or the endpoint does not answer as a classifier does.
    """
    url, _, file = spec.rpartition("@")
    if not target.startswith("//") or not url or not file.endswith(".json"):
        scheme = spec.partition(":")[0]
        raise SettingsError(
            f"expected {scheme}://HOST/PATH@FILE.json, with a JSON file that says how pictures "
            f"are sent, got {spec!r}"
        )
    config = read_config(Path(file).expanduser())
    preprocessing = Preprocessing.from_config(config)
    kind = answers_of(config)
    listed = config.get("classes")
    network = HttpScores(
        url,
        Endpoint.from_config(config.get("endpoint", {})),
        preprocessing,
        kind=kind,
        classes=len(listed) if isinstance(listed, list | dict) else None,
    )
    return assemble(
        spec,
        url.partition("//")[2],
        network,
        preprocessing,
        config,
        differentiable=False,
        device=device,
        labels_only=kind == "labels",
    )


def _filled(text: str) -> str:
    """Return a header with ``$NAME`` replaced from the environment; never shown in a message."""
    filled = os.path.expandvars(text).strip()
    if "$" in filled:
        raise SettingsError(
            f"expected the environment to have what the header {text!r} names, got no such "
            "variable; set it, for example: export TOKEN=..."
        )
    if not filled.isprintable():
        raise SettingsError(f"expected one line of text for the header {text!r}, got several")
    return filled


def _asked_pause(text: str | None) -> float:
    """Return the seconds that a busy endpoint asks for; 0 where it does not."""
    try:
        return min(60.0, max(0.0, float(text or 0)))
    except ValueError:
        return 0.0  # a date: the own pause must do
