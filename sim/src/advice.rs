//! Everything the planner has to say beside its plan.

use planner::place::{Placement, Refusal, would_help_most, would_help_plan};

use crate::report::{Advice, Help};
use crate::scenario::Scenario;

/// Who is left out and why, and what would help: the plan that the scenario cuts by hand, or else the recommended one.
pub fn advise(scenario: &Scenario, placement: &Result<Placement, Refusal>) -> Advice {
    let (fleet, model, ask) = (&scenario.fleet, &scenario.model, &scenario.plan.ask);
    let suggestions = match (crate::run::given(scenario), placement) {
        (Some(plan), placement) => would_help_plan(fleet, model, ask, &plan, placement.as_ref().ok()),
        (None, Ok(placement)) => would_help_most(fleet, model, ask, placement),
        (None, Err(_)) => Vec::new(),
    };
    let help = suggestions.into_iter().map(|s| Help { text: s.text, gain: s.gain }).collect();
    Advice::new(fleet, placement, help)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step is the failed test")]

    use std::path::Path;

    use planner::place::place;

    use super::*;
    use crate::scenario::load_text;

    fn scenario() -> Scenario {
        let text = "model = { layers = 32, hidden = 4096, ffn = 11008, size = \"20 GB\" }\n\
            [network.home]\nclass = \"wifi\"\nrtt = \"30 ms\"\n\
            [node]\na = { device = \"apple-m4\" }\nb = { device = \"apple-m4\" }\n";
        load_text(Path::new("pair.toml"), text, &[], None).unwrap()
    }

    #[test]
    fn a_pipeline_over_wifi_is_told_to_take_a_cable() {
        let scenario = scenario();
        let placement = place(&scenario.fleet, &scenario.model, &scenario.plan.ask);
        let advice = advise(&scenario, &placement);
        let cable = advice.help.iter().find(|h| h.text.contains("cable")).unwrap();
        // Two one-way trips of about 15 ms of a token that takes some 200 ms.
        assert!((0.05..1.0).contains(&cable.gain), "{cable:?}");
        assert!(advice.help.windows(2).all(|w| w[0].gain >= w[1].gain));
    }

    #[test]
    fn a_cut_by_hand_is_told_of_a_better_plan_a_better_cut_and_a_cable() {
        let text = "model = { layers = 32, hidden = 4096, ffn = 11008, size = \"8 GB\" }\n\
            [network.home]\nclass = \"wifi\"\nrtt = \"30 ms\"\n\
            [node]\na = { device = \"apple-m4-max\" }\nb = { device = \"apple-m1\" }\n\
            [plan]\nsplit = { a = 16, b = 16 }\n";
        let scenario = load_text(Path::new("pair.toml"), text, &[], None).unwrap();
        let placement = place(&scenario.fleet, &scenario.model, &scenario.plan.ask);
        let help = advise(&scenario, &placement).help;
        for wanted in
            ["the recommended plan: solo on `a`", "otherwise: `", "a cable instead of Wi-Fi in `home`"]
        {
            assert!(help.iter().any(|h| h.text.contains(wanted)), "{wanted} is not in {help:?}");
        }
        assert!(help[0].text.starts_with("the recommended plan") && help[0].gain > 1.0, "{help:?}");
    }

    #[test]
    fn a_model_that_fits_nowhere_gets_the_refusal_and_no_suggestions() {
        let mut scenario = scenario();
        scenario.fleet.nodes.truncate(1);
        let placement = place(&scenario.fleet, &scenario.model, &scenario.plan.ask);
        let advice = advise(&scenario, &placement);
        assert!(advice.refusal.is_some() && advice.help.is_empty());
    }
}
