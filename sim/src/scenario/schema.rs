//! The format as a JSON Schema, for editors: generated from the same structs that read it.

use super::raw::RawScenario;

/// The schema, draft 2020-12.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(RawScenario).into()
}
