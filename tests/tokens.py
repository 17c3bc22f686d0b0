"""An issuer of JSON Web Tokens: real keys, and a real HTTP server for the public ones."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER, AUDIENCE = "https://issuer.test/", "streamgate"


class Issuer:
    """Signs tokens with one key of each kind, and lists the public halves."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.ed = ed25519.Ed25519PrivateKey.generate()
        self.private: dict[str, Any] = {"rsa": self.rsa, "ec": self.ec, "ed": self.ed}

    def jwks(self, *kids: str, **more: Any) -> bytes:
        """The key set with these keys; `more` is added to each."""
        return json.dumps({"keys": [self.public(kid) | more for kid in kids or ("rsa", "ec", "ed")]}).encode()

    def public(self, kid: str) -> dict[str, Any]:
        algorithm: Any = {"rsa": RSAAlgorithm, "ec": ECAlgorithm, "ed": OKPAlgorithm}[kid]
        return {**algorithm.to_jwk(self.private[kid].public_key(), as_dict=True), "kid": kid}

    def token(self, kid: str = "rsa", algorithm: str = "", headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A good token, but for what is said otherwise; a claim of None is left out."""
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": time.time() + 600} | claims
        algorithm = algorithm or {"rsa": "RS256", "ec": "ES256", "ed": "EdDSA"}[kid]
        said = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(said, self.private[kid], algorithm, headers={"kid": kid} if headers is None else headers)


class Served:
    """The key set at a URL: what it answers, and how often it was asked."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked = 0
        self.go = threading.Event()
        self.go.set()
        self.arrived = threading.Event()
        self.url = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked += 1
        self.arrived.set()
        assert self.go.wait(10)
        with contextlib.suppress(OSError):  # whoever asked has gone
            request.send_response(self.status)
            for name, value in self.headers.items():
                request.send_header(name, value)
            request.send_header("content-length", str(len(self.body)))
            request.end_headers()
            request.wfile.write(self.body)


@contextlib.contextmanager
def served(body: bytes) -> Iterator[Served]:
    """A server on loopback while inside."""
    served = Served(body)

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}/jwks.json"
    try:
        yield served
    finally:
        served.go.set()
        server.shutdown()
        thread.join()
        server.server_close()
