//! Models in several files.

use std::path::PathBuf;

use planner::model::gguf;
use tempfile::TempDir;

use crate::save;
use crate::writer::{Writer, kind};

const NAMES: [&str; 3] =
    ["big-Q8_0-00001-of-00003.gguf", "big-Q8_0-00002-of-00003.gguf", "big-Q8_0-00003-of-00003.gguf"];

fn with_place(writer: Writer, number: u16) -> Writer {
    writer
        .raw("split.no", kind::U16, &number.to_le_bytes())
        .raw("split.count", kind::U16, &3u16.to_le_bytes())
        .number("split.tensors.count", 4)
}

/// Metadata in the first part, a layer in each of the others.
fn parts() -> [Writer; 3] {
    let first = Writer::new("llama")
        .number("llama.block_count", 2)
        .number("llama.embedding_length", 64)
        .number("llama.attention.head_count", 4)
        .floats("token_embd.weight", &[64, 10]);
    let second = Writer::new("llama").floats("blk.0.attn_k.weight", &[64, 64]);
    let third =
        Writer::new("llama").floats("blk.1.attn_k.weight", &[64, 64]).floats("output_norm.weight", &[64]);
    [with_place(first, 0), with_place(second, 1), with_place(third, 2)]
}

fn save_all(writers: &[Writer]) -> (TempDir, Vec<PathBuf>) {
    let folder = TempDir::new().unwrap();
    let paths = writers
        .iter()
        .zip(NAMES)
        .map(|(writer, name)| save(folder.path(), name, &writer.header(), writer.file_bytes()))
        .collect();
    (folder, paths)
}

#[test]
fn any_part_leads_to_the_whole_model() {
    let (_folder, paths) = save_all(&parts());
    for path in &paths {
        let model = gguf::read(path).unwrap();
        assert_eq!(model.layer_count(), 2);
        assert_eq!(model.name, "big-Q8_0 F32");
        assert_eq!(model.weight_bytes(), 4 * (640 + 64 + 2 * 64 * 64));
        let file = gguf::GgufFile::open(path).unwrap();
        assert_eq!(file.parts, paths);
        assert_eq!(file.tensors["blk.1.attn_k.weight"].part, 2);
    }
}

#[test]
fn a_missing_part_is_named() {
    let (_folder, paths) = save_all(&parts());
    std::fs::remove_file(&paths[1]).unwrap();
    let said = gguf::read(&paths[0]).unwrap_err().to_string();
    assert!(said.contains("part 2 of 3") && said.contains(NAMES[1]), "{said}");
}

#[test]
fn parts_of_another_order_or_model_are_refused() {
    let [first, second, third] = parts();
    let (_folder, paths) = save_all(&[first.clone(), third.clone(), second.clone()]);
    let said = gguf::read(&paths[0]).unwrap_err().to_string();
    assert!(said.contains("header says part 3 of 3, expected part 2 of 3"), "{said}");

    let (_folder, paths) =
        save_all(&[first.clone(), second.clone(), third.floats("blk.0.attn_k.weight", &[8])]);
    let said = gguf::read(&paths[0]).unwrap_err().to_string();
    assert!(said.contains("`blk.0.attn_k.weight` stands in another part too"), "{said}");

    let short = with_place(Writer::new("llama").floats("blk.1.attn_k.weight", &[64, 64]), 2);
    let (_folder, paths) = save_all(&[first, second, short]);
    let said = gguf::read(&paths[0]).unwrap_err().to_string();
    assert!(said.contains("the parts hold 3 tensors, `split.tensors.count` says 4"), "{said}");
}

#[test]
fn a_part_under_another_name_says_what_it_should_be_called() {
    let folder = TempDir::new().unwrap();
    let [_, second, _] = parts();
    let path = save(folder.path(), "renamed.gguf", &second.header(), second.file_bytes());
    let said = gguf::read(&path).unwrap_err().to_string();
    assert!(said.contains("part 2 of 3") && said.contains("`-00002-of-00003.gguf`"), "{said}");
    let path = save(folder.path(), "x-00002-of-00009.gguf", &second.header(), second.file_bytes());
    let said = gguf::read(&path).unwrap_err().to_string();
    assert!(said.contains("its name says 9 parts, its header 3"), "{said}");
}

#[test]
fn an_endless_split_is_refused() {
    let writer = Writer::new("llama").raw("split.count", kind::U64, &u64::MAX.to_le_bytes());
    let folder = TempDir::new().unwrap();
    let path = save(folder.path(), NAMES[0], &writer.header(), writer.file_bytes());
    let said = gguf::read(&path).unwrap_err().to_string();
    assert!(said.contains("there are at most 65535"), "{said}");
}
