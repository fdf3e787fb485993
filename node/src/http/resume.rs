//! A stream that broke off, gone on with at another node.
//!
//! An answer depends on its request and a number alone: the seed, where the request has none, and the answer's name come
//! from that number. Each event of a stream is named by that number and how far the answers were after it. A client whose
//! node has died sends the same request to another one with `Last-Event-ID`, as browsers do; that node makes the same
//! tokens again, keeps to itself what the client has, and goes on from there. `Idempotency-Key` gives the number where
//! nothing came yet, so that a request that is sent again has the same answer.

use axum::http::{HeaderMap, HeaderName};

use super::entropy;
use super::fault::Fault;
use crate::ids::Token;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const LAST: HeaderName = HeaderName::from_static("last-event-id");

/// Longest key or name of an event, bytes: that of an event of as many answers as one request may have is shorter.
const LENGTH_MAX: usize = 1024;

/// What an answer's events say of how much of it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Phase {
    /// What its last token made of its text.
    #[default]
    Token,
    /// What had been held back, too.
    Rest,
    /// All of it, and why it ended.
    Over,
}

/// How much of an answer was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Heard {
    /// Tokens of it.
    pub(super) tokens: u32,
    pub(super) phase: Phase,
    /// Of those tokens: another node that makes others cannot go on.
    hash: u32,
}

impl Heard {
    /// One token more. FNV-1a, over tokens for bytes: it is to find accidents, not enemies.
    pub(super) fn push(&mut self, token: Token) {
        let before = if self.tokens == 0 { 0x811c_9dc5 } else { self.hash };
        (self.tokens, self.hash) = (self.tokens + 1, (before ^ token.0).wrapping_mul(0x0100_0193));
    }

    pub(super) fn at(self, phase: Phase) -> Self {
        Self { phase, ..self }
    }

    /// Whether `other`, of the same tokens, came before this or is this.
    fn covers(&self, other: &Heard) -> bool {
        (other.tokens, other.phase) <= (self.tokens, self.phase)
    }

    fn shown(&self) -> String {
        let mark = match self.phase {
            Phase::Token => "",
            Phase::Rest => "r",
            Phase::Over => "x",
        };
        format!("{}-{:08x}{mark}", self.tokens, self.hash)
    }

    fn parse(text: &str) -> Option<Self> {
        let (tokens, rest) = text.split_once('-')?;
        let (hash, phase) = match rest.as_bytes().last()? {
            b'r' => (&rest[..rest.len() - 1], Phase::Rest),
            b'x' => (&rest[..rest.len() - 1], Phase::Over),
            _ => (rest, Phase::Token),
        };
        let hash = u32::from_str_radix(hash, 16).ok().filter(|_| hash.len() == 8)?;
        Some(Self { tokens: tokens.parse().ok()?, hash, phase })
    }
}

/// What a request's answers come from beside the request, and what of them its client has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    number: u64,
    /// By answer; none of a request that is asked for the first time.
    heard: Vec<Heard>,
}

impl Origin {
    /// A request of which nothing is known.
    pub(super) fn new() -> Self {
        Self { number: entropy::number(), heard: Vec::new() }
    }

    /// # Errors
    /// [`Fault`]: a header is no name of an event, or too long.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Fault> {
        if let Some(last) = text(headers, &LAST)?.filter(|last| !last.is_empty()) {
            return Self::parse(last).ok_or_else(|| {
                let problem =
                    "is no event of this API: send the `id` of the last event that came, as it came";
                Fault::request(format!("`Last-Event-ID` {problem}."))
            });
        }
        let Some(key) = text(headers, &KEY)?.filter(|key| !key.is_empty()) else { return Ok(Self::new()) };
        Ok(Self { number: entropy::digest(key.as_bytes()), heard: Vec::new() })
    }

    fn parse(id: &str) -> Option<Self> {
        let mut parts = id.split('.');
        let number = parts.next().filter(|number| number.len() == 16)?;
        let number = u64::from_str_radix(number, 16).ok()?;
        let heard: Vec<Heard> = parts.map(Heard::parse).collect::<Option<_>>()?;
        (!heard.is_empty()).then_some(Self { number, heard })
    }

    /// The seed of a request that has none.
    pub(super) fn seed(&self) -> u64 {
        self.number
    }

    /// The name of the reply behind its prefix.
    pub(super) fn name(&self) -> String {
        format!("{:016x}", self.number)
    }

    /// What the client has of each of so many answers.
    ///
    /// # Errors
    /// [`Fault`]: the event is one of another request.
    pub(super) fn heard(&self, answers: usize) -> Result<Vec<Heard>, Fault> {
        match self.heard.len() {
            0 => Ok(vec![Heard::default(); answers]),
            some if some == answers => Ok(self.heard.clone()),
            _ => Err(Fault::request(
                "`Last-Event-ID` is of a request with another number of answers: send the same request again.",
            )),
        }
    }

    /// The name of the event after which so much was given.
    pub(super) fn event(&self, heard: &[Heard]) -> String {
        let parts = heard.iter().map(Heard::shown);
        std::iter::once(self.name()).chain(parts).collect::<Vec<_>>().join(".")
    }
}

/// A header's text, unless it is absent.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Fault> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| text.len() <= LENGTH_MAX);
    let wrong = || format!("The header `{name}` must be plain text of at most {LENGTH_MAX} characters.");
    text.map(Some).ok_or_else(|| Fault::request(wrong()))
}

/// Keeps back what a client has.
#[derive(Debug)]
pub(super) struct Skip(Option<Heard>);

impl Skip {
    pub(super) fn new(heard: Heard) -> Self {
        Self((heard != Heard::default()).then_some(heard))
    }

    /// Whether what was given after `now` is to be kept back.
    ///
    /// # Errors
    /// [`Fault`]: these are not the tokens that the client has.
    pub(super) fn keeps(&mut self, now: &Heard) -> Result<bool, Fault> {
        let Some(had) = self.0 else { return Ok(false) };
        let is_other = now.tokens == had.tokens && now.hash != had.hash;
        // An answer that ends before what was given of it is another one.
        if is_other || (now.phase == Phase::Over && now.tokens < had.tokens) {
            return Err(Fault::conflict(
                "The answer cannot be gone on with: this mesh now makes another one of the same request. Ask anew, \
                 without `Last-Event-ID`.",
            ));
        }
        let keeps = had.covers(now);
        if !keeps {
            self.0 = None;
        }
        Ok(keeps)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "what is not there is the failed test")]

    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn heard(tokens: &[u32], phase: Phase) -> Heard {
        let mut heard = Heard::default();
        tokens.iter().for_each(|token| heard.push(Token(*token)));
        heard.at(phase)
    }

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn an_events_name_says_all_of_it() {
        let origin = Origin { number: 7, heard: Vec::new() };
        let all = [heard(&[], Phase::Token), heard(&[4, 5], Phase::Rest), heard(&[6], Phase::Over)];
        let read = Origin::read(&with(LAST, &origin.event(&all))).unwrap();
        assert_eq!(read, Origin { number: 7, heard: all.to_vec() });
        assert!(read.heard(2).is_err() && read.heard(3).is_ok());
        for tokens in 0..200 {
            let one = [heard(&[tokens], Phase::Token)];
            assert_eq!(Origin::parse(&origin.event(&one)).unwrap().heard, one);
        }
    }

    #[test]
    fn the_same_key_gives_the_same_number_and_no_key_another_each_time() {
        let of = |key: &str| Origin::read(&with(KEY, key)).unwrap();
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a"), of("b"));
        assert_ne!(of(""), of(""));
        assert!(Origin::read(&with(KEY, &"k".repeat(2000))).is_err());
    }

    #[test]
    fn what_a_client_has_is_kept_back_and_other_tokens_are_found() {
        let mut skip = Skip::new(heard(&[1, 2], Phase::Token));
        assert_eq!(skip.keeps(&heard(&[1], Phase::Token)), Ok(true));
        assert_eq!(skip.keeps(&heard(&[1, 2], Phase::Token)), Ok(true));
        assert_eq!(skip.keeps(&heard(&[1, 2], Phase::Rest)), Ok(false));
        assert_eq!(skip.keeps(&heard(&[1, 2], Phase::Over)), Ok(false));
        assert!(Skip::new(heard(&[1, 2], Phase::Token)).keeps(&heard(&[1, 3], Phase::Token)).is_err());
        assert!(Skip::new(heard(&[1, 2], Phase::Token)).keeps(&heard(&[1], Phase::Over)).is_err());
        assert_eq!(Skip::new(Heard::default()).keeps(&Heard::default()), Ok(false));
    }

    proptest! {
        #[test]
        fn any_header_is_an_origin_or_an_error(value in "[ -~]{0,80}") {
            let _ = Origin::read(&with(LAST, &value));
        }
    }
}
