"""What docs/asking.md shows is what comes out."""

from __future__ import annotations

import doctest
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.tiny_models import save_cross_encoder

asked: list[dict[str, Any]] = []


class Chat(BaseHTTPRequestHandler):
    """A chat endpoint that has one answer."""

    def do_POST(self) -> None:
        assert self.path == "/v1/chat/completions"
        asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        answer = {"choices": [{"message": {"role": "assistant", "content": "Glue a patch on the hole [1]."}}]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Chat) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_the_page_is_true(url: str, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    names: dict[str, Any] = {"reranker": save_cross_encoder(tmp_path / "reranker")}
    failed, tried = doctest.testfile(str(ROOT / "docs" / "asking.md"), module_relative=False, globs=names)
    assert failed == 0
    assert tried > 30
    assert "[1] Mending a flat bicycle tyre" in asked[0]["messages"][0]["content"]
