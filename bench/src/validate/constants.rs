//! The constants that were fitted on published rows: those of the cost model, of the device catalog, and of cases whose
//! fleet says so. Those that were chosen to meet rates published elsewhere count too.

use planner::cost::constants::FITTED;
use planner::fleet::catalog;
use serde::Serialize;

use super::prediction::Prediction;

/// A constant and what it was fitted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FittedConstant {
    /// Which.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The row, or what was published elsewhere.
    pub row: String,
    /// Whether it was chosen to meet a rate published elsewhere, and not fitted on one of these rows.
    pub elsewhere: bool,
}

/// All of them. A case marked `calibrated_on` whose row no listed constant names has fitted a figure of its own fleet.
pub(super) fn fitted(predictions: &[Prediction]) -> Vec<FittedConstant> {
    let mut found: Vec<FittedConstant> = FITTED
        .iter()
        .map(|c| FittedConstant {
            name: c.name.into(),
            value: c.value.to_string(),
            row: c.row.into(),
            elsewhere: false,
        })
        .collect();
    let of_devices = catalog::fitted().into_iter();
    found.extend(of_devices.map(|f| FittedConstant {
        name: f.what,
        value: f.value,
        row: f.row,
        elsewhere: f.elsewhere,
    }));
    for prediction in predictions.iter().filter(|p| p.calibrated_on) {
        if found.iter().all(|c| c.row != prediction.id) {
            found.push(FittedConstant {
                name: format!("fleet of case {}", prediction.id),
                value: "see the file".into(),
                row: prediction.id.clone(),
                elsewhere: false,
            });
        }
    }
    found
}
