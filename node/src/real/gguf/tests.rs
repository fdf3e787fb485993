#![allow(clippy::unwrap_used, reason = "a file that cannot be made or read is the failed test")]

use std::fs;
use std::path::{Path, PathBuf};

use planner::model::ggml::GgmlType;
use planner::model::gguf::{GgufFile, Value};

use super::random::{Architecture, RandomModel};
use super::{CopyError, GgufWriter, requantise, split};
use crate::real::formats::{KNOWN, dequantise, quantise};

fn in_folder(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    (folder, path)
}

fn tensor_bytes(path: &Path, name: &str) -> (GgmlType, Vec<u8>) {
    let file = GgufFile::open(path).unwrap();
    let tensor = &file.tensors[name];
    let (at, bytes) = (tensor.at as usize, tensor.bytes as usize);
    (tensor.ggml_type, fs::read(path).unwrap()[at..at + bytes].to_vec())
}

#[test]
fn what_is_written_is_read_back() {
    let (_folder, path) = in_folder("written.gguf");
    let mut writer = GgufWriter::default();
    let scalars = [
        Value::U8(1),
        Value::I8(-2),
        Value::U16(3),
        Value::I16(-4),
        Value::U32(5),
        Value::I32(-6),
        Value::F32(0.5),
        Value::Bool(true),
        Value::String("Grüße".into()),
        Value::U64(1 << 40),
        Value::I64(-1),
        Value::F64(0.1),
    ];
    for (i, value) in scalars.iter().enumerate() {
        writer.set(format!("scalar.{i}"), value.clone());
    }
    writer.set("words", vec!["a".to_owned(), String::new(), "ß".to_owned()]);
    writer.tensor("odd", GgmlType::F32, &[3]).tensor("blocks", GgmlType::Q4_0, &[64, 2]);
    let mut sink = writer.create(&path).unwrap();
    sink.write(&[1; 8]).unwrap();
    sink.write(&[2; 4]).unwrap();
    sink.write(&[3; 72]).unwrap();
    assert!(!path.exists(), "a file that is not whole has no name yet");
    sink.finish().unwrap();

    let file = GgufFile::open(&path).unwrap();
    for (i, value) in scalars.iter().enumerate() {
        assert_eq!(&file.metadata[&format!("scalar.{i}")], value);
    }
    let words: Vec<Value> = file.array("words").unwrap().unwrap().map(Result::unwrap).collect();
    assert_eq!(words, ["a", "", "ß"].map(|word| Value::String(word.into())));
    assert_eq!(tensor_bytes(&path, "odd"), (GgmlType::F32, [vec![1; 8], vec![2; 4]].concat()));
    assert_eq!(tensor_bytes(&path, "blocks"), (GgmlType::Q4_0, vec![3; 72]));
    assert_eq!(file.tensors["blocks"].dims(), [64, 2]);
}

#[test]
fn a_file_given_up_leaves_nothing() {
    let (folder, path) = in_folder("given-up.gguf");
    let mut writer = GgufWriter::default();
    let mut sink = writer.tensor("t", GgmlType::F32, &[2]).create(&path).unwrap();
    sink.write(&[0; 4]).unwrap();
    drop(sink);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let error = GgufWriter::default().create(Path::new("/nowhere/model.gguf")).unwrap_err();
    assert!(error.to_string().starts_with("cannot write /nowhere/model.gguf: "), "{error}");
}

#[test]
fn random_models_are_models_and_the_same_twice() {
    let (folder, path) = in_folder("one.gguf");
    let again = folder.path().join("two.gguf");
    for architecture in Architecture::ALL {
        let shape = RandomModel::tiny(architecture);
        shape.write(&path).unwrap();
        shape.write(&again).unwrap();
        assert_eq!(fs::read(&path).unwrap(), fs::read(&again).unwrap());
        let model = planner::model::gguf::read(&path).unwrap();
        assert_eq!(model.layers.len(), shape.layers as usize, "{architecture:?}");
        assert_eq!(GgufFile::open(&path).unwrap().tensors.contains_key("output.weight"), !shape.tied);
        RandomModel { seed: 2, ..shape }.write(&again).unwrap();
        assert_ne!(fs::read(&path).unwrap(), fs::read(&again).unwrap());
    }
}

#[test]
fn a_large_matrix_repeats_the_rows_that_were_drawn() {
    let (_folder, path) = in_folder("large.gguf");
    let vocabulary = (1 << 20) / 64 + 300;
    let shape = RandomModel { layers: 1, vocabulary, ..RandomModel::tiny(Architecture::Llama) };
    shape.write(&path).unwrap();
    let (_, bytes) = tensor_bytes(&path, "token_embd.weight");
    assert_eq!(bytes.len(), vocabulary as usize * 64 * 4);
    assert_eq!(bytes[..300 * 64 * 4], bytes[bytes.len() - 300 * 64 * 4..]);
    assert_ne!(bytes[..64 * 4], bytes[64 * 4..128 * 4]);
}

#[test]
fn every_format_is_made_from_f32_and_back() {
    let (folder, source) = in_folder("source.gguf");
    let shape = RandomModel { width: 256, feed_forward: 512, ..RandomModel::tiny(Architecture::Qwen2) };
    shape.write(&source).unwrap();
    let opened = GgufFile::open(&source).unwrap();
    let (_, original) = tensor_bytes(&source, "blk.1.ffn_down.weight");
    let mut weights = vec![0.0; original.len() / 4];
    dequantise(GgmlType::F32, &original, &mut weights).unwrap();
    for kind in KNOWN {
        let (target, widened) = (folder.path().join("target.gguf"), folder.path().join("widened.gguf"));
        requantise(&opened, kind, &target).unwrap();
        let mut expected = Vec::new();
        quantise(kind, &weights, &mut expected).unwrap();
        assert_eq!(tensor_bytes(&target, "blk.1.ffn_down.weight"), (kind, expected), "{kind}");
        assert_eq!(tensor_bytes(&target, "blk.1.attn_q.bias"), tensor_bytes(&source, "blk.1.attn_q.bias"));

        requantise(&GgufFile::open(&target).unwrap(), GgmlType::F32, &widened).unwrap();
        let widened = GgufFile::open(&widened).unwrap();
        assert!(widened.tensors.values().all(|tensor| tensor.ggml_type == GgmlType::F32), "{kind}");
        assert_eq!(widened.tensors.len(), opened.tensors.len(), "{kind}");
    }
}

#[test]
fn rows_that_do_not_fit_get_the_format_llama_cpp_falls_back_to() {
    let (folder, source) = in_folder("source.gguf");
    RandomModel { width: 96, ..RandomModel::tiny(Architecture::Llama) }.write(&source).unwrap();
    let opened = GgufFile::open(&source).unwrap();
    let target = folder.path().join("target.gguf");
    for (kind, fallback) in [
        (GgmlType::Q2_K, GgmlType::Q4_0),
        (GgmlType::Q4_K, GgmlType::Q5_0),
        (GgmlType::Q5_K, GgmlType::Q5_1),
        (GgmlType::Q6_K, GgmlType::Q8_0),
        (GgmlType::IQ4_XS, GgmlType::IQ4_NL),
        (GgmlType::Q4_1, GgmlType::Q4_1),
    ] {
        requantise(&opened, kind, &target).unwrap();
        assert_eq!(tensor_bytes(&target, "token_embd.weight").0, fallback, "{kind}");
        assert_eq!(tensor_bytes(&target, "output_norm.weight").0, GgmlType::F32);
    }
}

#[test]
fn a_format_that_cannot_be_made_is_refused_by_name() {
    let (folder, source) = in_folder("source.gguf");
    RandomModel { width: 256, ..RandomModel::tiny(Architecture::Llama) }.write(&source).unwrap();
    let target = folder.path().join("target.gguf");
    let error = requantise(&GgufFile::open(&source).unwrap(), GgmlType::IQ1_S, &target).unwrap_err();
    assert!(error.to_string().contains("token_embd.weight"), "{error}");
    assert!(error.to_string().contains("IQ1_S"), "{error}");
    assert!(!target.exists());
}

#[test]
fn arrays_of_arrays_are_refused_by_name() {
    let (folder, source) = in_folder("nested.gguf");
    let nested =
        [&9u32.to_le_bytes()[..], &9u32.to_le_bytes(), &1u64.to_le_bytes(), &0u32.to_le_bytes(), &[0; 8]];
    let key = [&4u64.to_le_bytes()[..], b"deep"].concat();
    let header = [b"GGUF\x03\0\0\0".as_slice(), &[0; 8], &1u64.to_le_bytes(), &key, &nested.concat()];
    fs::write(&source, header.concat()).unwrap();
    let target = folder.path().join("target.gguf");
    let refused = requantise(&GgufFile::open(&source).unwrap(), GgmlType::F16, &target);
    assert!(matches!(refused, Err(CopyError::Nested(key)) if key == "deep"));
}

#[test]
fn a_split_model_is_read_as_the_one_it_was() {
    let (folder, source) = in_folder("whole.gguf");
    RandomModel::tiny(Architecture::Qwen3).write(&source).unwrap();
    let whole = GgufFile::open(&source).unwrap();
    let parts = split(&whole, &folder.path().join("parts"), 3).unwrap();
    assert!(parts[1].ends_with("parts-00002-of-00003.gguf"), "{}", parts[1].display());
    let opened = GgufFile::open(&parts[2]).unwrap();
    assert_eq!(opened.parts, parts);
    assert_eq!(opened.tensors.keys().collect::<Vec<_>>(), whole.tensors.keys().collect::<Vec<_>>());

    let joined = folder.path().join("joined.gguf");
    requantise(&opened, GgmlType::F32, &joined).unwrap();
    for name in whole.tensors.keys() {
        assert_eq!(tensor_bytes(&joined, name), tensor_bytes(&source, name));
    }
}
