//! The model with its tokeniser: takes a prompt, gives text as it comes.

use super::interrupt::Interrupt;
use super::memory::Memory;
use crate::cli::Stopwatch;
use crate::cli::arguments::Run;
use crate::cli::failure::Failure;
use crate::cli::loading::Loaded;
use crate::engine::{EngineError, Want};
use crate::ids::Token;
use crate::real::text::{StopStrings, Tokenizer};
use crate::sampling::Sampling;

/// Tokens of a prompt that are read at once: between two such pieces Ctrl-C is heard.
const CHUNK: usize = 256;

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum End {
    /// The model ended it.
    Model,
    /// A stop string came.
    Stop,
    /// It has as many tokens as were asked for.
    Length,
    /// The conversation fills the context.
    Context,
    /// Ctrl-C.
    Interrupted,
}

/// An answer, and what it took.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) end: End,
    /// Tokens of the prompt.
    pub(super) prompt_tokens: usize,
    /// Those of them that were known from the prompt before.
    pub(super) known_tokens: usize,
    pub(super) tokens: usize,
    pub(super) prefill_s: f64,
    pub(super) decode_s: f64,
}

impl Answer {
    /// Tokens of the prompt that were read, a second.
    pub(super) fn prefill_rate(&self) -> Option<f64> {
        let read = self.prompt_tokens - self.known_tokens;
        (read > 0 && self.prefill_s > 0.0).then(|| read as f64 / self.prefill_s)
    }

    /// Tokens of the answer a second, the first left out: that one came with the prompt.
    pub(super) fn decode_rate(&self) -> Option<f64> {
        (self.tokens > 1 && self.decode_s > 0.0).then(|| (self.tokens - 1) as f64 / self.decode_s)
    }
}

/// Gets an answer's text as it comes.
pub(super) type Say<'a> = &'a mut dyn FnMut(&str) -> Result<(), Failure>;

/// Speaks with the model.
pub(super) struct Speaker {
    memory: Memory,
    tokenizer: Tokenizer,
    sampling: Sampling,
    stops: Vec<String>,
    tokens_max: usize,
    context: usize,
    interrupt: Interrupt,
    load_s: f64,
}

impl Speaker {
    pub(super) fn new(
        loaded: Loaded,
        tokenizer: Tokenizer,
        sampling: Sampling,
        asked: &Run,
        interrupt: Interrupt,
    ) -> Self {
        let trained = loaded.model.shape().context;
        let context = if asked.context == 0 { trained } else { asked.context };
        Self {
            memory: Memory::new(loaded.model),
            tokenizer,
            sampling,
            stops: asked.sampling.stop.clone(),
            tokens_max: asked.sampling.max_tokens as usize,
            context: if context == 0 { usize::MAX } else { context as usize },
            interrupt,
            load_s: loaded.seconds,
        }
    }

    pub(super) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub(super) fn threads(&self) -> usize {
        self.memory.model().threads()
    }

    /// Seconds that loading took.
    pub(super) fn load_s(&self) -> f64 {
        self.load_s
    }

    pub(super) fn seed(&self) -> u64 {
        self.sampling.seed
    }

    /// Tokens that prompt and answer may have together.
    pub(super) fn context(&self) -> usize {
        self.context
    }

    /// Draws other words for the same question.
    pub(super) fn reseed(&mut self) {
        self.sampling.seed = self.sampling.seed.wrapping_add(1);
    }

    /// Answers `prompt`; `say` gets the text as it comes. `stops` end the answer besides those asked for.
    ///
    /// # Errors
    /// [`Failure::Engine`], and [`Failure::Usage`] for a prompt without tokens or longer than the context.
    pub(super) fn answer(
        &mut self,
        prompt: &[Token],
        stops: &[&str],
        say: Say<'_>,
    ) -> Result<Answer, Failure> {
        self.interrupt.clear();
        self.check(prompt)?;
        let stops = self.stops.iter().cloned().chain(stops.iter().map(|stop| (*stop).to_owned()));
        let stops = StopStrings::new(stops);
        let known_tokens = self.memory.rewind(prompt);
        let clock = Stopwatch::start();
        let first = self.read(prompt)?;
        let mut answer = Answer {
            text: String::new(),
            end: End::Interrupted,
            prompt_tokens: prompt.len(),
            known_tokens,
            tokens: 0,
            prefill_s: clock.seconds(),
            decode_s: 0.0,
        };
        if let Some(first) = first {
            let clock = Stopwatch::start();
            self.write(prompt.last().copied(), first, stops, &mut answer, say)?;
            answer.decode_s = clock.seconds();
        }
        Ok(answer)
    }

    fn check(&self, prompt: &[Token]) -> Result<(), Failure> {
        let (have, may) = (prompt.len(), self.context);
        if have == 0 {
            return Err(Failure::Usage("the prompt has no tokens: there is nothing to answer".into()));
        }
        if have >= may {
            let cure = "shorten it, or give a longer --context";
            return Err(Failure::Usage(format!("the prompt has {have} tokens, the context {may}: {cure}")));
        }
        Ok(())
    }

    /// Reads the rest of the prompt and gives the token that follows; `None` where Ctrl-C came first.
    fn read(&mut self, prompt: &[Token]) -> Result<Option<Token>, EngineError> {
        loop {
            let rest = &prompt[self.memory.len()..];
            if rest.len() <= CHUNK {
                let sampling = self.sampling_behind(prompt);
                return self.memory.step(rest, Want::Sample(sampling));
            }
            self.memory.step(&rest[..CHUNK], Want::Nothing)?;
            if self.interrupt.is_set() {
                return Ok(None);
            }
        }
    }

    /// The parameters, with the tokens that penalties look back at.
    fn sampling_behind(&self, before: &[Token]) -> Sampling {
        let window = self.sampling.window();
        let past = (window > 0).then(|| before[before.len().saturating_sub(window)..].into());
        Sampling { past, ..self.sampling.clone() }
    }

    /// Gives text until the answer ends, beginning with a token that was sampled already.
    fn write(
        &mut self,
        before: Option<Token>,
        first: Token,
        mut stops: StopStrings,
        answer: &mut Answer,
        say: Say<'_>,
    ) -> Result<(), Failure> {
        let mut detokenizer = self.tokenizer.detokenizer(before);
        let mut token = first;
        answer.end = loop {
            if self.tokenizer.is_end(token) {
                break End::Model;
            }
            answer.tokens += 1;
            let passed = stops.push(detokenizer.push(token));
            answer.add(&passed.text, say)?;
            if passed.stopped.is_some() {
                break End::Stop;
            }
            if answer.tokens == self.tokens_max {
                break End::Length;
            }
            if self.memory.len() + 1 >= self.context {
                break End::Context;
            }
            if self.interrupt.is_set() {
                break End::Interrupted;
            }
            let want = Want::Sample(self.sampling.clone());
            token = self.memory.step(&[token], want)?.expect("a token was asked for");
        };
        let last = stops.push(detokenizer.finish()).text + &stops.finish();
        answer.add(&last, say)
    }
}

impl Answer {
    fn add(&mut self, text: &str, say: Say<'_>) -> Result<(), Failure> {
        self.text.push_str(text);
        if text.is_empty() { Ok(()) } else { say(text) }
    }
}
