#!/usr/bin/env python3
"""Writes tests/data/reference/perplexity.json: llama.cpp's perplexity of tests/data/text/gpl-2.txt.

The text's first 6 x 512 tokens; of each 512 the first is replaced by the beginning of text where the model has one, and
the last 255 are scored, as llama.cpp's own tool does. Flash attention rounds differently in llama.cpp, so both settings are
written; ours is held to the one with it, which is what llama.cpp does unless told otherwise. Needs `pip install llama-cpp-python` and the models that
tests/scripts/fetch-models fetches; run from the repository root.
"""

import json
import os
import pathlib
import sys

import llama_cpp
import numpy as np

MODELS = pathlib.Path(os.environ.get("MESHWRIGHT_MODELS") or "target/models")
TEXT = pathlib.Path("tests/data/text/gpl-2.txt")
CONTEXT, CHUNKS = 512, 6


def perplexity(path, flash_attention):
    model = llama_cpp.Llama(
        str(path),
        n_ctx=CONTEXT,
        n_batch=CONTEXT,
        n_threads=2,
        n_threads_batch=2,
        flash_attn=flash_attention,
        logits_all=True,
        verbose=False,
    )
    starts = model.metadata.get("tokenizer.ggml.add_bos_token") == "true" or "gemma" in path.name
    tokens = model.tokenize(TEXT.read_bytes(), add_bos=starts)
    losses = []
    for chunk in range(CHUNKS):
        ids = list(tokens[chunk * CONTEXT : (chunk + 1) * CONTEXT])
        if starts:
            ids[0] = model.token_bos()
        model.reset()
        model.eval(ids)
        logits = np.array(model.scores[CONTEXT // 2 : CONTEXT - 1], dtype=np.float64)
        largest = logits.max(1)
        total = largest + np.log(np.exp(logits - largest[:, None]).sum(1))
        next_ids = ids[CONTEXT // 2 + 1 :]
        losses += list(total - logits[np.arange(len(next_ids)), next_ids])
    return float(np.exp(np.mean(losses))), len(losses), starts


def found(path):
    without, scored, starts = perplexity(path, False)
    with_flash, _, _ = perplexity(path, True)
    return {
        "perplexity": without,
        "perplexity_with_flash_attention": with_flash,
        "scored": scored,
        "begins_text": starts,
    }


def main():
    if not TEXT.exists():
        sys.exit("run this from the root of the repository")
    models = {path.stem: found(path) for path in sorted(MODELS.glob("*.gguf"))}
    out = {"llama_cpp_python": llama_cpp.__version__, "context": CONTEXT, "chunks": CHUNKS, "models": models}
    pathlib.Path("tests/data/reference/perplexity.json").write_text(json.dumps(out, indent=1) + "\n")


main()
