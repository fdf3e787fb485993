"""llama.cpp's side of `bench engine`: does what its standard input says, a line of JSON at a time.

{"load": path, "threads": n} makes it the model to measure; {"prefill": n} forgets everything and reads n tokens;
{"decode": n} goes on by n tokens, one at a time. The answers say how long it took: {"seconds": s}.
"""

import ctypes
import json
import sys
import time

import llama_cpp as ll

CONTEXT = 1024


class Loaded:
    """A model as llama.cpp's own bench loads it: mapped, repacked where its kernels want that, keys and values in f16."""

    def __init__(self, path, threads):
        self.model = ll.llama_model_load_from_file(path.encode(), ll.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama.cpp cannot load {path}")
        params = ll.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = CONTEXT, 512, 512
        params.n_threads = params.n_threads_batch = threads
        self.context = ll.llama_init_from_model(self.model, params)
        self.vocabulary = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self.model))
        self.past = 0

    def close(self):
        ll.llama_free(self.context)
        ll.llama_model_free(self.model)

    def run(self, count):
        tokens = [(7919 * (self.past + i) + 13) % self.vocabulary for i in range(count)]
        self.past += count
        array = (ll.llama_token * count)(*tokens)
        if ll.llama_decode(self.context, ll.llama_batch_get_one(array, count)) != 0:
            sys.exit("llama.cpp could not decode")
        ll.llama_get_logits_ith(self.context, -1)

    def prefill(self, count):
        ll.llama_memory_clear(ll.llama_get_memory(self.context), True)
        self.past = 0
        self.run(count)

    def decode(self, count):
        for _ in range(count):
            self.run(1)


def quiet(_level, _text, _data):
    pass


QUIET = ll.llama_log_callback(quiet)


def main():
    ll.llama_log_set(QUIET, ctypes.c_void_p(0))
    loaded = None
    for line in sys.stdin:
        order = json.loads(line)
        started = time.perf_counter()
        if "load" in order:
            if loaded:
                loaded.close()
            loaded = Loaded(order["load"], order["threads"])
        elif "prefill" in order:
            loaded.prefill(order["prefill"])
        else:
            loaded.decode(order["decode"])
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)


main()
