//! Metadata that is missing, contradictory, cyclic, oversized or mutated: an error that names the key, never a panic.

use node::real::text::{ChatTemplate, TextError, Tokenizer};
use proptest::prelude::*;

use crate::vocabularies::{bpe, spm};
use crate::writer::{Writer, write};

const TOKENS: &str = "tokenizer.ggml.tokens";
const KINDS: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";

fn refusal(writer: &Writer) -> String {
    let error: TextError = Tokenizer::from_gguf(&writer.write().open()).unwrap_err();
    error.to_string()
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// Three letters and their merges.
fn small() -> Writer {
    Writer::new()
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "gpt-2")
        .texts(TOKENS, &texts(&["a", "b", "c", "ab", "abc"]))
        .texts(MERGES, &texts(&["a b", "ab c"]))
}

#[track_caller]
fn assert_named(writer: &Writer, key: &str, words: &str) {
    let error = refusal(writer);
    assert!(
        error.contains("model.gguf") && error.contains(&format!("`{key}`")) && error.contains(words),
        "{error}"
    );
}

#[test]
fn what_is_missing_is_named() {
    assert!(Tokenizer::from_gguf(&small().write().open()).is_ok());
    for key in ["tokenizer.ggml.model", TOKENS, MERGES] {
        assert_named(&small().without(key), key, "has no");
    }
    assert_named(&spm(true).without(SCORES), SCORES, "has no");
}

#[test]
fn what_is_of_another_kind_is_named() {
    assert_named(&small().number(TOKENS, 3), TOKENS, "is no array");
    assert_named(&small().integers(TOKENS, &[1, 2]), TOKENS, "array of I32");
    assert_named(&small().texts(KINDS, &texts(&["a"; 5])), KINDS, "array of String");
    assert_named(
        &small().text("tokenizer.ggml.add_bos_token", "yes"),
        "tokenizer.ggml.add_bos_token",
        "neither",
    );
    assert_named(&small().number("tokenizer.ggml.model", 1), "tokenizer.ggml.model", "is no text");
    assert_named(&small().text("tokenizer.ggml.model", "t5"), "tokenizer.ggml.model", "`t5`; known are");
    assert_named(
        &small().text("tokenizer.ggml.pre", "x\u{1b}[2J"),
        "tokenizer.ggml.pre",
        "`x\\u{1b}[2J`; known are",
    );
}

#[test]
fn what_contradicts_itself_is_named() {
    assert_named(&small().integers(KINDS, &[1, 1]), KINDS, "2 values for 5 tokens");
    assert_named(&spm(true).floats(SCORES, &[0.0]), SCORES, "1 values for");
    assert_named(
        &small().texts(TOKENS, &texts(&["a", "b", "a"])),
        TOKENS,
        "the same text for tokens 0 and 2",
    );
    assert_named(&small().texts(TOKENS, &[]), TOKENS, "has no token");
    assert_named(
        &small().number("tokenizer.ggml.eos_token_id", 5),
        "tokenizer.ggml.eos_token_id",
        "outside the vocabulary",
    );
    let mut scores = vec![0.0; spm_len()];
    scores[7] = f32::NAN;
    assert_named(&spm(true).floats(SCORES, &scores), SCORES, "no number for token 7");
}

fn spm_len() -> usize {
    Tokenizer::from_gguf(&spm(true).write().open()).unwrap().len()
}

#[test]
fn a_special_token_of_minus_one_is_none() {
    let file = small().number("tokenizer.ggml.bos_token_id", u32::MAX).write();
    assert_eq!(Tokenizer::from_gguf(&file.open()).unwrap().bos(), None);
}

#[test]
fn merges_of_strangers_are_refused_before_they_can_do_harm() {
    assert_named(&small().texts(MERGES, &texts(&["a z"])), MERGES, "`z` at 0");
    // The parts are tokens, what they make is none, and longer than every token: the crate would index past its buffer.
    assert_named(&small().texts(MERGES, &texts(&["a b", "abc abc"])), MERGES, "`abcabc` at 1");
    assert_named(&small().texts(MERGES, &texts(&["ab"])), MERGES, "no pair at 0");
    assert_named(&small().texts(MERGES, &texts(&[""])), MERGES, "no pair at 0");
}

#[test]
fn merges_that_lead_back_to_themselves_end() {
    let cyclic = small().texts(MERGES, &texts(&["a b", "a b", "ab c", "ab c", "a b"]));
    let tokenizer = Tokenizer::from_gguf(&cyclic.write().open()).unwrap();
    assert_eq!(tokenizer.decode(&tokenizer.encode("abcabcabc", false, false)), "abcabcabc");
}

#[test]
fn absurd_sizes_are_refused() {
    let long = "x".repeat(5000);
    assert_named(&small().texts(TOKENS, &[long]), TOKENS, "5000 bytes at 0, above the limit");
    let many: Vec<String> = (0..(1 << 20) + 1).map(|i| format!("{i:x}")).collect();
    assert_named(&small().texts(TOKENS, &many), TOKENS, "above the limit of 1048576");
    let special: Vec<String> = (0..300).map(|i| format!("{i:04000}")).collect();
    let marked = small().texts(TOKENS, &special).texts(MERGES, &[]).integers(KINDS, &[3; 300]);
    assert_named(&marked, TOKENS, "bytes of special tokens");
}

#[test]
fn a_text_that_is_not_utf8_is_named() {
    let mut bytes = small().bytes();
    let at = bytes.windows(3).rposition(|window| window == b"abc").unwrap();
    bytes[at] = 0xff;
    let error = Tokenizer::from_gguf(&write(&bytes).open()).unwrap_err().to_string();
    assert!(error.contains(TOKENS) && error.contains("not UTF-8"), "{error}");
}

#[test]
fn a_sentencepiece_vocabulary_without_bytes_needs_an_unknown_token() {
    let bare = Writer::new()
        .text("tokenizer.ggml.model", "llama")
        .texts(TOKENS, &texts(&["a", "<unk>"]))
        .floats(SCORES, &[0.0, 0.0]);
    assert_named(&bare, TOKENS, "neither `<0x00>` nor an unknown token");
    let unknown = bare.number("tokenizer.ggml.unknown_token_id", 1);
    let tokenizer = Tokenizer::from_gguf(&unknown.write().open()).unwrap();
    assert_eq!(tokenizer.encode("aé", false, false).len(), 6, "three bytes of the space, a, two bytes of é");
}

#[test]
fn a_long_text_of_one_character_is_encoded_in_good_time() {
    for writer in [bpe("llama-bpe"), spm(true)] {
        let tokenizer = Tokenizer::from_gguf(&writer.write().open()).unwrap();
        for text in [" ".repeat(200_000), "a".repeat(200_000), "\n".repeat(200_000)] {
            assert_eq!(tokenizer.decode(&tokenizer.encode(&text, false, false)), text);
        }
    }
}

/// Loads whatever it is and uses what loads.
fn try_all(bytes: &[u8]) {
    let Ok(file) = planner::model::gguf::GgufFile::open(&write(bytes).path) else { return };
    let Ok(tokenizer) = Tokenizer::from_gguf(&file) else { return };
    let tokens = tokenizer.encode("Hello, wörld 123\n<|im_start|>  x", true, true);
    let _ = tokenizer.decode(&tokens);
    let _ = ChatTemplate::from_gguf(&file, &tokenizer);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn mutated_files_never_panic(of_bpe: bool, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut bytes = if of_bpe { small().text("tokenizer.chat_template", "{{ messages }}").bytes() } else { spm(true).bytes() };
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        try_all(&bytes);
    }

    #[test]
    fn vocabularies_of_any_tokens_never_panic(
        tokens in prop::collection::vec("[ab<>|x0-9▁ĠÿĿ]{0,5}", 0..12),
        merges in prop::collection::vec("[ab ]{0,6}", 0..6),
        kinds in prop::collection::vec(-1i32..8, 0..12),
        byte_level: bool,
    ) {
        let scores: Vec<f32> = (0..tokens.len()).map(|i| -(i as f32)).collect();
        let writer = Writer::new()
            .text("tokenizer.ggml.model", if byte_level { "gpt2" } else { "llama" })
            .texts(TOKENS, &tokens)
            .integers(KINDS, &kinds)
            .floats(SCORES, &scores)
            .texts(MERGES, &merges)
            .number("tokenizer.ggml.unknown_token_id", 0);
        try_all(&writer.bytes());
        try_all(&writer.without(KINDS).bytes());
    }
}
