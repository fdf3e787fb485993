//! What is asked for, over the whole mesh: requests per model as a decaying rate.
//!
//! Every member counts what it is asked itself ([`Counter`]) and tells the others when that has changed enough
//! ([`Report`], which travels as an item of its own). A [`DemandMap`] is a pure function of the latest report of each
//! observer: sums are right because nobody counts for another, members that know the same reports know the same demand,
//! and who floods raises its own counter alone, up to its ceiling.
//!
//! Everything is bounded: models per observer, models in all, the rate one observer may claim.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Instant;

/// After so long without requests a rate is half of what it was. Shorter follows a shift sooner, longer wavers less: a
/// model asked for once a minute has a rate that is right to 40 % or so.
pub const HALF_LIFE: Duration = Duration::from_secs(120);
/// Models that one observer may report: the most wanted.
pub const MODELS_MAX: usize = 16;
/// Models a counter keeps apart at once; of these the most wanted are reported.
const COUNTED_MAX: usize = 64;
/// Models in a demand map; the least wanted are left out.
pub const MAP_MAX: usize = 256;
/// Requests per second that one observer may claim, over all its models. More is scaled down to it.
pub const CEILING_PER_S: f64 = 200.0;
/// Rates below this are none.
const LEAST_PER_S: f64 = 1e-4;
/// What differs by less than this share of all that an observer is asked does not matter, ...
const SMALL_SHARE: f64 = 0.02;
/// ... of so many requests per second at most: beside much, a model that nobody serves must be heard of all the same.
const BUSY_PER_S: f64 = 5.0;
/// Longest name of a model, bytes.
const NAME_MAX: usize = 128;

/// A rate in 16 bits: its logarithm, in steps of a part in a thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rate(u16);

const STEPS_PER_E: f64 = 1_000.0;

impl Rate {
    fn new(per_s: f64) -> Self {
        let steps = (per_s / LEAST_PER_S).max(1.0).ln() * STEPS_PER_E;
        Self(steps.round().min(f64::from(u16::MAX)) as u16)
    }

    fn per_s(self) -> f64 {
        if self.0 == 0 { 0.0 } else { LEAST_PER_S * (f64::from(self.0) / STEPS_PER_E).exp() }
    }
}

/// What one observer is asked for: at most [`MODELS_MAX`] models, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report(Vec<(String, Rate)>);

impl Report {
    /// The report, where it is one that can be.
    ///
    /// # Errors
    /// Which part cannot be.
    pub fn checked(self) -> Result<Self, &'static str> {
        let is_name =
            |name: &str| (1..=NAME_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
        let in_order = self.0.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if self.0.len() <= MODELS_MAX && in_order && self.0.iter().all(|(name, _)| is_name(name)) {
            return Ok(self);
        }
        Err("list of wanted models")
    }

    /// Models and requests per second, as they count: together at most [`CEILING_PER_S`].
    pub fn rates(&self) -> impl Iterator<Item = (&str, f64)> {
        let sum: f64 = self.0.iter().map(|(_, rate)| rate.per_s()).sum();
        let share = if sum > CEILING_PER_S { CEILING_PER_S / sum } else { 1.0 };
        self.0.iter().map(move |(name, rate)| (name.as_str(), rate.per_s() * share))
    }

    /// Whether somebody who knows `self` is wrong about `now` by more than `share` of any rate that matters.
    fn is_off(&self, now: &Report, share: f64) -> bool {
        let rates = |report: &Report| -> BTreeMap<String, f64> {
            report.0.iter().map(|(name, rate)| (name.clone(), rate.per_s())).collect()
        };
        let (told, now) = (rates(self), rates(now));
        let sum: f64 = now.values().sum::<f64>().max(told.values().sum());
        let names = told.keys().chain(now.keys());
        names.into_iter().any(|name| {
            let (was, is) = (told.get(name).copied().unwrap_or(0.0), now.get(name).copied().unwrap_or(0.0));
            let differs = (was - is).abs();
            differs > share * was.max(is) && differs > SMALL_SHARE * sum.min(BUSY_PER_S)
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Decaying {
    /// Requests, each halved once a half-life.
    count: f64,
    at: Instant,
}

impl Decaying {
    fn count(self, now: Instant) -> f64 {
        self.count * decay(now.since(self.at))
    }

    fn per_s(self, now: Instant) -> f64 {
        self.count(now) * std::f64::consts::LN_2 / HALF_LIFE.as_secs_f64()
    }
}

/// What is left of a count after `time`.
pub fn decay(time: Duration) -> f64 {
    (-time.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
}

/// What this member is asked for.
#[derive(Debug, Clone, Default)]
pub struct Counter {
    models: BTreeMap<String, Decaying>,
    told: Report,
}

impl Counter {
    /// Somebody asked for `model`, served or not. Names that no model can have are not counted.
    pub fn asked(&mut self, now: Instant, model: &str) {
        if model.is_empty() || model.len() > NAME_MAX || model.chars().any(char::is_control) {
            return;
        }
        if let Some(known) = self.models.get_mut(model) {
            *known = Decaying { count: known.count(now) + 1.0, at: now };
            return;
        }
        if self.models.len() >= COUNTED_MAX {
            self.drop_least(now);
        }
        self.models.insert(model.to_owned(), Decaying { count: 1.0, at: now });
    }

    /// Of equal ones the last by name.
    fn drop_least(&mut self, now: Instant) {
        let rank = |(_, a): &(&String, &Decaying), (_, b): &(&String, &Decaying)| {
            a.per_s(now).total_cmp(&b.per_s(now))
        };
        let least = self.models.iter().rev().min_by(rank).map(|(name, _)| name.clone());
        if let Some(name) = least {
            self.models.remove(&name);
        }
    }

    /// What others should know now.
    pub fn report(&self, now: Instant) -> Report {
        let mut rates: Vec<(&String, f64)> =
            self.models.iter().map(|(name, d)| (name, d.per_s(now))).collect();
        rates.retain(|(_, per_s)| *per_s > LEAST_PER_S * 2.0);
        rates.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        rates.truncate(MODELS_MAX);
        rates.sort_by(|a, b| a.0.cmp(b.0));
        Report(rates.into_iter().map(|(name, per_s)| (name.clone(), Rate::new(per_s))).collect())
    }

    /// The report, if what was told last is off by more than `share`; it counts as told.
    pub fn news(&mut self, now: Instant, share: f64) -> Option<Report> {
        let report = self.report(now);
        if !self.told.is_off(&report, share) {
            return None;
        }
        self.models.retain(|_, model| model.per_s(now) > LEAST_PER_S * 2.0);
        self.told = report.clone();
        Some(report)
    }

    /// Whether anything is counted, or was told that is no longer true: then time alone makes news.
    pub fn is_idle(&self) -> bool {
        self.models.is_empty() && self.told.0.is_empty()
    }
}

/// Requests per second for each model, over the mesh: the most wanted first; of equals by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DemandMap {
    /// Model, requests per second.
    pub models: Vec<(String, f64)>,
    /// Requests per second for models that have no place in the list.
    pub rest_per_s: f64,
}

impl DemandMap {
    /// The sum over observers: what each reports, times what is left of it (1 for a living one, its decay for a dead).
    pub fn of<'a>(reports: impl IntoIterator<Item = (&'a Report, f64)>) -> Self {
        let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
        for (report, left) in reports {
            for (name, per_s) in report.rates() {
                *sums.entry(name).or_default() += per_s * left;
            }
        }
        let mut models: Vec<(String, f64)> =
            sums.into_iter().map(|(name, sum)| (name.to_owned(), sum)).collect();
        models.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let rest_per_s = models.iter().skip(MAP_MAX).map(|(_, per_s)| per_s).sum();
        models.truncate(MAP_MAX);
        Self { models, rest_per_s }
    }

    /// Requests per second for `model`.
    pub fn per_s(&self, model: &str) -> f64 {
        self.models.iter().find(|(name, _)| name == model).map_or(0.0, |(_, per_s)| *per_s)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: f64) -> Instant {
        Instant((seconds * 1e9) as u64)
    }

    fn counted(per_s: f64, model: &str) -> Counter {
        let mut counter = Counter::default();
        for i in 0..(per_s * 1200.0) as u32 {
            counter.asked(at(f64::from(i) / per_s), model);
        }
        counter
    }

    #[test]
    fn sums_are_sums_and_not_the_greatest() {
        let reports = [counted(2.0, "a").report(at(1200.0)), counted(3.0, "a").report(at(1200.0))];
        let sum = DemandMap::of(reports.iter().map(|r| (r, 1.0))).per_s("a");
        assert!((sum - 5.0).abs() < 0.05, "{sum}");
    }

    #[test]
    fn a_rate_halves_once_a_half_life() {
        let counter = counted(4.0, "a");
        let then = 1200.0 + HALF_LIFE.as_secs_f64();
        let map = DemandMap::of([(&counter.report(at(then)), 1.0)]);
        assert!((map.per_s("a") - 2.0).abs() < 0.05, "{}", map.per_s("a"));
    }

    #[test]
    fn steady_demand_is_told_once_and_its_end_to_the_last() {
        let mut counter = counted(4.0, "a");
        assert!(counter.news(at(1200.0), 0.2).is_some());
        for i in 0..400 {
            counter.asked(at(1200.0 + f64::from(i) / 4.0), "a");
        }
        assert_eq!(counter.news(at(1300.0), 0.2), None);
        let mut last = 4.0;
        for minute in 0..120 {
            let now = at(1300.0 + 60.0 * f64::from(minute));
            if let Some(report) = counter.news(now, 0.2) {
                last = DemandMap::of([(&report, 1.0)]).per_s("a");
            }
        }
        assert_eq!(last, 0.0);
        assert!(counter.is_idle());
    }

    #[test]
    fn beside_much_that_is_served_what_nobody_serves_is_heard_of() {
        let mut counter = counted(100.0, "served");
        assert!(counter.news(at(1200.0), 0.2).is_some());
        for i in 0..120 {
            counter.asked(at(1200.0 + f64::from(i)), "wanted");
            (0..100).for_each(|_| counter.asked(at(1200.0 + f64::from(i)), "served"));
        }
        let report = counter.news(at(1320.0), 0.2).expect("half a request per second is news");
        assert!(DemandMap::of([(&report, 1.0)]).per_s("wanted") > 0.4);
    }

    #[test]
    fn a_flood_counts_for_its_ceiling_and_no_more() {
        let mut flood = Counter::default();
        for i in 0..1_000_000u32 {
            flood.asked(at(f64::from(i) / 1e5), "fake");
        }
        let honest = counted(3.0, "real").report(at(1200.0));
        let map = DemandMap::of([(&flood.report(at(10.0)), 1.0), (&honest, 1.0)]);
        assert!(map.per_s("fake") <= CEILING_PER_S + 1e-9, "{}", map.per_s("fake"));
        assert!((map.per_s("real") - 3.0).abs() < 0.05);
        let forged = Report(vec![("fake".into(), Rate(u16::MAX)), ("more".into(), Rate(u16::MAX))]);
        let sum: f64 = forged.rates().map(|(_, per_s)| per_s).sum();
        assert!(sum <= CEILING_PER_S + 1e-9, "{sum}");
    }

    #[test]
    fn many_names_leave_the_wanted_ones_and_little_memory() {
        let mut counter = counted(3.0, "wanted");
        for i in 0..100_000u32 {
            counter.asked(at(1200.0 + f64::from(i) * 1e-3), &format!("noise-{i}"));
            if i % 100 == 0 {
                counter.asked(at(1200.0 + f64::from(i) * 1e-3), "wanted");
            }
        }
        assert!(counter.models.len() <= COUNTED_MAX);
        let report = counter.report(at(1300.0)).checked().expect("its own report is right");
        assert!(report.rates().any(|(name, _)| name == "wanted"));
    }

    proptest! {
        /// The map is a function of the set of reports: whoever has heard the same knows the same.
        #[test]
        fn the_order_of_reports_is_nothing(
            reports in prop::collection::vec(prop::collection::btree_map("[a-f]", 1u16..60_000, 0..6), 0..8)
        ) {
            let reports: Vec<Report> = reports
                .into_iter()
                .map(|models| Report(models.into_iter().map(|(name, rate)| (name, Rate(rate))).collect()))
                .collect();
            let forward = DemandMap::of(reports.iter().map(|r| (r, 1.0)));
            let backward = DemandMap::of(reports.iter().rev().map(|r| (r, 1.0)));
            prop_assert_eq!(forward.models.len(), backward.models.len());
            for (name, per_s) in &forward.models {
                prop_assert!((per_s - backward.per_s(name)).abs() <= 1e-9 * per_s.max(1.0));
            }
        }

        #[test]
        fn bytes_are_a_report_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(report) = postcard::from_bytes::<Report>(&bytes)
                && let Ok(report) = report.checked()
            {
                let sum: f64 = report.rates().map(|(_, per_s)| per_s).sum();
                prop_assert!(sum.is_finite() && sum <= CEILING_PER_S + 1e-9);
            }
        }
    }
}
