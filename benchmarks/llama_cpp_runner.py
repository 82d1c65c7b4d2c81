"""llama.cpp behind the few calls that a comparison needs; through llama-cpp-python's low-level interface.

Build it for this machine: CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python llama-cpp-python
"""

from __future__ import annotations

import ctypes

import llama_cpp as api


class LlamaCppRunner:
    """A context of llama.cpp with room for `sequences` × `length` positions."""

    name = "llama.cpp"

    def __init__(self, path: str, threads: int, length: int, sequences: int = 1) -> None:
        self._quiet = api.llama_log_callback(lambda *_: None)
        api.llama_log_set(self._quiet, ctypes.c_void_p(0))
        api.llama_backend_init()
        params = api.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = api.llama_model_load_from_file(path.encode(), params)
        options = api.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = length * sequences, 2048, 512
        options.n_threads = options.n_threads_batch = threads
        options.n_seq_max = sequences
        self.context = api.llama_init_from_model(self.model, options)
        if not self.context:
            raise SystemExit(f"llama.cpp cannot open {path}")
        self.memory = api.llama_get_memory(self.context)
        self.batch = api.llama_batch_init(2048, 0, 1)

    def forward(self, items: list[tuple[list[int], int, int]]) -> None:
        """Each (ids, start, sequence); logits of the last id of each."""
        batch, n = self.batch, 0
        for ids, start, sequence in items:
            for i, id in enumerate(ids):
                batch.token[n], batch.pos[n], batch.n_seq_id[n] = id, start + i, 1
                batch.seq_id[n][0], batch.logits[n] = sequence, i == len(ids) - 1
                n += 1
        batch.n_tokens = n
        if api.llama_decode(self.context, batch):
            raise SystemExit("llama_decode failed")
        api.llama_synchronize(self.context)

    def trim(self, sequence: int, length: int) -> None:
        """Forget what lies behind `length` positions."""
        api.llama_memory_seq_rm(self.memory, sequence, length, -1)

    def close(self) -> None:
        """Give the memory back."""
        api.llama_batch_free(self.batch)
        api.llama_free(self.context)
        api.llama_model_free(self.model)
