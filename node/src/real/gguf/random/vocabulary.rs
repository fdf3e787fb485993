//! A made-up vocabulary: every byte, a few merged words, the special tokens of ChatML, and unused tokens to fill up.

use super::super::GgufWriter;

/// Tokens that every such vocabulary has.
pub(super) const LEAST: u32 = 256 + MERGES.len() as u32 + SPECIAL.len() as u32;

/// Pairs that become one token, each of tokens that stand before it. `Ġ` is the space.
const MERGES: [(&str, &str); 8] =
    [("Ġ", "t"), ("h", "e"), ("i", "n"), ("Ġ", "a"), ("Ġt", "he"), ("e", "r"), ("o", "n"), ("Ġa", "n")];

const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// ChatML, as SmolLM2 and Qwen have it.
const TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + \
                        '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ \
                        '<|im_start|>assistant\\n' }}{% endif %}";

/// `tokenizer.ggml.token_type` of text.
const NORMAL: i32 = 1;
/// Of special tokens.
const CONTROL: i32 = 3;
/// Of tokens that no text gives.
const UNUSED: i32 = 5;

/// Sets the entries of a byte-level BPE tokeniser with `count` tokens.
pub(super) fn write(count: u32, writer: &mut GgufWriter) {
    assert!(count >= LEAST, "a vocabulary holds at least {LEAST} tokens");
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_character(byte).to_string()).collect();
    tokens.extend(MERGES.iter().map(|(left, right)| format!("{left}{right}")));
    let mut types = vec![NORMAL; tokens.len()];
    let special = tokens.len() as u32;
    tokens.extend(SPECIAL.map(String::from));
    types.resize(tokens.len(), CONTROL);
    tokens.extend((tokens.len() as u32..count).map(|id| format!("<unused{id}>")));
    types.resize(tokens.len(), UNUSED);
    let merges: Vec<String> = MERGES.iter().map(|(left, right)| format!("{left} {right}")).collect();
    writer
        .set("tokenizer.ggml.model", "gpt2")
        .set("tokenizer.ggml.pre", "smollm")
        .set("tokenizer.ggml.tokens", tokens)
        .set("tokenizer.ggml.token_type", types)
        .set("tokenizer.ggml.merges", merges)
        .set("tokenizer.ggml.bos_token_id", special)
        .set("tokenizer.ggml.eos_token_id", special + 2)
        .set("tokenizer.ggml.padding_token_id", special)
        .set("tokenizer.ggml.add_bos_token", false)
        .set("tokenizer.chat_template", TEMPLATE);
}

/// How byte-level BPE writes a byte: as itself where it prints in Latin-1, otherwise as the next character from U+0100 on.
/// Source: `bytes_to_unicode` of GPT-2.
fn byte_character(byte: u8) -> char {
    let prints = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..);
    if prints(&byte) {
        return byte.into();
    }
    let before = (0..byte).filter(|byte| !prints(byte)).count() as u32;
    char::from_u32(0x100 + before).expect("68 characters from U+0100 on exist")
}
