//! What a run leaves behind in a file, the same of a real mesh as of a simulated one: a [`Header`], then a [`Line`] for each
//! event, as lines of JSON. `meshwright observe` and `sim --record` write such files, `sim replay` and `sim calibrate` read
//! them.

use std::path::PathBuf;

use planner::fleet::Device;
use planner::plan::LayerRange;
use serde::{Deserialize, Serialize};

use crate::probe::Event;

/// The format's version.
pub const VERSION: u32 = 1;

/// Who took part, in which model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`VERSION`].
    pub meshwright_record: u32,
    /// `real`, or the simulator's world.
    pub world: String,
    /// The model's name.
    pub model: String,
    /// Where its file lies, where that is known.
    pub gguf: Option<PathBuf>,
    /// The machines.
    pub nodes: Vec<Node>,
    /// What was measured between them.
    pub links: Vec<Link>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// What people call it.
    pub name: String,
    /// What computes there, as it was taken to be.
    pub device: Device,
    /// The layers it held when the record began.
    pub layers: Option<LayerRange>,
}

/// A way between two machines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Their names.
    pub between: (String, String),
    /// A message there and back, microseconds.
    pub round_trip_us: f64,
    /// What a long transfer reaches, bytes per second.
    pub bytes_per_s: f64,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When, nanoseconds from the record's beginning.
    pub at_ns: u64,
    /// Where.
    pub node: String,
    /// What. Tokens are left out of real records: what was said is nobody's business.
    pub event: Event,
}

/// How a node begins to tell: its own part of a header, and what its clock says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opening {
    /// Its time, nanoseconds; its lines are by the same clock.
    pub now_ns: u64,
    /// With itself as the only node.
    pub header: Header,
}
