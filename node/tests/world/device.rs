//! A tiny engine whose token is a hash of everything that the session's KV has seen, layer by layer: a token that is
//! lost, doubled or out of order anywhere changes all that follow, and any split gives the same ones.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use node::clock::{Clock, TokioClock};
use node::engine::{Engine, EngineError, Input, Want, Work, WorkOut};
use node::ids::{SessionId, Token};
use node::wire::Payload;
use planner::plan::LayerRange;

const VOCAB: u64 = 50_000;

/// What tests look at and turn, across the lives of one device.
#[derive(Debug)]
pub(crate) struct Condition {
    /// Tokens of KV that fit.
    pub(crate) room: usize,
    pub(crate) per_step: Duration,
    pub(crate) per_token: Duration,
    pub(crate) per_loaded_layer: Duration,
    /// It neither loads nor computes.
    pub(crate) spoilt: bool,
    /// The most sessions and tokens seen in one step.
    pub(crate) largest: (usize, u32),
    pub(crate) loads: usize,
}

impl Default for Condition {
    fn default() -> Self {
        Self {
            room: usize::MAX,
            per_step: Duration::from_millis(1),
            per_token: Duration::from_micros(10),
            per_loaded_layer: Duration::from_millis(20),
            spoilt: false,
            largest: (0, 0),
            loads: 0,
        }
    }
}

fn mix(a: u64, b: u64) -> u64 {
    let mut x = a ^ b.rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 29)
}

/// One session's KV: a running hash for each layer.
#[derive(Debug, Clone)]
struct Kv {
    layers: Vec<u64>,
    first: u32,
    len: u32,
}

impl Kv {
    fn new(layers: LayerRange) -> Self {
        Self { layers: vec![7; layers.len() as usize], first: layers.first, len: 0 }
    }

    fn push(&mut self, mut x: u64) -> u64 {
        for (i, layer) in self.layers.iter_mut().enumerate() {
            *layer = mix(*layer, x.wrapping_add(u64::from(self.first) + i as u64));
            x = mix(x, *layer);
        }
        self.len += 1;
        x
    }
}

/// What must come out.
pub(crate) fn reference(layers: u32, prompt: &[Token], count: usize) -> Vec<Token> {
    let mut kv = Kv::new(LayerRange::new(0, layers));
    let mut last = prompt.iter().fold(0, |_, token| kv.push(u64::from(token.0)));
    let mut out = Vec::new();
    for _ in 0..count {
        let token = Token((last % VOCAB) as u32);
        out.push(token);
        last = kv.push(u64::from(token.0));
    }
    out
}

fn spoilt() -> EngineError {
    EngineError::Device("spoilt for this test".into())
}

pub(crate) struct TinyEngine {
    clock: TokioClock,
    condition: Arc<Mutex<Condition>>,
    layers: Option<LayerRange>,
    sessions: BTreeMap<SessionId, Kv>,
}

impl TinyEngine {
    pub(crate) fn new(clock: TokioClock, condition: Arc<Mutex<Condition>>) -> Self {
        Self { clock, condition, layers: None, sessions: BTreeMap::new() }
    }

    fn run(&mut self, work: Work) -> Result<WorkOut, EngineError> {
        let layers = self.layers.ok_or(EngineError::NotLoaded)?;
        if self.condition.lock().unwrap().spoilt {
            return Err(spoilt());
        }
        let have = self.sessions.get(&work.session).map_or(0, |kv| kv.len);
        if have != work.start {
            return Err(EngineError::Gap { have, start: work.start });
        }
        let used: usize = self.sessions.values().map(|kv| kv.len as usize).sum();
        if used + work.count as usize > self.condition.lock().unwrap().room {
            return Err(EngineError::NoRoom);
        }
        if matches!(&work.input, Input::Tokens(tokens) if tokens.contains(&Token(u32::MAX))) {
            return Err(EngineError::Unsound("no vocabulary has this token".into()));
        }
        let inputs: Vec<u64> = match work.input {
            Input::Tokens(tokens) => tokens.iter().map(|t| u64::from(t.0)).collect(),
            Input::Hidden(Payload::Virtual { digests, .. }) => digests,
            Input::Hidden(Payload::Real(_)) => return Err(EngineError::Device("real tensor".into())),
        };
        assert_eq!(inputs.len(), work.count as usize);
        let kv = self.sessions.entry(work.session).or_insert_with(|| Kv::new(layers));
        let digests: Vec<u64> = inputs.into_iter().map(|x| kv.push(x)).collect();
        Ok(match work.want {
            Want::Hidden => WorkOut::Hidden(Payload::Virtual { len: 64 * digests.len() as u64, digests }),
            Want::Sample(_) => WorkOut::Token(Token((digests.last().unwrap() % VOCAB) as u32).into()),
            Want::Nothing => WorkOut::Done,
            other => return Err(EngineError::Unsound(format!("nobody asks for {other:?} here"))),
        })
    }
}

impl Engine for TinyEngine {
    async fn load(&mut self, _model: &str, layers: Option<LayerRange>) -> Result<(), EngineError> {
        if self.layers == layers {
            return Ok(());
        }
        self.sessions.clear();
        self.layers = None;
        let pause = {
            let mut condition = self.condition.lock().unwrap();
            condition.loads += 1;
            condition.per_loaded_layer * layers.map_or(0, LayerRange::len)
        };
        self.clock.sleep(pause).await;
        if layers.is_some() && self.condition.lock().unwrap().spoilt {
            return Err(spoilt());
        }
        self.layers = layers;
        Ok(())
    }

    async fn step(&mut self, batch: Vec<Work>) -> Vec<Result<WorkOut, EngineError>> {
        let tokens: u32 = batch.iter().map(|w| w.count).sum();
        let pause = {
            let mut condition = self.condition.lock().unwrap();
            let (sessions, most) = condition.largest;
            condition.largest = (sessions.max(batch.len()), most.max(tokens));
            condition.per_step + condition.per_token * tokens
        };
        self.clock.sleep(pause).await;
        batch.into_iter().map(|work| self.run(work)).collect()
    }

    fn truncate(&mut self, session: SessionId, _len: u32) {
        panic!("{session:?}: nothing speculates here");
    }

    fn release(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    fn held(&self) -> Vec<SessionId> {
        self.sessions.keys().copied().collect()
    }
}
