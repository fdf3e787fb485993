//! Round trips between any two members without measuring each: network coordinates in the manner of Vivaldi (Dabek, Cox,
//! Kaashoek, Morris 2004), with the height that models a member's own access link.
//!
//! Every answered probe moves this member's point a little, away from or towards the one who answered, by how wrong the
//! distance was and by how sure both are. The distance of two points is the round trip.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How much a sample may move the point, and how much it moves the error: `cc` and `ce` of the paper.
const STEP: f64 = 0.25;
/// The least height, microseconds: nobody is on the plane itself.
const HEIGHT_LEAST_US: f64 = 50.0;
/// Error of a member that has measured nothing yet, relative.
const ERROR_MOST: f64 = 1.5;
/// The least error: two that are quite sure would otherwise stop learning.
const ERROR_LEAST: f64 = 0.02;
/// Longer ones are pauses or lies, not properties of the way.
const SAMPLE_MOST: Duration = Duration::from_secs(10);
/// What a step of the written form is, microseconds.
const UNIT_US: f64 = 50.0;

/// A point, in microseconds of round trip.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Coordinate {
    /// On three axes, in steps of 50 us.
    at: [i16; 3],
    /// Above them, in the same steps.
    height: u16,
    /// How wrong its distances are, relative, in hundredths.
    error: u8,
}

impl Default for Coordinate {
    fn default() -> Self {
        Point::default().written()
    }
}

impl Coordinate {
    /// Bytes in a packet.
    pub(super) const BYTES: usize = 9;

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (place, axis) in bytes.chunks_exact_mut(2).zip(self.at) {
            place.copy_from_slice(&axis.to_be_bytes());
        }
        bytes[6..8].copy_from_slice(&self.height.to_be_bytes());
        bytes[8] = self.error;
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, error] = bytes;
        let at = [i16::from_be_bytes([a, b]), i16::from_be_bytes([c, d]), i16::from_be_bytes([e, f])];
        Self { at, height: u16::from_be_bytes([g, h]), error }
    }

    /// The round trip between two points, microseconds.
    pub fn round_trip_us(self, other: Self) -> f64 {
        Point::read(self).distance_us(Point::read(other))
    }

    /// How wrong its distances are, relative: 1.5 where nothing is known.
    pub fn error(self) -> f64 {
        f64::from(self.error) / 100.0
    }
}

/// A point while it is being found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    at: [f64; 3],
    height: f64,
    error: f64,
}

impl Default for Point {
    fn default() -> Self {
        Self { at: [0.0; 3], height: HEIGHT_LEAST_US, error: ERROR_MOST }
    }
}

impl Point {
    pub(super) fn read(written: Coordinate) -> Self {
        Self {
            at: written.at.map(|axis| f64::from(axis) * UNIT_US),
            height: (f64::from(written.height) * UNIT_US).max(HEIGHT_LEAST_US),
            error: written.error().clamp(ERROR_LEAST, ERROR_MOST),
        }
    }

    pub(super) fn written(self) -> Coordinate {
        Coordinate {
            at: self.at.map(|axis| (axis / UNIT_US).round() as i16),
            height: (self.height / UNIT_US).round() as u16,
            error: (self.error * 100.0).round() as u8,
        }
    }

    pub(super) fn distance_us(self, other: Self) -> f64 {
        self.apart(other).1 + self.height + other.height
    }

    fn apart(self, other: Self) -> ([f64; 3], f64) {
        let mut apart = [0.0; 3];
        for (i, way) in apart.iter_mut().enumerate() {
            *way = self.at[i] - other.at[i];
        }
        (apart, apart.iter().map(|way| way * way).sum::<f64>().sqrt())
    }

    /// Moves by one sample: a round trip to `other`. `draw` in 0..1 gives the direction where the points coincide.
    pub(super) fn learn(&mut self, other: Self, round_trip: Duration, mut draw: impl FnMut() -> f64) {
        let sample = round_trip.as_secs_f64() * 1e6;
        if round_trip > SAMPLE_MOST || sample <= 0.0 {
            return;
        }
        let distance = self.distance_us(other);
        let weight = self.error / (self.error + other.error);
        let off = (distance - sample).abs() / sample;
        self.error =
            (off * STEP * weight + self.error * (1.0 - STEP * weight)).clamp(ERROR_LEAST, ERROR_MOST);
        let force = STEP * weight * (sample - distance);
        let (mut apart, mut length) = self.apart(other);
        if length < UNIT_US {
            apart = [draw() - 0.5, draw() - 0.5, draw() - 0.5];
            length = apart.iter().map(|way| way * way).sum::<f64>().sqrt().max(1e-3);
        }
        let most = f64::from(i16::MAX) * UNIT_US;
        for (axis, way) in self.at.iter_mut().zip(apart) {
            *axis = (*axis + force * way / length).clamp(-most, most);
        }
        let whole = (distance).max(UNIT_US);
        let up = force * (self.height + other.height) / whole;
        self.height = (self.height + up).clamp(HEIGHT_LEAST_US, most);
    }

    /// How far it is from where it was, relative to the distances it is used for: its own height and position.
    pub(super) fn moved_us(self, from: Coordinate) -> f64 {
        let from = Self::read(from);
        self.apart(from).1 + (self.height - from.height).abs()
    }

    pub(super) fn error(self) -> f64 {
        self.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members on a plane with access links of their own find their distances from a few dozen samples each.
    #[test]
    fn points_find_distances_they_never_measured() {
        let places: Vec<(f64, f64, f64)> = (0..24u32)
            .map(|i| (f64::from(i * 37 % 60), f64::from(i * 53 % 40), f64::from(i % 5) * 2.0))
            .collect();
        let truth = |a: usize, b: usize| {
            let ((x, y, h), (u, v, w)) = (places[a], places[b]);
            ((x - u).hypot(y - v) + h + w + 1.0) * 1e3
        };
        let mut points = vec![Point::default(); places.len()];
        let mut state = 7u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / (1u64 << 31) as f64
        };
        for _ in 0..60 {
            for a in 0..points.len() {
                let b = (draw() * points.len() as f64) as usize % points.len();
                if a != b {
                    let other = points[b];
                    points[a].learn(other, Duration::from_micros(truth(a, b) as u64), &mut draw);
                }
            }
        }
        let mut errors = Vec::new();
        for a in 0..points.len() {
            for b in 0..a {
                let found = points[a].written().round_trip_us(points[b].written());
                errors.push((found - truth(a, b)).abs() / truth(a, b));
            }
        }
        errors.sort_by(f64::total_cmp);
        let median = errors[errors.len() / 2];
        assert!(median < 0.1, "median relative error {median}");
    }

    #[test]
    fn absurd_samples_and_points_leave_finite_points() {
        let mut point = Point::default();
        let wild = Point::read(Coordinate { at: [i16::MIN; 3], height: u16::MAX, error: u8::MAX });
        for round_trip in [Duration::ZERO, Duration::from_nanos(1), SAMPLE_MOST, Duration::MAX] {
            for _ in 0..100 {
                point.learn(wild, round_trip, || 0.5);
            }
        }
        let distance = point.distance_us(wild);
        assert!(distance.is_finite() && distance >= 0.0, "{distance}");
        assert_eq!(Coordinate::from_bytes(point.written().to_bytes()), point.written());
    }
}
