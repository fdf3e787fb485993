//! Who runs it, and what was measured of it elsewhere.

use planner::cost::constants::{RING, Software};

use crate::over_turmoil::SCALE_MAX;
use crate::scenario::kind::{Engines, Number, Word, Wrong};
use crate::scenario::leaf::Leaf;
use crate::scenario::raw::{RawPublished, RawRun};
use crate::scenario::reading::{Reading, above_zero, count_within, within};
use crate::scenario::tree::Value;
use crate::scenario::{EngineKind, Published, WorldKind};

/// turmoil's cost per tick grows with the cube of the hosts: up to here it answers in reasonable time.
const TURMOIL_HOSTS_USUAL: usize = 30;
/// Beyond this a second takes minutes.
const TURMOIL_HOSTS_MOST: usize = 64;
/// A device's true speed is this far from the formula, as a relative standard deviation: two machines of one model
/// differ by a few per cent in clocks and cooling.
const DEVICE_ERROR: f64 = 0.03;
/// A step is this far from its device's mean.
const STEP_ERROR: f64 = 0.01;
/// A run that has not ended by then is stopped, microseconds.
const LIMIT_US: f64 = 3600e6;

/// What `[run]` comes to, less the seed, which is needed before all else.
pub(super) struct Run {
    pub(super) engine: EngineKind,
    pub(super) baselines: Vec<EngineKind>,
    pub(super) world: WorldKind,
    pub(super) scale: Option<u32>,
    pub(super) compute_error: (f64, f64),
    pub(super) software: Software,
    pub(super) inject_us: f64,
    pub(super) limit_us: f64,
}

/// The `[run]` table; what is wrong is noted.
pub(super) fn run(reading: &Reading, raw: &RawRun, nodes: usize) -> Run {
    let world = reading.checked(raw.world, |world| {
        if *world == WorldKind::Turmoil && nodes > TURMOIL_HOSTS_MOST {
            let message = format!("{nodes} nodes are too many for turmoil, whose cost grows with their cube");
            return Err(Wrong::new(
                message,
                format!("write \"memory\", or at most {TURMOIL_HOSTS_MOST} nodes"),
            ));
        }
        Ok(())
    });
    let usual = if nodes > TURMOIL_HOSTS_USUAL { WorldKind::Memory } else { WorldKind::Turmoil };
    let error = raw.compute_error.as_ref();
    let share = |leaf: Option<Leaf<Number>>, usual| reading.checked(leaf, within(0.0, 1.0)).unwrap_or(usual);
    Run {
        engine: reading.get(raw.engine).unwrap_or(EngineKind::Ring),
        baselines: raw.baselines.map(|leaf| engines(reading, leaf)).unwrap_or_default(),
        world: world.unwrap_or(usual),
        scale: reading.checked(raw.scale, count_within(1, SCALE_MAX)),
        compute_error: (
            share(error.and_then(|e| e.device), DEVICE_ERROR),
            share(error.and_then(|e| e.step), STEP_ERROR),
        ),
        software: software(reading, raw),
        inject_us: reading.get(raw.inject).unwrap_or(0.0),
        limit_us: reading.checked(raw.limit, above_zero("the limit", "\"10 min\"")).unwrap_or(LIMIT_US),
    }
}

fn software(reading: &Reading, raw: &RawRun) -> Software {
    let Some(costs) = &raw.software else { return RING };
    Software {
        per_hop_us: reading.get(costs.per_hop).unwrap_or(RING.per_hop_us),
        per_step_us: reading.get(costs.per_step).unwrap_or(RING.per_step_us),
        ..RING
    }
}

fn engines(reading: &Reading, leaf: Leaf<Engines>) -> Vec<EngineKind> {
    let slot = reading.at(leaf);
    let Value::List(items) = &slot.node.value else {
        reading.fault_in(leaf, "baselines are a list of engines", "write baselines = [\"llama-rpc\"]");
        return Vec::new();
    };
    let mut found = Vec::new();
    for item in items {
        let Some(engine) = reading.value::<Word<EngineKind>>(item, &slot.key) else { continue };
        if found.contains(&engine) {
            reading.fault(
                &item.span,
                &slot.key,
                Wrong::new("this engine stands there twice", "name it once"),
            );
        }
        found.push(engine);
    }
    found
}

/// The `[published]` table; what is wrong is noted.
pub(super) fn published(reading: &Reading, raw: &RawPublished, name: &str) -> Option<Published> {
    let required = [
        ("decode", raw.decode.is_none(), "decode = 21.0 or [12, 13], tokens per second"),
        ("grade", raw.grade.is_none(), "grade = \"A\", \"B\" or \"C\""),
        ("family", raw.family.is_none(), "family = a word for the group of measurements"),
        ("source", raw.source.is_none(), "source = where it was published"),
    ];
    for (key, missing, cure) in required {
        if missing {
            reading.fault_here(
                raw.here,
                format!("a published figure needs `{key}`"),
                format!("write {cure}"),
            );
        }
    }
    let grade = reading.checked(raw.grade, |text| match text.as_str() {
        "A" | "B" | "C" => Ok(()),
        _ => Err(Wrong::new(
            format!("`{text}` is no grade"),
            "write \"A\" (all known), \"B\" (assumed) or \"C\" (poor)",
        )),
    });
    let assumed = reading.get(raw.assumed).unwrap_or_default();
    if grade.as_deref() == Some("B") && assumed.is_empty() {
        reading.fault_here(raw.here, "grade B without what was assumed", "write assumed = \"...\"");
    }
    Some(Published {
        id: reading.get(raw.id).unwrap_or_else(|| name.to_owned()),
        decode_tok_s: raw.decode.and_then(|leaf| figure(reading, leaf))?,
        grade: grade?.chars().next()?,
        family: reading.get(raw.family)?,
        source: reading.get(raw.source)?,
        assumed,
        calibrated_on: reading.get(raw.calibrated_on).unwrap_or(false),
    })
}

fn figure(reading: &Reading, leaf: Leaf<crate::scenario::kind::Figure>) -> Option<(f64, f64)> {
    const CURE: &str = "write tokens per second: 21.0, or the ends of a range: [12, 13]";
    let slot = reading.at(leaf);
    let (low, high) = match &slot.node.value {
        Value::List(items) => match items.as_slice() {
            [low, high] => {
                (reading.value::<Number>(low, &slot.key)?, reading.value::<Number>(high, &slot.key)?)
            }
            _ => {
                reading.fault_in(leaf, "a range has two ends", CURE);
                return None;
            }
        },
        _ => reading.value::<Number>(&slot.node, &slot.key).map(|x| (x, x))?,
    };
    if low <= 0.0 || high < low {
        reading.fault_in(leaf, "tokens per second are more than zero, the lower end first", CURE);
        return None;
    }
    Some((low, high))
}
