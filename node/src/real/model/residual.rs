//! The residual stream between layers: how it is rounded, and how it travels from stage to stage.
//!
//! With a type of 16 bits the stream is rounded after every layer but the model's last, on one machine too, so what
//! travels is what would have stayed and no cut changes a bit of any logit. `docs/engine.md` has what each type costs in
//! bytes and quality.

use std::fmt;

use bytes::Bytes;
use half::{bf16, f16};

use crate::engine::EngineError;
use crate::real::kernels::Level;
use crate::real::kernels::rounding::{ROW_EXPONENTS, round_to_brains, round_to_halves, row_exponent};

/// Numbers of [`Residual::Q8`] that share a scale.
const BLOCK: usize = 32;

/// What the residual stream's numbers are. All stages of a route must agree: tensors of another type are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Residual {
    /// As computed, 4 bytes a number.
    F32,
    /// The upper half of an f32: its range, and 8 bits of precision; 2 bytes a number.
    Bf16,
    /// f16 times a power of two that each token has of its own: 11 bits of precision, and f32's range, which the streams
    /// of large Gemmas need; 2 bytes a number and one a token.
    #[default]
    F16,
    /// 8 bits, with a scale for 32 numbers: 34 bytes for 32. Rounded where the stream travels and nowhere else, so that
    /// answers depend on the cut, a little.
    Q8,
}

impl Residual {
    /// All types.
    pub const ALL: [Self; 4] = [Self::F32, Self::Bf16, Self::F16, Self::Q8];

    /// The first byte of a tensor that travels.
    fn tag(self) -> u8 {
        match self {
            Self::F32 => 0,
            Self::Bf16 => 1,
            Self::F16 => 2,
            Self::Q8 => 3,
        }
    }

    /// Bytes of a token's row of `width` numbers where it travels.
    pub fn row_bytes(self, width: usize) -> usize {
        match self {
            Self::F32 => 4 * width,
            Self::Bf16 => 2 * width,
            Self::F16 => 1 + 2 * width,
            Self::Q8 => 2 * width.div_ceil(BLOCK) + width,
        }
    }

    /// Whether the stream stays as computed until it travels.
    pub(in crate::real) fn is_exact(self) -> bool {
        matches!(self, Self::F32 | Self::Q8)
    }

    /// Rounds rows of `width` numbers after a layer.
    pub(in crate::real) fn round(self, level: Level, values: &mut [f32], width: usize) {
        match self {
            Self::F32 | Self::Q8 => {}
            Self::Bf16 => round_to_brains(level, values),
            Self::F16 => round_to_halves(level, values, width),
        }
    }

    /// Rows of `width` numbers as they travel: a byte that names the type, then each token's row. Numbers that
    /// [`Residual::round`] made come back as they are.
    pub fn encode(self, values: &[f32], width: usize) -> Bytes {
        let rows = values.chunks_exact(width);
        let mut bytes = Vec::with_capacity(1 + rows.len() * self.row_bytes(width));
        bytes.push(self.tag());
        for row in rows {
            match self {
                Self::F32 => bytes.extend(row.iter().flat_map(|value| value.to_le_bytes())),
                Self::Bf16 => bytes.extend(row.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes())),
                Self::F16 => {
                    let exponent = row_exponent(Level::best(), row);
                    let scale = 1.0 / unit(exponent);
                    bytes.push(exponent);
                    bytes.extend(row.iter().flat_map(|value| f16::from_f32(*value * scale).to_le_bytes()));
                }
                Self::Q8 => row.chunks(BLOCK).for_each(|block| push_block(&mut bytes, block)),
            }
        }
        bytes.into()
    }

    /// The numbers of `rows` rows of `width` that [`Residual::encode`] wrote.
    ///
    /// # Errors
    /// [`EngineError::Unsound`]: they are of another type, are more or fewer, or were written by something else.
    pub fn decode(self, bytes: &[u8], rows: usize, width: usize) -> Result<Vec<f32>, EngineError> {
        let Some((tag, body)) = bytes.split_first() else {
            return unsound(format!("an empty tensor came to a stage whose residual stream is {self}"));
        };
        if *tag != self.tag() {
            let sent = Self::ALL.into_iter().find(|kind| kind.tag() == *tag);
            let sent = sent.map_or_else(|| format!("of no known type ({tag})"), |kind| kind.to_string());
            return unsound(format!(
                "a residual stream that is {sent} came to a stage whose is {self}: all nodes of a mesh need the same type"
            ));
        }
        if Some(body.len()) != rows.checked_mul(self.row_bytes(width)) {
            let found = body.len();
            return unsound(format!("{found} bytes for {rows} rows of {width} numbers that are {self}"));
        }
        let mut values = Vec::with_capacity(rows * width);
        for row in body.chunks_exact(self.row_bytes(width)) {
            self.decode_row(row, &mut values)?;
        }
        Ok(values)
    }

    fn decode_row(self, row: &[u8], values: &mut Vec<f32>) -> Result<(), EngineError> {
        let halves = |bytes: &[u8; 2]| f16::from_le_bytes(*bytes).to_f32();
        match self {
            Self::F32 => values.extend(row.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))),
            Self::Bf16 => {
                values.extend(row.as_chunks().0.iter().map(|bytes| bf16::from_le_bytes(*bytes).to_f32()));
            }
            Self::F16 => {
                let (exponent, row) = row.split_at(1);
                let exponent = exponent[0];
                if !ROW_EXPONENTS.contains(&exponent) {
                    return unsound(format!("a row of the residual stream with the exponent {exponent}"));
                }
                let unit = unit(exponent);
                values.extend(row.as_chunks().0.iter().map(|bytes| halves(bytes) * unit));
            }
            Self::Q8 => {
                for block in row.chunks(2 + BLOCK) {
                    let (scale, quants) = block.split_at(2);
                    let scale = bf16::from_le_bytes([scale[0], scale[1]]).to_f32();
                    values.extend(quants.iter().map(|quant| f32::from(*quant as i8) * scale));
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Residual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Q8 => "q8",
        })
    }
}

fn unsound<T>(why: String) -> Result<T, EngineError> {
    Err(EngineError::Unsound(why))
}

/// What 1 of f16 stands for in a row of this exponent: the row's largest power of two is 2^14 of f16.
fn unit(exponent: u8) -> f32 {
    f32::from_bits((u32::from(exponent) - 14) << 23)
}

/// A scale in bf16, which has f32's range, and the nearest multiples of it; not-a-number where one of the numbers is not
/// finite.
fn push_block(bytes: &mut Vec<u8>, block: &[f32]) {
    let largest =
        block.iter().fold(0f32, |largest, value| if largest >= value.abs() { largest } else { value.abs() });
    // Rounded up, so that no multiple is above 127.
    let rounded_up = ((largest / 127.0).to_bits() + 0xffff) >> 16;
    let scale = if block.iter().all(|value| value.is_finite()) {
        bf16::from_bits(rounded_up as u16)
    } else {
        bf16::NAN
    };
    let steps = 1.0 / scale.to_f32();
    // Zero, and what is too small to divide by.
    let steps = if steps.is_finite() { steps } else { 0.0 };
    bytes.extend(scale.to_le_bytes());
    bytes.extend(block.iter().map(|value| (value * steps).round_ties_even() as i8 as u8));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use proptest::prelude::*;

    use super::*;

    fn travelled(kind: Residual, values: &[f32], width: usize) -> Vec<f32> {
        let rows = values.len() / width;
        let bytes = kind.encode(values, width);
        assert_eq!(bytes.len(), 1 + rows * kind.row_bytes(width));
        kind.decode(&bytes, rows, width).unwrap()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    proptest! {
        #[test]
        fn what_was_rounded_travels_as_it_is(
            width in 1usize..80,
            powers in prop::collection::vec(-160i32..160, 1..4),
            seed in prop::collection::vec((-1f32..1.0, -40i32..1), 80),
            odd in prop_oneof![3 => Just(0.5f32), 1 => Just(f32::NAN), 1 => Just(f32::INFINITY), 1 => any::<u32>().prop_map(f32::from_bits)],
        ) {
            let row = |power: &i32| {
                let row = seed[..width].iter().map(|(value, less)| value * 2f32.powi(power + less));
                row.collect::<Vec<_>>()
            };
            let mut values: Vec<f32> = powers.iter().flat_map(row).collect();
            values[0] = odd;
            for kind in [Residual::F32, Residual::Bf16, Residual::F16] {
                let mut rounded = values.clone();
                kind.round(Level::best(), &mut rounded, width);
                prop_assert_eq!(bits(&travelled(kind, &rounded, width)), bits(&rounded), "{}", kind);
            }
        }

        #[test]
        fn blocks_of_8_bits_come_back_within_half_a_step(
            values in prop::collection::vec(-1f32..1.0, 1..100), power in -100i32..100,
        ) {
            let values: Vec<f32> = values.iter().map(|value| value * 2f32.powi(power)).collect();
            let back = travelled(Residual::Q8, &values, values.len());
            for (back, values) in back.chunks(BLOCK).zip(values.chunks(BLOCK)) {
                let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
                for (back, value) in back.iter().zip(values) {
                    // A scale is up to 1/128 larger than it need be.
                    prop_assert!((back - value).abs() <= 0.504 / 127.0 * largest, "{} for {}", back, value);
                }
            }
        }

        #[test]
        fn whatever_comes_in_is_numbers_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..200), rows in 0usize..4, width in 1usize..40,
        ) {
            for kind in Residual::ALL {
                if let Ok(values) = kind.decode(&bytes, rows, width) {
                    prop_assert_eq!(values.len(), rows * width);
                }
            }
        }
    }

    #[test]
    fn blocks_that_are_not_finite_say_so() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0x7fff_ffff)] {
            let back = travelled(Residual::Q8, &[1.0, odd, 2.0], 3);
            assert!(back.iter().all(|value| value.is_nan()), "{odd}: {back:?}");
        }
        assert_eq!(travelled(Residual::Q8, &[0.0; 40], 40), [0.0; 40]);
    }

    #[test]
    fn another_type_is_refused_with_both_names() {
        for sent in Residual::ALL {
            for wanted in Residual::ALL.into_iter().filter(|wanted| *wanted != sent) {
                let why = wanted.decode(&sent.encode(&[1.0; 64], 32), 2, 32).unwrap_err().to_string();
                assert!(why.contains(&format!("that is {sent} came")), "{why}");
                assert!(why.contains(&format!("whose is {wanted}:")), "{why}");
            }
        }
        let why = Residual::F16.decode(&[9, 1, 2], 1, 1).unwrap_err().to_string();
        assert!(why.contains("of no known type (9)"), "{why}");
    }

    #[test]
    fn wrong_lengths_and_exponents_are_refused() {
        let bytes = Residual::F16.encode(&[1.0; 64], 32);
        for (rows, width) in [(1, 32), (3, 32), (2, 31), (usize::MAX, 32)] {
            let why = Residual::F16.decode(&bytes, rows, width).unwrap_err().to_string();
            assert!(
                why.contains(&format!("130 bytes for {rows} rows of {width} numbers that are f16")),
                "{why}"
            );
        }
        let mut bytes = bytes.to_vec();
        bytes[1] = 3;
        assert!(Residual::F16.decode(&bytes, 2, 32).unwrap_err().to_string().contains("exponent 3"));
        assert!(Residual::Bf16.decode(&[], 0, 32).unwrap_err().to_string().contains("empty"));
    }
}
