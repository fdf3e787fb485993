//! The GGUF reader from outside: files on disk, well-formed and hostile.

#![allow(clippy::unwrap_used, reason = "a file that cannot be written is the failed test")]

mod allocation;
mod hostile;
mod large;
mod split_models;
mod well_formed;
mod writer;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use writer::Writer;

/// Writes `header` as a file of `length` bytes; what follows the header is a hole.
fn save(folder: &Path, name: &str, header: &[u8], length: u64) -> PathBuf {
    let path = folder.join(name);
    let mut file = File::create(&path).unwrap();
    file.write_all(header).unwrap();
    file.set_len(length).unwrap();
    path
}

/// A file of what `writer` holds.
fn saved(writer: &Writer) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = save(folder.path(), "model.gguf", &writer.header(), writer.file_bytes());
    (folder, path)
}

/// A small Llama: two layers of width 64, four heads of which two share a KV head, f32.
fn small_llama() -> Writer {
    let mut writer = Writer::new("llama")
        .text("general.name", "Small Llama")
        .number("general.file_type", 0)
        .number("llama.block_count", 2)
        .number("llama.embedding_length", 64)
        .number("llama.context_length", 512)
        .number("llama.attention.head_count", 4)
        .number("llama.attention.head_count_kv", 2)
        .texts("tokenizer.ggml.tokens", &["<s>", "a", "b"])
        .floats("token_embd.weight", &[64, 100]);
    for layer in 0..2 {
        for (part, dims) in [
            ("attn_norm.weight", [64, 1]),
            ("attn_q.weight", [64, 64]),
            ("attn_k.weight", [64, 32]),
            ("attn_v.weight", [64, 32]),
            ("attn_output.weight", [64, 64]),
            ("ffn_norm.weight", [64, 1]),
            ("ffn_gate.weight", [64, 128]),
            ("ffn_up.weight", [64, 128]),
            ("ffn_down.weight", [128, 64]),
        ] {
            writer = writer.floats(&format!("blk.{layer}.{part}"), &dims);
        }
    }
    writer.floats("output_norm.weight", &[64]).floats("output.weight", &[64, 100])
}
