//! Devices: from the catalog, from the scenario's own tables, or by their figures.

use planner::fleet::{Device, Measured, catalog};

use crate::scenario::kind::{NameOr, Text, Wrong};
use crate::scenario::leaf::{Leaf, Named};
use crate::scenario::raw::{RawDevice, RawMeasured};
use crate::scenario::reading::{Reading, above_zero, within};
use crate::scenario::suggest;
use crate::scenario::tree::Value;

/// A device of the scenario may be like another one of it; so many steps, and then it is a circle.
const LIKENESS_DEPTH: usize = 8;

/// Looks devices up.
pub(super) struct Devices<'a> {
    pub(super) reading: &'a Reading,
    pub(super) own: &'a Named<RawDevice>,
}

impl Devices<'_> {
    /// The device a node names or describes.
    pub(super) fn device(&self, leaf: Leaf<NameOr<RawDevice>>) -> Option<Device> {
        let slot = self.reading.at(leaf);
        if !matches!(slot.node.value, Value::Text(_)) && slot.node.get("choice").is_none() {
            let raw: RawDevice = self.reading.table(&slot.node, &slot.key);
            let owner = slot.key.rsplit('.').nth(1).unwrap_or("device").to_owned();
            return self.figures(&raw, &owner, LIKENESS_DEPTH);
        }
        let name = self.reading.get(Some(leaf.of_kind::<Text>()))?;
        let found = self.named(&name, LIKENESS_DEPTH);
        found.map_err(|wrong| self.reading.fault_in(leaf, wrong.message, wrong.cure)).ok()?
    }

    /// Checks the scenario's own devices, also those that no node uses.
    pub(super) fn check_own(&self) {
        for (name, raw) in &self.own.0 {
            self.figures(raw, name, LIKENESS_DEPTH);
        }
    }

    /// `Ok(None)`: its problems are noted already, at its own place.
    fn named(&self, name: &str, depth: usize) -> Result<Option<Device>, Wrong> {
        if depth == 0 {
            return Err(Wrong::new(
                format!("`{name}` is like itself"),
                "end the chain of `like` at a catalog device",
            ));
        }
        if let Some((_, raw)) = self.own.0.iter().find(|(own, _)| own == name) {
            return Ok(self.figures(raw, name, depth - 1));
        }
        catalog::device(name).map(Some).map_err(|_| {
            let ids: Vec<String> = catalog::devices().into_iter().map(|d| d.id).collect();
            let known = self.own.0.iter().map(|(own, _)| own.as_str()).chain(ids.iter().map(String::as_str));
            Wrong::new(format!("there is no device `{name}`"), near_devices(name, known))
        })
    }

    fn figures(&self, raw: &RawDevice, name: &str, depth: usize) -> Option<Device> {
        let reading = self.reading;
        let memory =
            reading.checked(raw.memory, |bytes| above_zero("the memory", "\"16 GB\"")(&(*bytes as f64)));
        let mut device = match (raw.like, raw.class) {
            (Some(like), _) => self.like(like, memory, depth)?,
            (None, Some(class)) => self.of_class(raw, class, memory?)?,
            (None, None) => {
                let message = "the device has neither `like` nor `class`";
                reading.fault_here(raw.here, message, "start from a catalog device: like = \"apple-m4\"");
                return None;
            }
        };
        device.id = name.to_owned();
        if let Some(text) = reading.get(raw.name) {
            device.name = text;
        }
        self.apply(raw, &mut device);
        Some(device)
    }

    fn like(&self, like: Leaf<Text>, memory: Option<u64>, depth: usize) -> Option<Device> {
        let name = self.reading.get(Some(like))?;
        let found = self.named(&name, depth);
        let base = found.map_err(|w| self.reading.fault_in(like, w.message, w.cure)).ok()??;
        let Some(memory_bytes) = memory else { return Some(base) };
        // What the system keeps follows the class where the base is the catalog's, else it stays.
        Some(catalog::device_with_memory(&name, memory_bytes).unwrap_or(Device { memory_bytes, ..base }))
    }

    /// The figures of a class: those of any catalog device in it, less what is printed on that device's box.
    fn of_class(&self, raw: &RawDevice, leaf: Leaf<Text>, memory: u64) -> Option<Device> {
        let class = self.reading.get(Some(leaf))?;
        let entries = catalog::entries();
        let Some(entry) = entries.iter().find(|e| e.class == class) else {
            let classes = catalog::classes();
            let cure = suggest::cure(&class, "classes", classes.iter().map(|c| c.name.as_str()));
            self.reading.fault_in(leaf, format!("there is no class of devices `{class}`"), cure);
            return None;
        };
        for (key, missing) in [("bandwidth", raw.bandwidth.is_none()), ("flops", raw.flops.is_none())] {
            if missing {
                let message = format!("a device given by its class needs `{key}`");
                self.reading.fault_here(
                    raw.here,
                    message,
                    "write memory, bandwidth and flops, or start from `like`",
                );
            }
        }
        catalog::device_with_memory(&entry.id, memory).ok()
    }

    fn apply(&self, raw: &RawDevice, device: &mut Device) {
        let reading = self.reading;
        let set = |to: &mut f64, value: Option<f64>| *to = value.unwrap_or(*to);
        let memory = device.memory_bytes;
        if let Some(bytes) = reading.checked(raw.reserved, |b| less_than_memory(*b, memory)) {
            device.reserved_bytes = bytes;
        }
        let bandwidth = above_zero("the memory bandwidth", "\"120 GB/s\"");
        set(&mut device.bandwidth_bytes_per_s, reading.checked(raw.bandwidth, bandwidth));
        set(&mut device.bandwidth_efficiency, reading.checked(raw.bandwidth_efficiency, within(0.01, 1.0)));
        set(&mut device.flops, reading.checked(raw.flops, above_zero("the compute rate", "\"4 TFLOP/s\"")));
        set(&mut device.flops_efficiency, reading.checked(raw.flops_efficiency, within(0.01, 1.0)));
        set(&mut device.layer_overhead_us, reading.get(raw.layer_overhead));
        set(&mut device.expert_overhead_us, reading.get(raw.expert_overhead));
        set(
            &mut device.disk_bytes_per_s,
            reading.checked(raw.disk, above_zero("the disk's speed", "\"3 GB/s\"")),
        );
        if let Some(raw) = &raw.measured {
            device.measured = self.measured(raw);
        }
    }

    fn measured(&self, raw: &RawMeasured) -> Option<Measured> {
        let reading = self.reading;
        if raw.head.is_none() || raw.kv.is_none() || raw.attention.is_none() {
            let cure = "write head, kv and attention, as `meshwright profile` prints them";
            reading.fault_here(raw.here, "of what a profile measures a part is missing", cure);
        }
        let rate = |leaf| reading.checked(leaf, above_zero("the rate", "\"10 GB/s\""));
        let attention = reading.checked(raw.attention, above_zero("the rate", "\"10 GFLOP/s\""));
        Some(Measured {
            head_bytes_per_s: rate(raw.head)?,
            kv_bytes_per_s: rate(raw.kv)?,
            attention_flops: attention?,
        })
    }
}

fn less_than_memory(reserved: u64, memory: u64) -> Result<(), Wrong> {
    if reserved < memory {
        return Ok(());
    }
    Err(Wrong::new("the system would keep all of the memory", "reserve less than `memory`"))
}

/// Catalog ids are long and alike; the near ones, else those that contain the word, else a hint of what there is.
fn near_devices<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let mut near = suggest::nearest(name, known.iter().copied(), 3);
    if near.is_empty() {
        near = known.iter().copied().filter(|id| id.contains(&name.to_lowercase())).take(5).collect();
    }
    match near.as_slice() {
        [] => format!("devices are called like {}; any other is described by a table", suggest::list(&known)),
        near => format!("did you mean {}?", suggest::list(near)),
    }
}
