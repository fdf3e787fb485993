#!/usr/bin/env python3
"""Writes tests/data/logits: what Hugging Face transformers computes on the tiny random models of this project.

The models are written by `cargo run -p node --example random_model`; their weights are put into transformers' own classes,
in f32 on the CPU. Needs `pip install torch transformers gguf`; run from the repository root.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
import transformers
from gguf import GGUFReader

DATA = pathlib.Path("tests/data/logits")
MODELS = ["llama", "llama3", "qwen2", "qwen2-yarn", "qwen3", "gemma3"]
TOKENS = [(37 * i + 11) % 256 for i in range(48)]
# First and last, and around the end of Gemma's window of 8.
POSITIONS = [0, 1, 7, 8, 9, 20, 46, 47]


class Model:
    """A GGUF file's metadata and f32 tensors."""

    def __init__(self, path):
        reader = GGUFReader(path)
        self.tensors = {t.name: torch.from_numpy(np.array(t.data)) for t in reader.tensors}
        self.fields = {name: field.contents() for name, field in reader.fields.items()}
        self.architecture = self.fields["general.architecture"]

    def get(self, key, default=None):
        return self.fields.get(f"{self.architecture}.{key}", default)


def config(model):
    heads, width = model.get("attention.head_count"), model.get("embedding_length")
    common = dict(
        vocab_size=model.get("vocab_size"),
        hidden_size=width,
        intermediate_size=model.get("feed_forward_length"),
        num_hidden_layers=model.get("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=model.get("attention.head_count_kv"),
        head_dim=model.get("attention.key_length", width // heads),
        max_position_embeddings=model.get("context_length"),
        rms_norm_eps=model.get("attention.layer_norm_rms_epsilon"),
        tie_word_embeddings="output.weight" not in model.tensors,
        attn_implementation="eager",
    )
    base = {"rope_type": "default", "rope_theta": model.get("rope.freq_base")}
    if model.architecture == "gemma3":
        factor = model.get("rope.scaling.factor", 1.0)
        return transformers.Gemma3TextConfig(
            **common,
            query_pre_attn_scalar=common["head_dim"],
            sliding_window=model.get("attention.sliding_window"),
            rope_parameters={
                "full_attention": dict(base, rope_type="linear", factor=factor),
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        )
    if model.get("rope.scaling.type") == "yarn":
        trained = model.get("rope.scaling.original_context_length")
        factor = model.get("rope.scaling.factor")
        base |= {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": trained}
    kind = {"llama": "LlamaConfig", "qwen2": "Qwen2Config", "qwen3": "Qwen3Config"}[model.architecture]
    return getattr(transformers, kind)(**common, rope_parameters=base)


def rows_of_halves(weight, heads):
    """Undoes what llama.cpp's converter does to the query and key of a llama: pairs of a rotation side by side."""
    shape = weight.shape
    return weight.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def weights(model):
    """The tensors under their names in transformers."""
    names = {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    if model.architecture == "gemma3":
        names["post_attention_norm"] = "post_attention_layernorm"
        names["ffn_norm"] = "pre_feedforward_layernorm"
        names["post_ffw_norm"] = "post_feedforward_layernorm"
    ends = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    ends["output.weight"] = "lm_head.weight"
    heads = {"attn_q": model.get("attention.head_count"), "attn_k": model.get("attention.head_count_kv")}
    state = {}
    for name, tensor in model.tensors.items():
        if model.architecture == "gemma3" and "norm" in name:
            tensor = tensor - 1  # transformers adds it back
        if name in ends:
            state[ends[name]] = tensor
        elif name.startswith("blk."):
            _, layer, part, kind = name.split(".")
            if model.architecture == "llama" and part in heads:
                tensor = rows_of_halves(tensor, heads[part])
            state[f"model.layers.{layer}.{names[part]}.{kind}"] = tensor
    return state


def logits(model):
    kind = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma3": "Gemma3"}[model.architecture]
    hugging = getattr(transformers, f"{kind}ForCausalLM")(config(model)).eval().to(torch.float32)
    missing, unexpected = hugging.load_state_dict(weights(model), strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        sys.exit(f"{model.architecture}: transformers lacks {missing} and does not know {unexpected}")
    hugging.tie_weights()
    if "rope_freqs.weight" in model.tensors:
        hugging.model.rotary_emb.inv_freq /= model.tensors["rope_freqs.weight"]
    with torch.no_grad():
        return hugging(torch.tensor([TOKENS])).logits[0]


def main():
    if not DATA.parents[1].is_dir():
        sys.exit("run this from the root of the repository")
    DATA.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            path = f"{folder}/{name}.gguf"
            make = ["cargo", "run", "--quiet", "-p", "node", "--example", "random_model", "--", name, "F32", path]
            subprocess.run(make, check=True)
            logits(Model(path))[POSITIONS].numpy().astype("<f4").tofile(DATA / f"{name}.f32")
    prompt = {"transformers": transformers.__version__, "tokens": TOKENS, "positions": POSITIONS}
    (DATA / "prompt.json").write_text(json.dumps(prompt) + "\n")


main()
