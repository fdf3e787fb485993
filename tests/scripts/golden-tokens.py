#!/usr/bin/env python3
"""Writes tests/golden/tokens: two small vocabularies trained on the corpus, and the tokens that llama.cpp makes of each text.

`bpe.json` and `spm.json` hold what a GGUF file's tokenizer.ggml.* keys would. `ids.json` has, for each way to cut text (for
`bpe`) and each setting (for `spm`), the tokens of every text of `corpus.json`: as text, and with special tokens parsed and
added. Arguments are GGUF files of real models, whose tokens go to smollm2.json and gemma3.json, after the
files' names up to the first dash.

Needs `pip install llama-cpp-python tokenizers sentencepiece gguf`; run from the repository root.
"""

import io
import json
import pathlib
import sys
import tempfile

import gguf
import llama_cpp
import sentencepiece
import tokenizers

GOLDEN = pathlib.Path("tests/golden/tokens")
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER = ["<tool>", "\n\n\n"]
PRES = ["llama-bpe", "qwen2", "qwen35", "smollm", "gpt-2", "glm4", "chatglm-bpe", "deepseek-v3", "deepseek-coder", "falcon",
        "default", "tekken", "gpt-4o"]


def train_bpe(corpus):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1400, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), special_tokens=CONTROLS + USER,
        show_progress=False, min_frequency=1)
    tokenizer.train_from_iterator(corpus, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    # Whole words that no merge makes, for the models that take those as they are.
    tokens += ["ĠParis", "Ġfox"]
    kinds = [CONTROL if t in CONTROLS else USER_DEFINED if t in USER else NORMAL for t in tokens]
    return {"tokens": tokens, "kinds": kinds, "merges": [" ".join(m) for m in model["merges"]]}


def train_spm(corpus):
    out = io.BytesIO()
    lines = [line for text in corpus for line in text.splitlines() if line.strip() and "\0" not in line]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, model_type="bpe", vocab_size=1500, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, user_defined_symbols=USER[:1],
        control_symbols=CONTROLS[1:], allow_whitespace_only_pieces=True, character_coverage=0.98, num_threads=1,
        hard_vocab_limit=False, minloglevel=2)
    model = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())

    def kind(i):
        if model.is_unknown(i): return UNKNOWN
        if model.is_control(i): return CONTROL
        if model.is_byte(i): return BYTE
        return USER_DEFINED if model.id_to_piece(i) in USER else NORMAL
    count = model.get_piece_size()
    return {"tokens": [model.id_to_piece(i) for i in range(count)], "kinds": [kind(i) for i in range(count)],
            "scores": [model.get_score(i) for i in range(count)]}


def write_gguf(path, vocabulary, pre, add_bos, space_prefix):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama" if "scores" in vocabulary else "gpt2")
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocabulary["tokens"])
    writer.add_token_types(vocabulary["kinds"])
    if "scores" in vocabulary:
        writer.add_token_scores(vocabulary["scores"])
        writer.add_add_space_prefix(space_prefix)
        writer.add_unk_token_id(0)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
    else:
        writer.add_token_merges(vocabulary["merges"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(2)
    if add_bos is not None:
        writer.add_add_bos_token(add_bos)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def reference(path, corpus):
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    ids = lambda text, special: model.tokenize(text.encode("utf-8", "surrogatepass"), add_bos=special, special=special)
    return {"text": [ids(text, False) for text in corpus], "special": [ids(text, True) for text in corpus]}


def save(name, value):
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    (GOLDEN / name).write_text(text.replace("],[", "],\n[") + "\n")


def main():
    corpus = json.loads((GOLDEN / "corpus.json").read_text())
    bpe, spm = train_bpe(corpus), train_spm(corpus)
    save("bpe.json", bpe)
    save("spm.json", spm)
    ids = {}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "vocabulary.gguf"
        for pre in PRES:
            write_gguf(path, bpe, pre, None, None)
            ids[pre] = reference(path, corpus)
        for name, space_prefix in [("spm", True), ("spm without prefix", False)]:
            write_gguf(path, spm, None, None, space_prefix)
            ids[name] = reference(path, corpus)
    save("ids.json", ids)
    for path in map(pathlib.Path, sys.argv[1:]):
        save(path.stem.lower().split("-")[0] + ".json", reference(path, corpus))


if __name__ == "__main__":
    main()
