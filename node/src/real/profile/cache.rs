//! Profiles as files in a folder, one a machine and model.

use std::path::{Path, PathBuf};

use planner::model::Model;
use planner::model::gguf::GgufFile;

use super::{Key, Profile, ProfileError};
use crate::real::whole::write_whole;

/// What the speed of a model depends on, as text: layers, widths, and how many bytes of each format.
pub(super) fn shape_text(file: &GgufFile, shape: &Model) -> String {
    let mut formats = std::collections::BTreeMap::<&str, u64>::new();
    for tensor in file.tensors.values() {
        *formats.entry(tensor.ggml_type.name()).or_default() += tensor.bytes;
    }
    let formats: Vec<String> = formats.iter().map(|(name, bytes)| format!("{name} {bytes}")).collect();
    let (layers, hidden, vocab) = (shape.layer_count(), shape.hidden, shape.vocab);
    format!("{} {layers}x{hidden}, {vocab}: {}", shape.architecture, formats.join(", "))
}

/// The profile for `key`, where one is there. What cannot be read, or was measured for something else, is none.
pub(super) fn find(folder: &Path, key: &Key) -> Option<Profile> {
    let text = std::fs::read_to_string(path(folder, key)).ok()?;
    let profile: Profile = serde_json::from_str(&text).ok()?;
    (profile.key == *key).then_some(profile)
}

/// Puts a profile where [`find`] finds it.
pub(super) fn keep(folder: &Path, profile: &Profile) -> Result<(), ProfileError> {
    let path = path(folder, &profile.key);
    let failed =
        |cause| ProfileError::Write { path: path.clone(), cause, measured: Box::new(profile.clone()) };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let text =
        serde_json::to_string_pretty(profile).expect("string keys and finite numbers always serialise");
    write_whole(&path, (text + "\n").as_bytes(), false).map_err(failed)
}

fn path(folder: &Path, key: &Key) -> PathBuf {
    let text = serde_json::to_string(key).expect("string keys and finite numbers always serialise");
    let named = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let model: String = key.model.chars().take(40).map(named).collect();
    folder.join(format!("profile-{model}-{:016x}.json", fnv1a(text.as_bytes())))
}

/// The FNV-1a hash, 64 bit. Source: RFC 9923.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
