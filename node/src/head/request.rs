//! What a client asks, and what it gets.

use tokio::sync::mpsc;

use crate::engine::{Chances, Sampling};
use crate::ids::{SessionId, Token};

/// A request for tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Its name, unique in the mesh. A client that resumes elsewhere keeps it.
    pub session: SessionId,
    /// What was said so far; at least one token.
    pub prompt: Vec<Token>,
    /// Output tokens the client already has from another entry node that died.
    pub generated: Vec<Token>,
    /// All output tokens wanted, those in `generated` included.
    pub max_tokens: u32,
    /// How tokens are chosen. Its `past` need not be filled: the head knows it.
    pub sampling: Sampling,
}

/// One thing a client gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// The next token. Each position comes once, in order.
    Token {
        /// Its place in the session, prompt included.
        position: u32,
        /// Which.
        token: Token,
        /// How likely it and others were, where the request asks for it.
        chances: Option<Box<Chances>>,
    },
    /// All tokens have come.
    End,
    /// Turned away before the first token; the text says why and what would help.
    Refused(String),
    /// Ended early; the text says why.
    Failed(String),
}

/// The answer to a request, as it comes. Dropping it cancels the request.
#[derive(Debug)]
pub struct Replies {
    queue: mpsc::Receiver<Reply>,
}

impl Replies {
    pub(crate) fn new(queue: mpsc::Receiver<Reply>) -> Self {
        Self { queue }
    }

    /// The next reply; `None` after the last one, and when the node has ended.
    pub async fn next(&mut self) -> Option<Reply> {
        self.queue.recv().await
    }
}
