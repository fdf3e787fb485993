//! Files that lie: each is refused with words that name the place.

use planner::model::gguf;
use proptest::prelude::*;

use crate::allocation::largest_during;
use crate::writer::{Writer, array, kind, string};
use crate::{save, saved, small_llama};

/// What reading may take at once where the file is smaller than this: nodes of maps, error texts, paths.
const ALLOCATION_FLOOR: usize = 16 << 10;

fn said(writer: &Writer) -> String {
    let (_folder, path) = saved(writer);
    let (error, largest) = largest_during(|| gguf::read(&path).unwrap_err());
    let bound = ALLOCATION_FLOOR.max(writer.file_bytes() as usize);
    assert!(largest <= bound, "took {largest} bytes at once for a file of {}", writer.file_bytes());
    let text = error.to_string();
    assert!(text.contains("model.gguf"), "names no file: {text}");
    text
}

fn said_of_bytes(bytes: &[u8]) -> String {
    let folder = tempfile::TempDir::new().unwrap();
    let path = save(folder.path(), "model.gguf", bytes, bytes.len() as u64);
    gguf::read(&path).unwrap_err().to_string()
}

/// A header whose counts are these, and nothing behind.
fn counts(tensors: u64, entries: u64) -> Vec<u8> {
    [b"GGUF\x03\0\0\0".as_slice(), &tensors.to_le_bytes(), &entries.to_le_bytes()].concat()
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn other_files_are_told_apart() {
    assert_says(&said_of_bytes(b"\x89PNG\r\n\x1a\n"), &["not a GGUF file", "PNG"]);
    assert_says(&said_of_bytes(b"tjgg\x03\0\0\0"), &["GGML, the format before GGUF"]);
    assert_says(&said_of_bytes(b"GGUF\0\0\0\x03"), &["big-endian"]);
    assert_says(&said_of_bytes(b"GGUF\x01\0\0\0"), &["version 1", "convert the model again"]);
    assert_says(&said_of_bytes(b"GGUF\x09\0\0\0"), &["version 9"]);
    assert_says(&said_of_bytes(b""), &["byte 0", "the file ends after 0"]);
    assert_says(&said_of_bytes(b"GGU"), &["cut short"]);
}

#[test]
fn a_missing_file_and_a_folder_are_said_to_be_so() {
    let folder = tempfile::TempDir::new().unwrap();
    let text = gguf::read(&folder.path().join("none.gguf")).unwrap_err().to_string();
    assert_says(&text, &["cannot read", "none.gguf"]);
    assert_says(&gguf::read(folder.path()).unwrap_err().to_string(), &["cannot read"]);
}

#[test]
fn counts_near_two_to_the_63_are_refused_before_memory_is_taken() {
    for count in [1 << 63, u64::MAX, (1 << 63) - 1, 1 << 40] {
        assert_says(&said_of_bytes(&counts(0, count)), &["the metadata takes", "the file ends after 0"]);
        assert_says(&said_of_bytes(&counts(count, 0)), &["the tensor table takes"]);
        let writer = Writer::new("llama").raw("a.b", kind::ARRAY, &array(kind::STRING, count, &[]));
        assert_says(&said(&writer), &["metadata `a.b` takes"]);
        let writer = Writer::new("llama").raw("a.b", kind::ARRAY, &array(kind::U32, count, &[0; 40]));
        assert_says(&said(&writer), &["metadata `a.b` takes"]);
        let writer = Writer::new("llama").raw("a.b", kind::STRING, &count.to_le_bytes());
        assert_says(&said(&writer), &["metadata `a.b` takes"]);
    }
}

#[test]
fn a_long_string_in_a_long_file_is_refused_too() {
    let writer = Writer::new("llama").raw("a.b", kind::STRING, &(1u64 << 30).to_le_bytes());
    let folder = tempfile::TempDir::new().unwrap();
    let path = save(folder.path(), "model.gguf", &writer.header(), 4 << 30);
    let (error, largest) = largest_during(|| gguf::read(&path).unwrap_err());
    assert_says(&error.to_string(), &["1073741824", "above the limit"]);
    assert!(largest < 1 << 20, "took {largest} bytes at once");
}

#[test]
fn arrays_of_arrays_end_somewhere() {
    let nested = (0..10_000).fold(array(kind::U8, 0, &[]), |inner, _| array(kind::ARRAY, 1, &inner));
    let writer = Writer::new("llama").raw("a.b", kind::ARRAY, &nested);
    assert_says(&said(&writer), &["the depth of arrays in metadata `a.b`", "above the limit of 4"]);
    let two = array(kind::ARRAY, 2, &[array(kind::U8, 1, &[7]), array(kind::U8, 0, &[])].concat());
    let (_folder, path) = saved(&small_llama().raw("a.b", kind::ARRAY, &two));
    assert_eq!(gguf::read(&path).unwrap().layer_count(), 2);
}

#[test]
fn text_that_is_none_is_refused() {
    let writer = Writer::new("llama").raw("a.b", kind::STRING, &string(b"\xff\xfe"));
    assert_says(&said(&writer), &["metadata `a.b`", "not UTF-8"]);
    assert_says(&said(&Writer::new("llama").text("", "x")), &["a metadata key is empty"]);
    // Each wrong byte takes three as a replacement character, and the error must not hold them all.
    assert_says(
        &said(&Writer::new("llama").raw("a.b", kind::STRING, &string(&[0xff; 100_000]))),
        &["not UTF-8"],
    );
    let escaped = said(&Writer::new("llama").text("\u{1b}[2J", "x").text("\u{1b}[2J", "x"));
    assert!(!escaped.contains('\u{1b}'), "an error must not carry a stranger's escape sequences");
}

#[test]
fn what_stands_twice_is_refused() {
    let writer = Writer::new("llama").number("a.b", 1).number("a.b", 2);
    assert_says(&said(&writer), &["metadata `a.b` stands there twice"]);
    let writer = small_llama().floats("output.weight", &[64, 100]);
    assert_says(&said(&writer), &["tensor `output.weight` stands there twice"]);
}

#[test]
fn unknown_types_are_named() {
    assert_says(&said(&Writer::new("llama").raw("a.b", 13, &[0])), &["`a.b` has type 13"]);
    assert_says(
        &said(&Writer::new("llama").raw("a.b", kind::BOOL, &[2])),
        &["`a.b` is 2, neither true nor false"],
    );
    let with_type = |id| small_llama().tensor("extra", &[256], id, 32);
    assert_says(&said(&with_type(999)), &["`extra` has type 999", "newer than this program"]);
    assert_says(&said(&with_type(31)), &["`extra` has type 31", "quantise the model again"]);
}

#[test]
fn impossible_dimensions_are_refused() {
    let with = |dims: &[u64], id| small_llama().tensor("extra", dims, id, 32);
    assert_says(&said(&with(&[], 0)), &["`extra` has 0 dimensions"]);
    assert_says(&said(&with(&[1; 5], 0)), &["`extra` has 5 dimensions"]);
    assert_says(&said(&with(&[4, 0], 0)), &["`extra` has a dimension of 0"]);
    assert_says(&said(&with(&[100], 12)), &["type Q4_K", "blocks of 256"]);
    assert_says(&said(&with(&[1 << 33, 1 << 33], 0)), &["less than 2^64"]);
    assert_says(&said(&with(&[u64::MAX], 0)), &["less than 2^64"]);
    assert_says(&said(&with(&[1 << 50], 0)), &["`extra` takes 4503599627370496 bytes"]);
}

#[test]
fn tensors_outside_the_file_or_over_each_other_are_refused() {
    let at = |at| small_llama().tensor_at("extra", &[8], 0, at);
    assert_says(&said(&at(u64::MAX - 31)), &["`extra` takes 32 bytes", "the file ends after 0"]);
    assert_says(&said(&at(7)), &["`extra` begins at 7, no multiple of 32"]);
    assert_says(&said(&at(32)), &["tensor", "overlaps with"]);
}

#[test]
fn alignments_that_are_none_are_refused() {
    for alignment in [0, 3, 1 << 31] {
        let writer = Writer::new("llama").number("general.alignment", alignment);
        assert_says(&said(&writer), &["`general.alignment` is", "expected a power of two"]);
    }
}

#[test]
fn sizes_that_no_model_has_are_refused() {
    let writer = Writer::new("phi3")
        .number("phi3.block_count", 1)
        .number("phi3.embedding_length", 64)
        .number("phi3.attention.head_count", u32::MAX)
        .number("phi3.attention.key_length", u32::MAX)
        .floats("token_embd.weight", &[64, 10])
        .floats("blk.0.attn_qkv.weight", &[64, 96]);
    assert_says(&said(&writer), &["layer 0 would keep", "above the limit"]);
    let writer = small_llama();
    let layers = |count| {
        let mut bytes = writer.header();
        let key = b"llama.block_count";
        let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len() + 4;
        bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(count));
        bytes
    };
    for (count, words) in [(u32::MAX, "is not between 1 and 4096"), (3, "layer 2 of 3 has no tensors")] {
        let folder = tempfile::TempDir::new().unwrap();
        let path = save(folder.path(), "model.gguf", &layers(count), writer.file_bytes());
        assert_says(&gguf::read(&path).unwrap_err().to_string(), &[words]);
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let writer = small_llama();
    let header = writer.header();
    let folder = tempfile::TempDir::new().unwrap();
    let path = save(folder.path(), "model.gguf", &header, header.len() as u64);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    for length in (0..header.len() as u64).rev() {
        file.set_len(length).unwrap();
        let text = gguf::read(&path).unwrap_err().to_string();
        assert!(text.contains("cut short"), "cut after {length}: {text}");
    }
    let path = save(folder.path(), "model.gguf", &header, writer.file_bytes() - 1);
    assert_says(&gguf::read(&path).unwrap_err().to_string(), &["tensor `output.weight`", "fetch it again"]);
}

/// A change of a byte, a run of bytes, or a 64-bit number.
#[derive(Debug, Clone)]
enum Change {
    Byte { at: prop::sample::Index, value: u8 },
    Number { at: prop::sample::Index, value: u64 },
    Cut { at: prop::sample::Index },
    Copy { from: prop::sample::Index, to: prop::sample::Index, bytes: usize },
}

fn change() -> impl Strategy<Value = Change> {
    let number = prop_oneof![
        any::<u64>(),
        (0u32..64).prop_map(|bit| 1 << bit),
        (0u32..64).prop_map(|bit| (1u64 << bit).wrapping_sub(1)),
        (0u64..4096),
    ];
    let index = any::<prop::sample::Index>();
    prop_oneof![
        4 => (index.clone(), any::<u8>()).prop_map(|(at, value)| Change::Byte { at, value }),
        4 => (index.clone(), number).prop_map(|(at, value)| Change::Number { at, value }),
        1 => index.clone().prop_map(|at| Change::Cut { at }),
        2 => (index.clone(), index, 1usize..64).prop_map(|(from, to, bytes)| Change::Copy { from, to, bytes }),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    match change {
        Change::Byte { at, value } => bytes[at.index(length)] = *value,
        Change::Number { at, value } => {
            let at = at.index(length);
            for (slot, byte) in bytes[at..].iter_mut().zip(value.to_le_bytes()) {
                *slot = byte;
            }
        }
        Change::Cut { at } => bytes.truncate(at.index(length)),
        Change::Copy { from, to, bytes: count } => {
            let from = from.index(length);
            let copied = bytes[from..(from + count).min(length)].to_vec();
            let to = to.index(length);
            bytes.splice(to..to, copied);
        }
    }
}

fn rich() -> Writer {
    small_llama()
        .numbers("llama.feed_forward_length", &[128, 128])
        .number("llama.expert_count", 4)
        .number("llama.expert_used_count", 2)
        .number("llama.attention.sliding_window", 32)
        .flags("llama.attention.sliding_window_pattern", &[true, false])
        .number("general.alignment", 32)
        .floats("blk.1.ffn_up_exps.weight", &[64, 8, 4])
        .tensor("blk.0.attn_extra.weight", &[256, 2], 12, 288)
}

/// `usual` cases, or `CASES_TIMES` times as many where that is set.
fn cases(usual: u32) -> ProptestConfig {
    let times = std::env::var("CASES_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    ProptestConfig {
        cases: usual.saturating_mul(times),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn changed_headers_never_panic_and_take_no_more_than_the_file(
        changes in prop::collection::vec(change(), 1..6),
        with_data in any::<bool>(),
    ) {
        let writer = rich();
        let mut bytes = writer.header();
        for change in &changes {
            apply(&mut bytes, change);
        }
        let length = if with_data { writer.file_bytes().max(bytes.len() as u64) } else { bytes.len() as u64 };
        let folder = tempfile::TempDir::new().unwrap();
        let path = save(folder.path(), "model.gguf", &bytes, length);
        let (result, largest) = largest_during(|| gguf::read(&path));
        prop_assert!(largest <= ALLOCATION_FLOOR.max(length as usize), "took {largest} bytes for {length}");
        match result {
            Ok(model) => prop_assert!(model.weight_bytes() <= length),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn what_is_written_is_read_back(
        widths in prop::collection::vec((1u64..9, 1u64..40, 0usize..4), 1..12),
        words in prop::collection::vec("[a-z]{1,12}", 0..8),
    ) {
        const TYPES: [(u32, u64, u64); 4] = [(0, 1, 4), (8, 32, 34), (12, 256, 144), (39, 32, 17)];
        let mut writer = Writer::new("llama")
            .number("llama.block_count", widths.len() as u32)
            .number("llama.embedding_length", 64)
            .floats("token_embd.weight", &[64, 3]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        writer = writer.texts("words", &words);
        let mut expected = Vec::new();
        for (layer, (blocks, rows, kind)) in widths.iter().enumerate() {
            let (id, elements, bytes) = TYPES[*kind];
            let total = blocks * rows * bytes;
            writer = writer.tensor(&format!("blk.{layer}.x.weight"), &[blocks * elements, *rows], id, total);
            expected.push((total, blocks * elements * rows));
        }
        let (_folder, path) = saved(&writer);
        let file = gguf::GgufFile::open(&path).unwrap();
        let read: Vec<_> = file.array("words").unwrap().unwrap().map(|v| v.unwrap()).collect();
        prop_assert_eq!(read.iter().filter_map(|v| v.as_str()).collect::<Vec<_>>(), words);
        let model = file.model().unwrap();
        let found: Vec<(u64, u64)> = model.layers.iter().map(|l| (l.trunk_bytes, l.trunk_params)).collect();
        prop_assert_eq!(found, expected);
    }
}
