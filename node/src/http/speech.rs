//! Tokens become text, up to what ends it.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::asked::Asked;
use super::bounds::Bounds;
use super::desk::Served;
use super::fault::Fault;
use super::meter::Timing;
use super::resume::{Heard, Phase, Skip};
use crate::engine::Chances;
use crate::head::{Replies, Reply};
use crate::ids::Token;
use crate::real::text::{Detokenizer, StopStrings};

/// One thing that is said of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    /// More of its text. The first piece comes with the first token, and may have no text yet.
    Piece(Piece),
    /// It is over.
    Ended {
        /// Why.
        finish: Finish,
        /// How many tokens it took, the one that ended it not counted.
        tokens: usize,
        /// What was given then.
        heard: Heard,
    },
    /// It broke off.
    Failed(Fault),
}

/// Text, and how likely its tokens were.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Piece {
    pub(super) text: String,
    /// Where log-probabilities are asked for: tokens that begin in the text given so far.
    pub(super) words: Vec<Word>,
    /// What was given of the answer, this included.
    pub(super) heard: Heard,
}

/// A token of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Word {
    pub(super) token: Token,
    pub(super) chances: Chances,
    /// Where its text begins in the answer's, characters.
    pub(super) start: usize,
}

/// Why an answer is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// The model or a stop string ended it.
    Stop,
    /// It has as many tokens as it may.
    Length,
}

impl Finish {
    /// In OpenAI's words.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
        }
    }
}

/// One answer, as it is made.
pub(super) struct Speech<'a> {
    served: &'a Served,
    detokenizer: Detokenizer<'a>,
    stops: StopStrings,
    /// Characters of text that were made, and that were given.
    made: usize,
    given: usize,
    /// Tokens whose text has not been given yet.
    held: VecDeque<Word>,
    heard: Heard,
    /// What the client has already.
    skip: Skip,
    begun: bool,
}

impl<'a> Speech<'a> {
    /// Behind the last token of its prompt.
    pub(super) fn new(asked: &'a Asked, answer: usize) -> Self {
        let before = asked.prompt_of(answer).tokens.last().copied();
        Self {
            served: &asked.served,
            detokenizer: asked.served.tokenizer.detokenizer(before),
            stops: StopStrings::new(asked.stops.iter().cloned()),
            made: 0,
            given: 0,
            held: VecDeque::new(),
            heard: Heard::default(),
            skip: Skip::new(asked.heard[answer]),
            begun: false,
        }
    }

    /// Listens to the node and says what comes, until the answer is over or nobody hears it.
    pub(super) async fn run(
        mut self,
        answer: usize,
        mut replies: Replies,
        bounds: &Bounds,
        mut timing: Timing,
        said: mpsc::Sender<(usize, Said)>,
    ) {
        loop {
            let news = match replies.next().await {
                Some(Reply::Token { token, chances, .. }) => {
                    timing.token();
                    self.hear(token, chances.map(|chances| *chances))
                }
                Some(Reply::End) => self.end(Finish::Length),
                Some(Reply::Refused(why)) => vec![Said::Failed(Fault::refused(&why, bounds))],
                Some(Reply::Failed(why)) if self.begun => vec![Said::Failed(Fault::internal(why))],
                Some(Reply::Failed(why)) => vec![Said::Failed(Fault::not_serving(why, bounds))],
                None => vec![Said::Failed(Fault::not_serving("The node is ending.", bounds))],
            };
            for news in self.passed(news) {
                let is_last = !matches!(news, Said::Piece(_));
                if said.send((answer, news)).await.is_err() || is_last {
                    return;
                }
            }
        }
    }

    /// `news` without what the client has.
    fn passed(&mut self, news: Vec<Said>) -> Vec<Said> {
        if let Err(fault) = self.skip.keeps(&self.heard) {
            return vec![Said::Failed(fault)];
        }
        let mut passed = Vec::with_capacity(news.len());
        for news in news {
            let keeps = match &news {
                Said::Piece(piece) => self.skip.keeps(&piece.heard),
                Said::Ended { heard, .. } => self.skip.keeps(heard).map(|_| false),
                Said::Failed(_) => Ok(false),
            };
            match keeps {
                Ok(true) => {}
                Ok(false) => passed.push(news),
                Err(fault) => passed.push(Said::Failed(fault)),
            }
        }
        passed
    }

    fn hear(&mut self, token: Token, chances: Option<Chances>) -> Vec<Said> {
        if self.served.tokenizer.is_end(token) {
            return self.end(Finish::Stop);
        }
        self.heard.push(token);
        self.held.extend(chances.map(|chances| Word { token, chances, start: self.made }));
        let text = self.detokenizer.push(token);
        self.made += text.chars().count();
        let passed = self.stops.push(text);
        let piece = self.piece(passed.text, Phase::Token);
        if passed.stopped.is_some() {
            return self.over(piece, Finish::Stop);
        }
        let is_first = !std::mem::replace(&mut self.begun, true);
        let says_nothing = piece.text.is_empty() && piece.words.is_empty();
        if says_nothing && !is_first { Vec::new() } else { vec![Said::Piece(piece)] }
    }

    /// No token follows: what was held back is given.
    fn end(&mut self, finish: Finish) -> Vec<Said> {
        let passed = self.stops.push(self.detokenizer.finish());
        let text = passed.text + &self.stops.finish();
        let mut piece = self.piece(text, Phase::Rest);
        let finish = if passed.stopped.is_some() { Finish::Stop } else { finish };
        if passed.stopped.is_none() {
            piece.words.extend(self.held.drain(..));
        }
        self.over(piece, finish)
    }

    fn over(&self, piece: Piece, finish: Finish) -> Vec<Said> {
        let heard = self.heard.at(Phase::Over);
        let ended = Said::Ended { finish, tokens: heard.tokens as usize, heard };
        let says_nothing = piece.text.is_empty() && piece.words.is_empty();
        if says_nothing { vec![ended] } else { vec![Said::Piece(piece), ended] }
    }

    /// `text` with the tokens that begin in what was given until then.
    fn piece(&mut self, text: String, phase: Phase) -> Piece {
        self.given += text.chars().count();
        let begun = self.held.iter().take_while(|word| word.start < self.given).count();
        Piece { text, words: self.held.drain(..begun).collect(), heard: self.heard.at(phase) }
    }
}
