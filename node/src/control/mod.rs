//! Who is there, and which plan holds: the control plane of a node.
//!
//! * `core`: the decisions, as a function of what was heard and when. No input, no output, no waiting.
//! * `driver`: carries them out over the node's doors.

mod core;
mod driver;

use planner::plan::Epoch;

pub(crate) use self::core::Setting;
pub(crate) use self::driver::run;
use crate::ids::PeerId;
use crate::wire::Control;

/// What the control plane is told.
#[derive(Debug)]
pub(crate) enum ControlInput {
    /// A peer says.
    Frame {
        /// Who.
        from: PeerId,
        /// What.
        control: Control,
    },
    /// A head of this node missed a token.
    Suspect(PeerId),
    /// This node's stage has (or could not) load its layers.
    Loaded {
        /// Of this plan.
        epoch: Epoch,
        /// Whether it can serve.
        ok: bool,
    },
}
