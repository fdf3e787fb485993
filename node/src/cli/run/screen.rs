//! What the terminal shows besides the conversation: quiet lines, dimmed where colours are wanted.

use std::io::IsTerminal as _;

use super::speaker::{Answer, End};
use crate::cli::figures::{plural, rate};

/// A line that steps back behind the conversation.
pub(super) fn quiet(text: &str) -> String {
    // The convention of https://no-color.org.
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain || !std::io::stderr().is_terminal() { text.to_owned() } else { format!("\x1b[2m{text}\x1b[0m") }
}

/// What an answer took, in a line.
pub(super) fn figures(answer: &Answer) -> String {
    let mut parts = vec![plural(answer.tokens as u64, "token")];
    parts.extend(answer.decode_rate().map(rate));
    let read = plural((answer.prompt_tokens - answer.known_tokens) as u64, "token");
    parts.push(format!("first after {} ({read} read)", planner::units::fmt_ms(answer.prefill_s * 1e3)));
    parts.extend(ended(answer.end).map(str::to_owned));
    quiet(&parts.join(" · "))
}

/// Why an answer ended, where that is worth saying.
fn ended(end: End) -> Option<&'static str> {
    match end {
        End::Model | End::Stop => None,
        End::Length => Some("cut at --max-tokens"),
        End::Context => Some("the context is full"),
        End::Interrupted => Some("interrupted"),
    }
}
