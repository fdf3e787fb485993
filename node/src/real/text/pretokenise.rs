//! How byte-level models cut text into words before merging, by the name a file gives in `tokenizer.ggml.pre`.
//!
//! Patterns are those of the models' own `tokenizer.json`; where that says `(?i:...)`, both cases are listed, since only
//! ASCII letters are meant. They are applied one after the other, each to what the one before left.
//! Source of names and patterns: `src/llama-vocab.cpp` of llama.cpp.

/// English contractions, as GPT-2 cut them and everybody after, and the rest of the pattern of GPT-2.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

const LLAMA3: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN2: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN35: &str = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

/// How a family of models cuts text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pretokeniser {
    /// Applied in order.
    pub(super) patterns: &'static [&'static str],
    /// A word that is a token is taken as it is, whatever its merges say.
    pub(super) whole_words: bool,
    /// Whether the family begins texts with its first special token, where the file does not say.
    pub(super) add_bos: bool,
}

/// A family with neither whole words nor a token at the beginning.
const fn plain(patterns: &'static [&'static str]) -> Pretokeniser {
    Pretokeniser { patterns, whole_words: false, add_bos: false }
}

/// Which names cut how.
const FAMILIES: &[(&[&str], Pretokeniser)] = &[
    (
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        Pretokeniser { patterns: &[LLAMA3], whole_words: true, add_bos: true },
    ),
    (&["qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez"], plain(&[QWEN2])),
    (&["qwen35"], plain(&[QWEN35])),
    (
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        plain(&[r"\p{N}", GPT2]),
    ),
    (&["gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "trillion", "mellum", "gigachat"], plain(&[GPT2])),
    (&["tekken"], Pretokeniser { patterns: &[TEKKEN], whole_words: true, add_bos: true }),
    (&["gpt-4o", "llama4", "kanana2"], plain(&[GPT4O])),
    (&["glm4", "glm5"], Pretokeniser { patterns: &[LLAMA3], whole_words: true, add_bos: false }),
    (&["chatglm-bpe", "dbrx", "smaug-bpe"], plain(&[LLAMA3])),
    (&["deepseek-v3", "hunyuan-dense"], plain(&[r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3])),
    (&["deepseek-coder"], plain(&[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}"])),
    (&["falcon"], plain(&[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"])),
    (&["default"], plain(&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"])),
];

impl Pretokeniser {
    /// By the name in the file.
    pub(super) fn named(name: &str) -> Option<Self> {
        FAMILIES.iter().find(|(names, _)| names.contains(&name)).map(|(_, family)| *family)
    }

    /// Every name there is, for the error about one that is not.
    pub(super) fn names() -> String {
        FAMILIES.iter().flat_map(|(names, _)| *names).copied().collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_stands_once() {
        let mut names: Vec<&str> = FAMILIES.iter().flat_map(|(names, _)| *names).copied().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(Pretokeniser::named("smollm").is_some());
        assert!(Pretokeniser::named("none of them").is_none());
    }
}
