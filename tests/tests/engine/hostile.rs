//! Models that lie. The header's reader and the tokeniser have suites of their own (`planner/tests/gguf`,
//! `node/tests/text`); here what gets past the reader meets the engine: an error that names key or tensor, or a model that
//! computes something, never a panic, and never more memory at once than the file has reason for.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use node::engine::{Input, Sampling, Want, Work};
use node::ids::{SessionId, Token};
use node::real::cpu::{EngineOptions, Model};
use node::real::gguf::random::{Architecture, RandomModel};
use planner::model::ggml::GgmlType;
use planner::model::gguf::GgufFile;
use planner::plan::LayerRange;
use proptest::prelude::*;

use crate::allocation::largest_during;

/// A tile has 16 rows, so that a matrix of one row takes 16 times its bytes; widening to f32 takes less.
const TIMES_THE_FILE: usize = 16;

/// Files, made once: one whose every layer is alike, and one with all there is to say about attention.
struct Sound {
    bytes: Vec<u8>,
    architecture: &'static str,
    header: usize,
    tensors: Vec<String>,
}

fn sound(index: usize) -> &'static Sound {
    static SOUND: OnceLock<[Sound; 2]> = OnceLock::new();
    &SOUND.get_or_init(|| [made(Architecture::Llama), made(Architecture::Gemma3)])[index]
}

fn made(architecture: Architecture) -> Sound {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    RandomModel { kind: GgmlType::Q8_0, rope_table: true, ..RandomModel::tiny(architecture) }
        .write(&path)
        .unwrap();
    let file = GgufFile::open(&path).unwrap();
    let header = file.tensors.values().map(|tensor| tensor.at).min().unwrap() as usize;
    let tensors = file.tensors.keys().cloned().collect();
    Sound { bytes: fs::read(&path).unwrap(), architecture: architecture.name(), header, tensors }
}

/// Opens, loads and uses what is in `bytes`; the words of the refusal where one of them refuses.
fn tried(bytes: &[u8]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    let (result, largest) = largest_during(|| used(&path));
    let bound = TIMES_THE_FILE * bytes.len() + (1 << 20);
    assert!(largest <= bound, "took {largest} bytes at once for a file of {}", bytes.len());
    result
}

fn used(path: &Path) -> Result<(), String> {
    let file = GgufFile::open(path).map_err(|why| why.to_string())?;
    let layers = file.model().map_err(|why| why.to_string())?.layer_count();
    let options = EngineOptions { threads: 1, kv_bytes_max: 1 << 20, ..EngineOptions::default() };
    let mut model =
        Model::load(&file, LayerRange::new(0, layers), &options).map_err(|why| why.to_string())?;
    let tokens = vec![Token(0), Token(1), Token(2)];
    let sampling = Sampling::drawn(1.0, 1);
    for start in [0, 3] {
        let work = Work {
            session: SessionId(1),
            start,
            count: 3,
            input: Input::Tokens(tokens.clone()),
            want: Want::Sample(sampling.clone()),
        };
        model.step(&[work]).remove(0).map_err(|why| why.to_string())?;
    }
    Ok(())
}

/// A key or a tensor's name, as it stands in a header.
fn stored(name: &str) -> Vec<u8> {
    [&(name.len() as u64).to_le_bytes(), name.as_bytes()].concat()
}

fn has(bytes: &[u8], name: &str) -> bool {
    let wanted = stored(name);
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Where the value of metadata `key` begins, or the dimensions of tensor `name`: after the name and four bytes.
fn place(bytes: &[u8], name: &str) -> usize {
    let wanted = stored(name);
    bytes.windows(wanted.len()).position(|window| window == wanted).unwrap() + wanted.len() + 4
}

fn patched(bytes: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

#[test]
fn what_was_not_touched_is_loaded_and_used() {
    for index in [0, 1] {
        tried(&sound(index).bytes).unwrap();
    }
}

#[test]
fn numbers_out_of_all_bounds_are_refused_by_name_or_do_no_harm() {
    let numbers = [0, 1, 3, 7, 63, 1 << 20, (1 << 20) + 1, 1 << 31, u32::MAX];
    let floats = [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-38, 3e38].map(f32::to_bits);
    for index in [0, 1] {
        let Sound { bytes, architecture, .. } = sound(index);
        for key in [
            "block_count",
            "embedding_length",
            "feed_forward_length",
            "vocab_size",
            "context_length",
            "attention.head_count",
            "attention.head_count_kv",
            "attention.layer_norm_rms_epsilon",
            "attention.key_length",
            "attention.value_length",
            "attention.sliding_window",
            "rope.dimension_count",
            "rope.freq_base",
            "rope.scaling.factor",
        ] {
            let key = format!("{architecture}.{key}");
            if !has(bytes, &key) {
                continue;
            }
            for value in numbers.into_iter().chain(floats) {
                let said = tried(&patched(bytes, place(bytes, &key), &value.to_le_bytes()));
                // Of layers the planner's reader says how many there are; a context of one token leaves no room.
                let named = ["`", "layer", "no room"];
                let names = |text: &String| named.iter().any(|word| text.contains(word));
                assert!(said.as_ref().err().is_none_or(names), "{key} {value}: {said:?}");
            }
        }
    }
}

#[test]
fn a_number_of_another_type_is_refused_by_its_key() {
    let Sound { bytes, .. } = sound(0);
    for key in ["block_count", "embedding_length", "attention.head_count", "feed_forward_length"] {
        let key = format!("llama.{key}");
        // f32, and a bool whose other three bytes are the next key's.
        for kind in [6u32, 7] {
            assert!(tried(&patched(bytes, place(bytes, &key) - 4, &kind.to_le_bytes())).is_err(), "{key}");
        }
        let said = tried(&patched(bytes, place(bytes, &key) - 4, &6u32.to_le_bytes())).unwrap_err();
        assert!(said.contains(&key), "{key}: {said}");
    }
}

#[test]
fn widths_that_contradict_the_tensors_are_refused_by_the_tensors_name() {
    let Sound { bytes, .. } = sound(0);
    for (key, tensor) in [
        ("llama.embedding_length", "blk.0.attn_norm.weight"),
        ("llama.feed_forward_length", "blk.0.ffn_gate.weight"),
        ("llama.attention.head_count_kv", "blk.0.attn_k.weight"),
        ("llama.block_count", "layer 3 of 128 has no tensors"),
    ] {
        let value = if key.ends_with("kv") { 4u32 } else { 128 };
        let said = tried(&patched(bytes, place(bytes, key), &value.to_le_bytes())).unwrap_err();
        assert!(said.contains(tensor), "{key}: {said}");
    }
}

#[test]
fn tensors_of_other_dimensions_types_and_places_are_refused_by_name() {
    let Sound { bytes, tensors, .. } = sound(1);
    let length = bytes.len() as u64;
    for name in tensors {
        let at = place(bytes, name);
        let dims = bytes[at - 4] as usize;
        let (kind_at, offset_at) = (at + 8 * dims, at + 8 * dims + 4);
        let first = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        for dim in [0, 1, first / 2, first + 32, 1 << 32, 1 << 63, u64::MAX] {
            let said = tried(&patched(bytes, at, &dim.to_le_bytes())).unwrap_err();
            assert!(said.contains('`'), "{name} {dim}: {said}");
        }
        let others = [0u32, 1, 2, 8, 12, 14, 24, 26, 28, 99, u32::MAX];
        for kind in others.into_iter().filter(|kind| kind.to_le_bytes() != bytes[kind_at..kind_at + 4]) {
            // A smaller type reads other numbers out of the same place, which nobody can know.
            if let Err(said) = tried(&patched(bytes, kind_at, &kind.to_le_bytes())) {
                assert!(said.contains('`'), "{name} {kind}: {said}");
            }
        }
        for offset in [1, 16, length, length - 32, u64::MAX, 1 << 63] {
            let said = tried(&patched(bytes, offset_at, &offset.to_le_bytes())).unwrap_err();
            assert!(said.contains('`'), "{name} at {offset}: {said}");
        }
    }
}

#[test]
fn a_file_that_was_cut_short_after_it_was_opened_is_refused_by_the_tensors_name() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("model.gguf");
    let Sound { bytes, header, .. } = sound(0);
    for length in [*header, header + (bytes.len() - header) / 2, bytes.len() - 64] {
        fs::write(&path, bytes).unwrap();
        let file = GgufFile::open(&path).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length as u64).unwrap();
        let loaded = Model::load(&file, LayerRange::new(0, 3), &EngineOptions::default());
        let said = loaded.err().unwrap().to_string();
        assert!(said.contains("ends within tensor `"), "{said}");
    }
}

#[test]
fn a_file_that_is_cut_short_under_a_running_engine_gives_an_error_not_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let Sound { bytes, header, .. } = sound(0);
    fs::write(&path, bytes).unwrap();
    let file = GgufFile::open(&path).unwrap();
    let mut model = Model::load(&file, LayerRange::new(0, 3), &EngineOptions::default()).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(*header as u64).unwrap();
    let input = Input::Tokens(vec![Token(5)]);
    let work =
        Work { session: SessionId(1), start: 0, count: 1, input, want: Want::Sample(Sampling::GREEDY) };
    let said = model.step(&[work]).remove(0).unwrap_err().to_string();
    assert!(said.contains("token_embd.weight"), "{said}");
}

fn cases() -> u32 {
    let times = std::env::var("CASES_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    300 * times
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_change_of_a_header_brings_the_engine_down(
        index in 0usize..2,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let Sound { bytes, header, .. } = sound(index);
        let mut bytes = bytes.clone();
        for (at, byte) in changes {
            bytes[at.index(*header)] = byte;
        }
        let _ = tried(&bytes);
    }

    #[test]
    fn no_change_of_the_weights_brings_the_engine_down(
        index in 0usize..2,
        (from, count) in (any::<prop::sample::Index>(), 1usize..2_000),
        byte in prop_oneof![Just(0xffu8), Just(0x7f), Just(0x7c), any::<u8>()],
    ) {
        let Sound { bytes, header, .. } = sound(index);
        let mut bytes = bytes.clone();
        let from = header + from.index(bytes.len() - header);
        let end = bytes.len().min(from + count);
        bytes[from..end].fill(byte);
        prop_assert_eq!(tried(&bytes), Ok(()));
    }

    #[test]
    fn no_length_of_a_file_brings_the_engine_down(index in 0usize..2, length in any::<prop::sample::Index>()) {
        let Sound { bytes, .. } = sound(index);
        prop_assert!(tried(&bytes[..length.index(bytes.len() - 64)]).is_err());
    }
}
