//! Templates for files that bring none. Which one is guessed from the special tokens that the vocabulary has.

use super::tokenizer::Tokenizer;

/// A template for a family of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fallback {
    /// For people.
    pub(super) name: &'static str,
    /// The token by which the family is known.
    token: &'static str,
    pub(super) template: &'static str,
    /// What ends an answer besides the vocabulary's own tokens.
    pub(super) stops: &'static [&'static str],
}

/// `<|im_start|>role`: Qwen, SmolLM and many fine-tuned models.
const CHATML: Fallback = Fallback {
    name: "ChatML",
    token: "<|im_start|>",
    template: "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}\
        {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    stops: &["<|im_end|>"],
};

/// The template that the instruction-tuned Gemma 3 models bring.
const GEMMA: Fallback = Fallback {
    name: "Gemma",
    token: "<start_of_turn>",
    template: include_str!("gemma3.jinja"),
    stops: &["<end_of_turn>"],
};

/// The turns of Llama 3.
const LLAMA3: Fallback = Fallback {
    name: "Llama 3",
    token: "<|start_header_id|>",
    template: "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' \
        + message.content | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}\
        {{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    stops: &["<|eot_id|>"],
};

/// A dialogue as a text would have it, for models that never saw a chat.
const PLAIN: Fallback = Fallback {
    name: "plain dialogue",
    token: "",
    template: "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}{{ message.content + '\n\n' }}\
        {% else %}{{ message.role | capitalize + ': ' + message.content + '\n\n' }}{% endif %}{% endfor %}\
        {% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
    stops: &["\nUser:", "\nSystem:", "\nAssistant:"],
};

impl Fallback {
    /// The template that fits the vocabulary.
    pub(super) fn of(tokenizer: &Tokenizer) -> Self {
        let known = [CHATML, GEMMA, LLAMA3].into_iter().find(|f| tokenizer.find(f.token).is_some());
        known.unwrap_or(PLAIN)
    }
}
