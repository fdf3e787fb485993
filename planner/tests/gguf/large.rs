//! Size of the file does not matter: only its header is read.

use std::time::{Duration, Instant};

use planner::model::gguf;

use crate::allocation::largest_during;
use crate::saved;
use crate::writer::Writer;

/// Reading all 17 GB takes seconds even where they are holes; the header takes milliseconds. In between, with room for
/// a busy machine.
const HEADER_TIME_MAX: Duration = Duration::from_secs(1);

/// A model of 47 layers in 17 GB with a vocabulary of 150,000 words, none of whose tensors is anything but a hole.
fn seventeen_gigabytes() -> Writer {
    let words: Vec<String> = (0..150_000).map(|word| format!("word{word}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut writer = Writer::new("llama")
        .number("llama.block_count", 47)
        .number("llama.embedding_length", 2048)
        .number("llama.attention.head_count", 16)
        .texts("tokenizer.ggml.tokens", &words)
        .floats("token_embd.weight", &[2048, 150_000]);
    for layer in 0..47 {
        writer = writer.floats(&format!("blk.{layer}.ffn_up.weight"), &[2048, 41_000]);
    }
    writer
}

#[test]
#[allow(clippy::disallowed_methods, reason = "this test is about wall time")]
fn a_header_of_seventeen_gigabytes_is_read_in_milliseconds() {
    let writer = seventeen_gigabytes();
    assert!(writer.file_bytes() > 17_000_000_000);
    let (_folder, path) = saved(&writer);
    let start = Instant::now();
    let (model, largest) = largest_during(|| gguf::read(&path).unwrap());
    let took = start.elapsed();
    assert_eq!(model.layer_count(), 47);
    assert!(took < HEADER_TIME_MAX, "took {took:?}");
    assert!(largest <= 64 << 10, "took {largest} bytes at once");
    eprintln!("header of {} bytes in {took:?}", writer.file_bytes());
}
