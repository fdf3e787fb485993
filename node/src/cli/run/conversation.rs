//! What was said so far, and the prompt that it makes.

use crate::cli::failure::Failure;
use crate::ids::Token;
use crate::real::text::{Chat, ChatTemplate, Message, Tokenizer};

/// Tokens that are left for an answer before the beginning of a conversation is forgotten: an eighth of the context.
const ANSWER_SHARE: usize = 8;

/// Messages in order: perhaps one of the system, then user and assistant in turn.
#[derive(Debug)]
pub(super) struct Conversation {
    system: Option<String>,
    messages: Vec<Message>,
}

impl Conversation {
    pub(super) fn new(system: Option<String>) -> Self {
        Self { system, messages: Vec::new() }
    }

    /// Begins anew, under the same system message.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
    }

    /// Begins anew under another system message; an empty one is none.
    pub(super) fn set_system(&mut self, text: &str) {
        self.system = (!text.is_empty()).then(|| text.to_owned());
        self.clear();
    }

    pub(super) fn ask(&mut self, text: &str) {
        self.messages.push(Message::new("user", text));
    }

    pub(super) fn answered(&mut self, text: &str) {
        self.messages.push(Message::new("assistant", text));
    }

    /// Takes the last question back.
    pub(super) fn unask(&mut self) {
        self.messages.pop();
    }

    /// Takes the last answer back, so that its question stands open again; `false` where there is none.
    pub(super) fn unanswer(&mut self) -> bool {
        self.messages.len() >= 2 && self.messages.pop().is_some()
    }

    /// The prompt's tokens. What makes it too long for `context` and an answer is forgotten from the beginning on, a
    /// question with its answer at a time; the second value says how many of those.
    ///
    /// # Errors
    /// [`Failure::Template`] where the template refuses the conversation.
    pub(super) fn prompt(
        &mut self,
        template: &ChatTemplate,
        tokenizer: &Tokenizer,
        context: usize,
    ) -> Result<(Vec<Token>, usize), Failure> {
        let mut forgotten = 0;
        loop {
            let text = template.render(&self.chat(&self.all()))?;
            let tokens = tokenizer.encode(&text, false, true);
            if tokens.len() + context / ANSWER_SHARE < context || self.messages.len() < 3 {
                return Ok((tokens, forgotten));
            }
            self.messages.drain(..2);
            forgotten += 1;
        }
    }

    fn all(&self) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::new("system", text));
        system.chain(self.messages.iter().cloned()).collect()
    }

    fn chat<'a>(&self, messages: &'a [Message]) -> Chat<'a> {
        Chat { now: Some(jiff::Zoned::now().datetime()), ..Chat::new(messages) }
    }
}
