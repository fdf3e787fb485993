#!/usr/bin/env python3
"""Writes the golden vectors of node/src/real/formats/golden with llama.cpp's own code.

For each format one file: the blocks that llama.cpp makes of input.f32, then blocks of random bits, then what it widens
those to (f32). Needs `pip install llama-cpp-python numpy`; run from the repository root.
"""

import ctypes
import pathlib
import sys

import llama_cpp
import numpy as np

GOLDEN = pathlib.Path("node/src/real/formats/golden")
# Name, number in ggml.h, weights and bytes of a block, where its half-precision scales stand.
FORMATS = [
    ("F16", 1, 1, 2, []),
    ("BF16", 30, 1, 2, []),
    ("Q4_0", 2, 32, 18, [0]),
    ("Q4_1", 3, 32, 20, [0, 2]),
    ("Q5_0", 6, 32, 22, [0]),
    ("Q5_1", 7, 32, 24, [0, 2]),
    ("Q8_0", 8, 32, 34, [0]),
    ("Q2_K", 10, 256, 84, [80, 82]),
    ("Q3_K", 11, 256, 110, [108]),
    ("Q4_K", 12, 256, 144, [0, 2]),
    ("Q5_K", 13, 256, 176, [0, 2]),
    ("Q6_K", 14, 256, 210, [208]),
    ("IQ4_NL", 20, 32, 18, [0]),
    ("IQ4_XS", 23, 256, 136, [0]),
    ("MXFP4", 39, 32, 17, []),
]
RANDOM_WEIGHTS = 512


def library():
    folder = pathlib.Path(llama_cpp.__file__).parent / "lib"
    return ctypes.CDLL(str(folder / "libggml-base.so"))


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def inputs(rng):
    """Rows of 256 that stand for what weights look like, and for what makes a quantiser stumble."""
    normal = rng.standard_normal(256) * 0.05
    gaps = rng.standard_normal(256)
    gaps[32:80] = 0
    rows = [
        normal,
        rng.standard_normal(256) * rng.lognormal(0, 2, 256),
        np.abs(rng.standard_normal(256)) + 0.5,
        -np.abs(rng.standard_normal(256)),
        gaps,
        np.full(256, 0.125),
        np.zeros(256),
        rng.standard_normal(256) * 1e-6,
        np.repeat(rng.standard_normal(16), 16),
        rng.integers(-4, 5, 256).astype(float),
        rng.standard_t(2, 256) * 10,
        rng.uniform(-1, 1, 256),
    ]
    return np.concatenate(rows).astype(np.float32)


def quantised(ggml, kind, weights, bytes_, x):
    out = np.zeros(len(x) // weights * bytes_, np.uint8)
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    rows, width = len(x) // 256, 256
    written = ggml.ggml_quantize_chunk(
        kind, pointer(x), pointer(out), ctypes.c_int64(0), ctypes.c_int64(rows), ctypes.c_int64(width), None
    )
    assert written == len(out), f"llama.cpp wrote {written} bytes of {len(out)}"
    return out


def random_blocks(rng, weights, bytes_, scales):
    """All bits at random but the scales, which are finite; of halves every fourth is subnormal."""
    blocks = rng.integers(0, 256, (RANDOM_WEIGHTS // weights, bytes_), dtype=np.uint8)
    if bytes_ == 2:
        floats = rng.standard_normal(len(blocks)).astype(np.float16) * np.float16(2.0) ** rng.integers(-20, 5, len(blocks))
        return floats.astype(np.float16).view(np.uint8)
    if bytes_ == 17:
        blocks[:, 0] = rng.integers(100, 150, len(blocks))
        blocks[:3, 0] = [0, 1, 2]
    for at in scales:
        d = (rng.standard_normal(len(blocks)) * np.where(np.arange(len(blocks)) % 4 == 3, 1e-6, 0.01)).astype(np.float16)
        blocks[:, at : at + 2] = d.view(np.uint8).reshape(-1, 2)
    return blocks.ravel()


def widened(ggml, name, blocks):
    out = np.zeros(RANDOM_WEIGHTS, np.float32)
    function = {"F16": "ggml_fp16_to_fp32_row", "BF16": "ggml_bf16_to_fp32_row"}.get(name)
    suffix = name.lower().replace("_k", "_K")
    function = function or f"dequantize_row_{suffix}"
    getattr(ggml, function)(pointer(blocks), pointer(out), ctypes.c_int64(RANDOM_WEIGHTS))
    return out


def main():
    if not GOLDEN.parent.is_dir():
        sys.exit("run this from the root of the repository")
    GOLDEN.mkdir(exist_ok=True)
    ggml = library()
    rng = np.random.default_rng(20)
    x = inputs(rng)
    x.tofile(GOLDEN / "input.f32")
    for name, kind, weights, bytes_, scales in FORMATS:
        blocks = random_blocks(rng, weights, bytes_, scales)
        with open(GOLDEN / f"{name}.bin", "wb") as file:
            file.write(quantised(ggml, kind, weights, bytes_, x).tobytes())
            file.write(blocks.tobytes())
            file.write(widened(ggml, name, blocks).tobytes())


main()
