//! What things cost: a step on a device, a transfer over a path, a KV cache, a load from disk.
//!
//! * [`constants`]: every constant, with its source. There are few, and their number stands beside each accuracy figure.
//! * [`step`]: one engine step of a stage.
//! * [`transfer`]: one frame over a path.
//! * [`memory`]: what a stage needs, and how long it takes to load.
//! * [`predict`]: a whole plan.
//! * [`fit`]: from timed steps to a device's rates.
//! * [`capacity`]: how many requests a plan can finish at most.

pub mod capacity;
pub mod constants;
pub mod fit;
pub mod memory;
pub mod predict;
pub mod step;
pub mod transfer;
