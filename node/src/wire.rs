//! The frames that nodes exchange. Encoded by postcard; [`Frame::wire_len`] is what a link charges for one.

use bytes::Bytes;
use planner::cost::constants::{FRAME_HEADER_BYTES, TOKEN_FRAME_BYTES};
use planner::plan::{Epoch, LayerRange, Plan};
use serde::{Deserialize, Serialize};

use crate::engine::{Sampled, Sampling};
use crate::ids::{Attempt, PeerId, PlanId, SessionId, Token};

/// A tensor, or what stands for one in a simulation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// The bytes themselves. Engines write a residual stream with a byte in front that says what its numbers are, and
    /// refuse one of another type than theirs.
    Real(Bytes),
    /// A tensor that is charged to the links at `len` bytes; `digests` (one per token) let the simulated engine prove
    /// that what arrived is what was sent.
    Virtual {
        /// Bytes the tensor would have.
        len: u64,
        /// One value per token, from all of the layers and context before.
        digests: Vec<u64>,
    },
}

impl Payload {
    /// Bytes a link charges.
    pub fn wire_len(&self) -> u64 {
        match self {
            Payload::Real(bytes) => bytes.len() as u64,
            Payload::Virtual { len, .. } => *len,
        }
    }
}

/// The way of a session through the mesh: sent with its first frame, kept by every stage it passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The plan it follows.
    pub epoch: Epoch,
    /// The model.
    pub model: String,
    /// Where tokens go back to.
    pub head: PeerId,
    /// Which life of it: tokens over a stream to an earlier one would be lost.
    pub head_life: u64,
    /// The stages in order, and the layers each computes.
    pub stages: Vec<(PeerId, LayerRange)>,
}

/// What a step carries: ids for the first stage, activations for the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepInput {
    /// Token ids.
    Tokens(Vec<Token>),
    /// Residual stream.
    Hidden(Payload),
}

/// One session's tokens on their way through the stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Whose.
    pub session: SessionId,
    /// Which try.
    pub attempt: Attempt,
    /// Which stage of the route this is for.
    pub stage: u16,
    /// Present in the first frame of an attempt.
    pub route: Option<Route>,
    /// Position of the first token.
    pub start: u32,
    /// How many tokens.
    pub count: u32,
    /// Ids or activations.
    pub input: StepInput,
    /// How the last stage samples after these tokens; `None` for chunks before the prompt's end.
    pub sample: Option<Sampling>,
}

/// Why a stage cannot go on with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nack {
    /// It does not know the session (restarted, expired).
    Unknown,
    /// The layers of the route are not loaded here.
    NotLoaded,
    /// No KV room.
    NoRoom,
    /// Tokens are missing before these.
    Gap,
    /// The next stage cannot be reached.
    NextUnreachable,
    /// The stream from the previous stage broke; what was on it may be lost.
    PreviousLost,
    /// The session has been here with this attempt, of another head: only a higher one counts.
    Superseded(Attempt),
    /// The step contradicts itself or the model: no other attempt of this session would do better.
    Unsound,
}

/// What goes over a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Frame {
    /// Forward through the ring, many sessions at once.
    Steps(Vec<Step>),
    /// From the last stage to the head: the token at `position`.
    Token {
        /// Whose.
        session: SessionId,
        /// Which try.
        attempt: Attempt,
        /// Its place in the session, prompt included.
        position: u32,
        /// The token, and how likely it and others were where the session asks for that.
        sampled: Sampled,
    },
    /// From a stage to the head: this attempt is over.
    Nack {
        /// Whose.
        session: SessionId,
        /// Which try.
        attempt: Attempt,
        /// Why.
        why: Nack,
    },
    /// Forward through the ring: the session has ended, free its KV.
    Close {
        /// Whose.
        session: SessionId,
        /// Up to and with this try.
        attempt: Attempt,
        /// Which stage of the route this is for.
        stage: u16,
    },
    /// From the head to each stage of an attempt that it has given up: free its KV.
    Abandon {
        /// Whose.
        session: SessionId,
        /// Up to and with this try.
        attempt: Attempt,
        /// Nothing came and nobody said why: the stream on which this stage passes the session on may hang.
        silent: bool,
    },
    /// Liveness and plans.
    Control(Control),
    /// A packet of the membership protocol ([`crate::membership`]).
    Gossip(Bytes),
    /// The first frame of a stream that belongs to one of several conversations ([`crate::switch`]).
    Branch(Channel),
}

/// One of several conversations between the same nodes: a model's fingerprint, or zeros for the mesh's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Channel(pub [u8; 32]);

/// What nodes tell each other about themselves and about plans.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Control {
    /// Are you there?
    Ping {
        /// Echoed.
        nonce: u64,
    },
    /// I am.
    Pong {
        /// From the ping.
        nonce: u64,
        /// How it is.
        status: Status,
    },
    /// To the planning node, unasked: how this node is, now that it has changed.
    Status(Status),
    /// A head missed a token and suspects this peer.
    Suspect {
        /// Whom.
        peer: PeerId,
        /// Its connections to the sender ended, and it refuses another.
        refuses: bool,
    },
    /// From the planning node to all: follow this.
    Publish {
        /// Its name: of two plans the one with the greater name holds.
        id: PlanId,
        /// The plan. Its node number `n` is the one named `names[n]`.
        plan: Plan,
        /// The nodes of the plan.
        names: Vec<PeerId>,
    },
    /// Send me what serves, and your plan unless it is this one.
    Want {
        /// The plan this node follows; the default for none.
        id: PlanId,
    },
    /// From the planning node to all: these replicas of that plan serve.
    Serving {
        /// Of which plan.
        id: PlanId,
        /// Index of each replica whose stages are all alive and loaded, and the sum of their incarnations.
        replicas: Vec<(u32, u64)>,
    },
}

/// How a node is. It is said with every answer to a ping, so that whatever was lost on its way is made good by the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The plan it follows; the default for none.
    pub plan: PlanId,
    /// A digest of which replicas of that plan serve, as far as it knows.
    pub serving: u64,
    /// What its device holds.
    pub readiness: Readiness,
    /// Changes with every start of the node: a restart is not a continuation.
    pub incarnation: u64,
    /// Whom it takes for the planning node: the first in order that it hears itself.
    pub planner: PeerId,
}

/// Whether a node's device holds its layers of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Readiness {
    /// Not yet.
    Loading,
    /// All of them.
    Ready,
    /// It could not load, or is about to end: not to be planned with until it starts again.
    Unable,
}

impl Frame {
    /// Bytes a link charges for the frame, tensor and headers.
    pub fn wire_len(&self) -> u64 {
        match self {
            Frame::Steps(steps) => FRAME_HEADER_BYTES + steps.iter().map(Step::wire_len).sum::<u64>(),
            Frame::Token { sampled, .. } => TOKEN_FRAME_BYTES + sampled.extra_len(),
            Frame::Nack { .. } | Frame::Close { .. } | Frame::Abandon { .. } => TOKEN_FRAME_BYTES,
            Frame::Control(Control::Publish { plan, names, .. }) => {
                FRAME_HEADER_BYTES + 12 * plan.stages().count() as u64 + 32 * names.len() as u64
            }
            Frame::Control(Control::Serving { replicas, .. }) => {
                FRAME_HEADER_BYTES + 12 * replicas.len() as u64
            }
            Frame::Control(Control::Pong { .. } | Control::Status(_)) => 2 * TOKEN_FRAME_BYTES,
            Frame::Control(Control::Want { .. }) => FRAME_HEADER_BYTES,
            Frame::Control(_) => TOKEN_FRAME_BYTES,
            Frame::Gossip(packet) => FRAME_HEADER_BYTES + packet.len() as u64,
            Frame::Branch(_) => TOKEN_FRAME_BYTES,
        }
    }

    /// The sessions and first positions the frame moves: what a trace attributes its delay to.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, u32)> + '_ {
        let steps = match self {
            Frame::Steps(steps) => steps.as_slice(),
            _ => &[],
        };
        let token = match self {
            Frame::Token { session, position, .. } => Some((*session, *position)),
            _ => None,
        };
        steps.iter().map(|s| (s.session, s.end())).chain(token)
    }
}

impl Step {
    /// The position after its tokens.
    pub fn end(&self) -> u32 {
        self.start.saturating_add(self.count)
    }

    fn wire_len(&self) -> u64 {
        let input = match &self.input {
            StepInput::Tokens(tokens) => 4 * tokens.len() as u64,
            StepInput::Hidden(payload) => payload.wire_len(),
        };
        input + self.sample.as_ref().map_or(0, Sampling::extra_len)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use super::*;
    use crate::engine::{Chances, Penalties, Rules};
    use crate::sampling::{BIASES_MAX, CHANCES_MAX, WINDOW_MAX};

    fn encoded(frame: &Frame) -> u64 {
        crate::framed::encode(frame).unwrap().len() as u64
    }

    fn decode_step(payload: Payload) -> Frame {
        Frame::Steps(vec![Step {
            session: SessionId(u64::MAX),
            attempt: Attempt(3),
            stage: 2,
            route: None,
            start: 100_000,
            count: 1,
            input: StepInput::Hidden(payload),
            sample: Some(Sampling::drawn(0.7, u64::MAX)),
        }])
    }

    #[test]
    fn a_link_is_charged_at_least_what_a_decode_step_takes_encoded_and_not_twice_that() {
        for width in [0, 4096, 16_384] {
            let frame = decode_step(Payload::Real(Bytes::from(vec![9; width])));
            let (charged, real) = (frame.wire_len(), encoded(&frame));
            assert!(charged >= real && charged - real <= FRAME_HEADER_BYTES, "{charged} for {real}");
        }
    }

    #[test]
    fn a_link_is_charged_at_least_what_small_frames_take_encoded() {
        let (session, attempt) = (SessionId(u64::MAX), Attempt(u32::MAX));
        let token = Frame::Token { session, attempt, position: u32::MAX, sampled: Token(u32::MAX).into() };
        let nack = Frame::Nack { session, attempt, why: Nack::Superseded(attempt) };
        let close = Frame::Close { session, attempt, stage: u16::MAX };
        let abandon = Frame::Abandon { session, attempt, silent: true };
        let ping = Frame::Control(Control::Ping { nonce: u64::MAX });
        let plan = PlanId { epoch: Epoch(u64::MAX), maker: PeerId([255; 32]), life: u64::MAX };
        let status = Status {
            plan,
            serving: u64::MAX,
            readiness: Readiness::Unable,
            incarnation: u64::MAX,
            planner: PeerId([255; 32]),
        };
        let pong = Frame::Control(Control::Pong { nonce: u64::MAX, status });
        let want = Frame::Control(Control::Want { id: plan });
        let replicas = vec![(300, u64::MAX); 9];
        let serving = Frame::Control(Control::Serving { id: plan, replicas });
        let gossip = Frame::Gossip(Bytes::from(vec![7; 1200]));
        let branch = Frame::Branch(Channel([255; 32]));
        for frame in [token, nack, close, abandon, ping, pong, want, serving, gossip, branch] {
            assert!(frame.wire_len() >= encoded(&frame), "{frame:?}");
        }
    }

    #[test]
    fn a_link_is_charged_at_least_what_sampling_rules_and_log_probabilities_take_encoded() {
        let penalties = Penalties { window: u32::MAX, repeat: 1.0, presence: 1.0, frequency: 1.0 };
        let rules = Rules {
            top_k: u32::MAX,
            penalties: Some(penalties),
            biases: vec![(Token(u32::MAX), 1.0); BIASES_MAX],
            chances: Some(u8::MAX),
            ..Rules::default()
        };
        let past = Some(vec![Token(u32::MAX); WINDOW_MAX].into());
        let sampling = Sampling { past, ..Sampling::drawn(0.7, u64::MAX).with(rules) };
        let mut frame = decode_step(Payload::Real(Bytes::new()));
        if let Frame::Steps(steps) = &mut frame {
            steps[0].sample = Some(sampling);
        }
        assert!(frame.wire_len() >= encoded(&frame), "{} for {}", frame.wire_len(), encoded(&frame));
        let chances = Chances { chosen: -1.0, top: vec![(Token(u32::MAX), -1.0); CHANCES_MAX] };
        let sampled = Sampled { token: Token(u32::MAX), chances: Some(Box::new(chances)) };
        let (session, attempt) = (SessionId(u64::MAX), Attempt(u32::MAX));
        let frame = Frame::Token { session, attempt, position: u32::MAX, sampled };
        assert!(frame.wire_len() >= encoded(&frame), "{} for {}", frame.wire_len(), encoded(&frame));
    }

    #[test]
    fn a_virtual_tensor_is_charged_as_the_real_one_would_be() {
        let real = decode_step(Payload::Real(Bytes::from(vec![0; 4096])));
        let stand_in = decode_step(Payload::Virtual { len: 4096, digests: vec![1] });
        assert_eq!(real.wire_len(), stand_in.wire_len());
    }

    #[test]
    fn positions_at_the_end_of_counting_do_not_overflow() {
        let mut frame = decode_step(Payload::Real(Bytes::new()));
        if let Frame::Steps(steps) = &mut frame {
            (steps[0].start, steps[0].count) = (u32::MAX, u32::MAX);
        }
        assert_eq!(frame.sessions().next(), Some((SessionId(u64::MAX), u32::MAX)));
    }
}
