//! What a client asks, and what it gets.

use std::sync::Arc;

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
    /// Tokens that end the answer: the first of them is given like any other, and nothing follows it. Empty where the
    /// answer is to go on whatever comes.
    pub ends: Arc<[Token]>,
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
    /// Turned away before the first token.
    Refused(Refused),
    /// Ended early; the text says why.
    Failed(String),
}

/// Why a request is turned away; the text says what would help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The request itself cannot be served, now or later.
    #[error("{0}")]
    Unsound(String),
    /// There is no room for it now.
    #[error("{0}")]
    Full(String),
    /// No plan serves now.
    #[error("{0}")]
    NotServing(String),
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
