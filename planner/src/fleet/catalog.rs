//! Known devices, from data files (`planner/data/devices/*.toml`): every figure with its basis and source.
//!
//! A device belongs to a class (Metal, CUDA, a board's processor …) that holds what the *software* reaches there:
//! efficiencies, dispatch, what the system keeps. The device adds what is printed on its box. So the constants that can
//! be fitted are few, and [`fitted`] counts them.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;
use thiserror::Error;

use super::{Device, DeviceKind};
use crate::units::{self, UnitError};

/// The data, compiled in so that the planner needs no file at run time.
const FILES: [(&str, &str); 5] = [
    ("classes.toml", include_str!("../../data/devices/classes.toml")),
    ("apple.toml", include_str!("../../data/devices/apple.toml")),
    ("nvidia.toml", include_str!("../../data/devices/nvidia.toml")),
    ("amd.toml", include_str!("../../data/devices/amd.toml")),
    ("processors.toml", include_str!("../../data/devices/processors.toml")),
];

/// How many near names an error offers.
const NEAR_NAMES: usize = 5;

/// Why there is no such device.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CatalogError {
    /// No device has that id.
    #[error("no device `{id}` in the catalog; near: {near}")]
    Unknown {
        /// What was asked for.
        id: String,
        /// What it may have meant.
        near: String,
    },
}

/// How a figure came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// A vendor's specification.
    Specified,
    /// Somebody measured it.
    Measured,
    /// Nobody said; the source tells why this value.
    Assumed,
}

/// A figure with where it comes from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure<T> {
    /// The value; a quantity carries its unit.
    pub value: T,
    /// How it is known.
    pub basis: Basis,
    /// From where.
    pub source: String,
    /// The published row it was fitted on, where it was.
    pub fitted_on: Option<String>,
    /// The rate, published elsewhere, that it was chosen to meet, where it was.
    pub chosen_on: Option<String>,
}

/// What the software reaches on a family of devices.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Unique.
    pub name: String,
    /// What kind of hardware.
    pub kind: DeviceKind,
    /// Share of the bandwidth that streaming quantised weights reaches.
    pub bandwidth_efficiency: Figure<f64>,
    /// Share of the compute rate that a long prefill reaches.
    pub flops_efficiency: Figure<f64>,
    /// Dispatch of one dense layer.
    pub layer_overhead: Figure<String>,
    /// What a mixture-of-experts layer adds.
    pub expert_overhead: Figure<String>,
    /// Memory the system keeps, as a fixed amount …
    pub reserved: Option<Figure<String>>,
    /// … or as a share of the whole; one of the two.
    pub reserved_share: Option<Figure<f64>>,
    /// Sequential read from local disk.
    pub disk: Figure<String>,
}

/// One device as the data files have it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Unique, as scenarios write it: `apple-m4-max`.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Its [`Class`].
    pub class: String,
    /// Memory the device computes from.
    pub memory: Figure<String>,
    /// Memory bandwidth.
    pub bandwidth: Figure<String>,
    /// Peak rate in the type that the engine's prefill uses.
    pub flops: Figure<String>,
    /// Where it differs from the class.
    pub bandwidth_efficiency: Option<Figure<f64>>,
    /// Where it differs from the class.
    pub disk: Option<Figure<String>>,
}

/// A constant that was fitted, for the count that stands beside accuracy figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fitted {
    /// Which: `class metal: expert_overhead`.
    pub what: String,
    /// Its value as the data has it.
    pub value: String,
    /// The published row it was fitted on, or the rate published elsewhere that it was chosen to meet.
    pub row: String,
    /// Whether that is no row of the validation.
    pub elsewhere: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "class")]
    classes: Vec<Class>,
    #[serde(default, rename = "device")]
    devices: Vec<Entry>,
}

#[derive(Debug, Default)]
struct Catalog {
    classes: BTreeMap<String, Class>,
    entries: BTreeMap<String, Entry>,
    devices: BTreeMap<String, Device>,
}

/// The device with that id, with the memory it is usually sold with.
///
/// # Errors
/// [`CatalogError::Unknown`] lists near ids.
pub fn device(id: &str) -> Result<Device, CatalogError> {
    let catalog = catalog();
    let wanted = id.trim().to_ascii_lowercase();
    catalog
        .devices
        .get(&wanted)
        .cloned()
        .ok_or_else(|| CatalogError::Unknown { id: id.into(), near: near(&wanted) })
}

/// The device with that id and this much memory instead of the usual; what the system keeps follows its class.
///
/// # Errors
/// [`CatalogError::Unknown`] lists near ids.
pub fn device_with_memory(id: &str, memory_bytes: u64) -> Result<Device, CatalogError> {
    let found = device(id)?;
    let catalog = catalog();
    let class = &catalog.classes[&catalog.entries[&found.id].class];
    let reserved_bytes = class.reserved_bytes(memory_bytes).expect("the data was checked when it was read");
    Ok(Device { memory_bytes, reserved_bytes, ..found })
}

/// Every device, by id.
pub fn devices() -> Vec<Device> {
    catalog().devices.values().cloned().collect()
}

/// Every device as the data has it, with bases and sources, by id.
pub fn entries() -> Vec<Entry> {
    catalog().entries.values().cloned().collect()
}

/// Every class, by name.
pub fn classes() -> Vec<Class> {
    catalog().classes.values().cloned().collect()
}

/// The figures of devices and classes that were fitted on published rows, or chosen to meet what was published elsewhere.
pub fn fitted() -> Vec<Fitted> {
    let mut found = Vec::new();
    for class in catalog().classes.values() {
        let owner = format!("class {}", class.name);
        note(&mut found, &owner, "bandwidth_efficiency", Some(&class.bandwidth_efficiency));
        note(&mut found, &owner, "flops_efficiency", Some(&class.flops_efficiency));
        note(&mut found, &owner, "layer_overhead", Some(&class.layer_overhead));
        note(&mut found, &owner, "expert_overhead", Some(&class.expert_overhead));
        note(&mut found, &owner, "disk", Some(&class.disk));
    }
    for entry in catalog().entries.values() {
        let owner = format!("device {}", entry.id);
        note(&mut found, &owner, "bandwidth", Some(&entry.bandwidth));
        note(&mut found, &owner, "bandwidth_efficiency", entry.bandwidth_efficiency.as_ref());
        note(&mut found, &owner, "disk", entry.disk.as_ref());
    }
    found
}

fn note<T: std::fmt::Display>(found: &mut Vec<Fitted>, owner: &str, what: &str, figure: Option<&Figure<T>>) {
    let Some(figure) = figure else { return };
    if let Some(row) = figure.fitted_on.as_ref().or(figure.chosen_on.as_ref()) {
        found.push(Fitted {
            what: format!("{owner}: {what}"),
            value: figure.value.to_string(),
            row: row.clone(),
            elsewhere: figure.fitted_on.is_none(),
        });
    }
}

fn near(wanted: &str) -> String {
    crate::near::names(wanted, catalog().devices.keys().map(String::as_str), NEAR_NAMES)
}

fn catalog() -> &'static Catalog {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    CATALOG.get_or_init(|| read().unwrap_or_else(|broken| panic!("built-in device catalog: {broken}")))
}

/// Reads and checks the built-in files. Only an edit of the data can make it fail, and the unit tests call it.
fn read() -> Result<Catalog, String> {
    let mut catalog = Catalog::default();
    for (name, text) in FILES {
        let file: File = toml::from_str(text).map_err(|e| format!("{name}: {e}"))?;
        catalog.classes.extend(file.classes.into_iter().map(|c| (c.name.clone(), c)));
        for entry in file.devices {
            let id = entry.id.clone();
            if catalog.entries.insert(id.clone(), entry).is_some() {
                return Err(format!("{name}: `{id}` stands there twice"));
            }
        }
    }
    for (id, entry) in &catalog.entries {
        let class = catalog.classes.get(&entry.class).ok_or(format!("`{id}`: no class `{}`", entry.class))?;
        let device = entry.resolve(class).map_err(|e| format!("`{id}`: {e}"))?;
        catalog.devices.insert(id.clone(), device);
    }
    Ok(catalog)
}

impl Class {
    fn reserved_bytes(&self, memory_bytes: u64) -> Result<u64, UnitError> {
        let fixed = match &self.reserved {
            Some(figure) => units::bytes(&figure.value)?,
            None => 0,
        };
        let share = self.reserved_share.as_ref().map_or(0.0, |figure| figure.value);
        Ok(fixed + (memory_bytes as f64 * share) as u64)
    }
}

impl Entry {
    fn resolve(&self, class: &Class) -> Result<Device, UnitError> {
        let memory_bytes = units::bytes(&self.memory.value)?;
        let efficiency = self.bandwidth_efficiency.as_ref().unwrap_or(&class.bandwidth_efficiency);
        Ok(Device {
            id: self.id.clone(),
            name: self.name.clone(),
            kind: class.kind,
            memory_bytes,
            reserved_bytes: class.reserved_bytes(memory_bytes)?,
            bandwidth_bytes_per_s: units::bandwidth(&self.bandwidth.value)?,
            bandwidth_efficiency: efficiency.value,
            flops: units::flops(&self.flops.value)?,
            flops_efficiency: class.flops_efficiency.value,
            layer_overhead_us: units::duration_us(&class.layer_overhead.value)?,
            expert_overhead_us: units::duration_us(&class.expert_overhead.value)?,
            disk_bytes_per_s: units::bandwidth(&self.disk.as_ref().unwrap_or(&class.disk).value)?,
            measured: None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed lookup is the failed test")]

    use super::*;

    #[test]
    fn the_built_in_files_are_well_formed() {
        let catalog = read().unwrap();
        assert!(catalog.devices.len() > 70);
        for device in catalog.devices.values() {
            assert!(device.usable_bytes() > 0, "{}", device.id);
            assert!(device.bandwidth_bytes_per_s > 1e9, "{}", device.id);
            assert!(device.disk_bytes_per_s > 1e7, "{}", device.id);
            assert!(device.bandwidth_efficiency > 0.0 && device.bandwidth_efficiency <= 1.0, "{}", device.id);
            assert!(device.flops > 1e10, "{}", device.id);
        }
    }

    #[test]
    fn every_class_says_once_what_the_system_keeps() {
        for class in classes() {
            assert!(class.reserved.is_some() != class.reserved_share.is_some(), "{}", class.name);
        }
    }

    #[test]
    fn every_figure_names_a_source() {
        for entry in entries() {
            for source in [&entry.memory.source, &entry.bandwidth.source, &entry.flops.source] {
                assert!(!source.is_empty(), "{}", entry.id);
            }
        }
    }

    #[test]
    fn an_m4_max_has_what_its_data_sheet_says() {
        let device = device("Apple-M4-Max").unwrap();
        assert_eq!(device.bandwidth_bytes_per_s, 546e9);
        assert_eq!(device.memory_bytes, 64 << 30);
        assert_eq!(device.usable_bytes(), 48 << 30);
        assert_eq!(device.kind, DeviceKind::Apple);
    }

    #[test]
    fn another_memory_size_changes_what_the_system_keeps() {
        let device = device_with_memory("apple-m4-max", 128 << 30).unwrap();
        assert_eq!(device.reserved_bytes, 32 << 30);
        assert_eq!(device.bandwidth_bytes_per_s, 546e9);
    }

    #[test]
    fn an_unknown_device_is_told_what_is_near() {
        let text = device("rtx4090").unwrap_err().to_string();
        assert!(text.contains("no device `rtx4090`") && text.contains("rtx-4090"), "{text}");
        let text = device("m4-pro").unwrap_err().to_string();
        assert!(text.contains("near: apple-m4-pro,"), "{text}");
        assert!(device(&"x".repeat(100_000)).is_err());
    }

    #[test]
    fn fitted_figures_name_their_row() {
        let is_row = |r: &str| r.strip_prefix('r').is_some_and(|n| n.parse::<u32>().is_ok());
        let (elsewhere, here): (Vec<Fitted>, Vec<Fitted>) = fitted().into_iter().partition(|f| f.elsewhere);
        assert!(!here.is_empty() && !elsewhere.is_empty());
        assert!(here.iter().all(|f| is_row(&f.row)), "{here:?}");
        assert!(elsewhere.iter().all(|f| !is_row(&f.row)), "{elsewhere:?}");
    }
}
