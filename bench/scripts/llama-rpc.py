"""llama.cpp over its RPC, for `beside-llama-rpc`: a server, or a host that does what its standard input says.

    llama-rpc.py serve HOST:PORT THREADS
    llama-rpc.py host THREADS LAYERS [HOST:PORT ...] < orders

A host leaves its last LAYERS layers (the output counts as one) to the servers, in equal parts. An order is a line of JSON,
{"load": path} or {"prompt": text, "tokens": n}; the answer to the second is {"text", "tokens", "came_s"}: when each token was
there, in seconds since the order.
"""

import ctypes
import json
import sys
import time

import llama_cpp as ll
import numpy

def function(library, name, result, *arguments):
    """A function of one of ggml's libraries, which the package does not wrap."""
    # By the name under which llama.cpp has loaded it: the file's path would load it a second time, and what is registered
    # there llama.cpp does not see.
    found = getattr(ctypes.CDLL(f"lib{library}.so.0"), name)
    found.restype, found.argtypes = result, list(arguments)
    return found


def serve(endpoint, threads):
    by_type = function("ggml", "ggml_backend_dev_by_type", ctypes.c_void_p, ctypes.c_int)
    start = function(
        "ggml-rpc", "ggml_backend_rpc_start_server", None,
        ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.POINTER(ctypes.c_void_p),
    )
    processor = (ctypes.c_void_p * 1)(by_type(0))
    # Without a cache of weights on its disk.
    start(endpoint.encode(), None, int(threads), 1, processor)
    sys.exit(f"the RPC server at {endpoint} has ended")


class Host:
    def __init__(self, threads, layers, servers):
        self.threads, self.layers, self.servers = int(threads), int(layers), len(servers)
        add = function("ggml-rpc", "ggml_backend_rpc_add_server", ctypes.c_void_p, ctypes.c_char_p)
        register = function("ggml", "ggml_backend_register", None, ctypes.c_void_p)
        for endpoint in servers:
            server = add(endpoint.encode())
            if not server:
                sys.exit(f"there is no RPC server at {endpoint}")
            register(server)
        count = function("ggml", "ggml_backend_dev_count", ctypes.c_size_t)()
        if count != 1 + len(servers):
            sys.exit(f"llama.cpp sees {count} devices, not its processor and {len(servers)} servers")

    def load(self, path):
        params = ll.llama_model_default_params()
        params.n_gpu_layers = self.layers
        shares = (ctypes.c_float * ll.llama_max_devices())(*[1.0] * self.servers)
        params.tensor_split = shares
        self.model = ll.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            sys.exit(f"llama.cpp cannot load {path}")
        params = ll.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = 1024, 512, 512
        params.n_threads = params.n_threads_batch = self.threads
        self.context = ll.llama_init_from_model(self.model, params)
        self.vocabulary = ll.llama_model_get_vocab(self.model)
        return {}

    def decode(self, tokens):
        """Reads the tokens and gives the likeliest next one."""
        # The batch points into it.
        array = (ll.llama_token * len(tokens))(*tokens)
        if ll.llama_decode(self.context, ll.llama_batch_get_one(array, len(tokens))) != 0:
            sys.exit("llama.cpp could not decode")
        logits = ll.llama_get_logits_ith(self.context, -1)
        count = ll.llama_vocab_n_tokens(self.vocabulary)
        return int(numpy.ctypeslib.as_array(logits, (count,)).argmax())

    def answer(self, prompt, count):
        text = prompt.encode()
        room = (ll.llama_token * (len(text) + 8))()
        tokens = room[: ll.llama_tokenize(self.vocabulary, text, len(text), room, len(room), True, True)]
        ll.llama_memory_clear(ll.llama_get_memory(self.context), True)
        started, came, said = time.perf_counter(), [], []
        while len(said) < count:
            said.append(self.decode(tokens if not said else said[-1:]))
            came.append(time.perf_counter() - started)
        return {"text": "".join(map(self.piece, said)), "tokens": len(said), "came_s": came}

    def piece(self, token):
        room = ctypes.create_string_buffer(64)
        length = ll.llama_token_to_piece(self.vocabulary, token, room, len(room), 0, False)
        return room.raw[: max(length, 0)].decode(errors="replace")


def quiet(_level, _text, _data):
    pass


QUIET = ll.llama_log_callback(quiet)


def host(threads, layers, *servers):
    ll.llama_log_set(QUIET, ctypes.c_void_p(0))
    machine = Host(threads, layers, servers)
    for line in sys.stdin:
        order = json.loads(line)
        done = machine.load(order["load"]) if "load" in order else machine.answer(order["prompt"], order["tokens"])
        print(json.dumps(done), flush=True)


if __name__ == "__main__":
    {"serve": serve, "host": host}[sys.argv[1]](*sys.argv[2:])
