//! The input of a product, as the kernels want it: tokens side by side in panels of 8, 4, 2 and 1, and for matrices of
//! integers in 8 bits, with a scale for each 32 columns.
//!
//! What becomes of a token depends on nothing but its own values, so that neither the batch nor the panel it falls into
//! can be seen in the result.

use std::ops::Range;

use bytemuck::Zeroable;

use super::erased::Shares;
use super::level::Level;
use super::tile::COLUMNS;
use crate::real::pool::Pool;

/// The most tokens of a panel: as many sums as a kernel can hold in registers.
const PANEL: usize = 8;

/// 32 columns of `T` tokens.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
pub(super) struct Block<const T: usize> {
    /// The nearest multiples of `scale`, from -127 to 127.
    pub(super) quants: [[i8; COLUMNS]; T],
    /// The largest magnitude over 127.
    pub(super) scale: [f32; T],
    /// Minus the sum of `quants`.
    pub(super) negated_sum: [i32; T],
    /// The sum of `quants`.
    pub(super) sum: [f32; T],
    /// Minus the sums of the first and the last 16 `quants`.
    pub(super) negated_halves: [[i32; T]; 2],
}

// SAFETY: arrays of integers and floats, of which zero bits are valid values.
unsafe impl<const T: usize> Zeroable for Block<T> {}

/// What panels of quantised activations are made of.
pub(super) type Quantised = Panels<Block<1>, Block<2>, Block<4>, Block<8>>;

/// What panels of plain activations are made of: a column of so many tokens.
pub(super) type Plain = Panels<[f32; 1], [f32; 2], [f32; 4], [f32; 8]>;

/// The tokens of each panel: eights first, then what is left, largest first.
pub(super) fn panels(tokens: usize) -> impl Iterator<Item = Range<usize>> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let left = tokens - next;
        let width = [PANEL, 4, 2, 1].into_iter().find(|width| *width <= left)?;
        next += width;
        Some(next - width..next)
    })
}

/// Tokens in panels; each panel holds `steps` records, from the first column to the last.
pub(super) struct Panels<A, B, C, D> {
    tokens: usize,
    steps: usize,
    one: Vec<A>,
    two: Vec<B>,
    four: Vec<C>,
    eights: Vec<D>,
}

impl<A, B, C, D> Default for Panels<A, B, C, D> {
    fn default() -> Self {
        Self { tokens: 0, steps: 0, one: Vec::new(), two: Vec::new(), four: Vec::new(), eights: Vec::new() }
    }
}

/// One panel's records.
#[derive(Clone, Copy)]
pub(super) enum Panel<'a, A, B, C, D> {
    One(&'a [A]),
    Two(&'a [B]),
    Four(&'a [C]),
    Eight(&'a [D]),
}

impl<A: Zeroable, B: Zeroable, C: Zeroable, D: Zeroable> Panels<A, B, C, D> {
    /// Makes room, for records that are all written before they are read.
    fn fit(&mut self, tokens: usize, steps: usize) {
        (self.tokens, self.steps) = (tokens, steps);
        let bit = |bit: usize| steps * usize::from(tokens & bit != 0);
        self.one.resize_with(bit(1), A::zeroed);
        self.two.resize_with(bit(2), B::zeroed);
        self.four.resize_with(bit(4), C::zeroed);
        // Never made shorter, so that what is there need not be written twice.
        let eights = tokens / PANEL * steps;
        if self.eights.len() < eights {
            self.eights.resize_with(eights, D::zeroed);
        }
    }

    /// Records `from..to` of a panel.
    pub(super) fn panel(&self, number: usize, from: usize, to: usize) -> Panel<'_, A, B, C, D> {
        let eights = self.tokens / PANEL;
        if number < eights {
            return Panel::Eight(&self.eights[number * self.steps..][from..to]);
        }
        match panels(self.tokens % PANEL).nth(number - eights).map_or(0, |tokens| tokens.len()) {
            4 => Panel::Four(&self.four[from..to]),
            2 => Panel::Two(&self.two[from..to]),
            _ => Panel::One(&self.one[from..to]),
        }
    }
}

impl Quantised {
    /// Quantises `x` (`tokens` rows of `columns`, a multiple of 32).
    pub(super) fn fill(&mut self, pool: &Pool, level: Level, x: &[f32], tokens: usize, columns: usize) {
        self.fit(tokens, columns / COLUMNS);
        let steps = self.steps;
        let rest = tokens / PANEL * PANEL;
        let share = Shares::new(&mut self.eights);
        pool.run(tokens / PANEL, &|panel| {
            let rows = &x[panel * PANEL * columns..][..PANEL * columns];
            share.with(panel * steps..(panel + 1) * steps, |records| quantise(level, rows, records));
        });
        let mut x = &x[rest * columns..];
        let mut next = |width: usize| {
            let (rows, left) = x.split_at(width * columns);
            x = left;
            rows
        };
        if tokens & 4 != 0 {
            quantise(level, next(4), &mut self.four);
        }
        if tokens & 2 != 0 {
            quantise(level, next(2), &mut self.two);
        }
        if tokens & 1 != 0 {
            quantise(level, next(1), &mut self.one);
        }
    }
}

impl Plain {
    /// Puts the tokens of `x` (`tokens` rows of `columns`) side by side.
    pub(super) fn fill(&mut self, pool: &Pool, x: &[f32], tokens: usize, columns: usize) {
        self.fit(tokens, columns);
        let rest = tokens / PANEL * PANEL;
        let share = Shares::new(&mut self.eights);
        pool.run(tokens / PANEL, &|panel| {
            let rows = &x[panel * PANEL * columns..][..PANEL * columns];
            share.with(panel * columns..(panel + 1) * columns, |records| interleave(rows, records));
        });
        let four = rest + (tokens & 4);
        let two = four + (tokens & 2);
        interleave(&x[rest * columns..four * columns], &mut self.four);
        interleave(&x[four * columns..two * columns], &mut self.two);
        interleave(&x[two * columns..tokens * columns], &mut self.one);
    }
}

fn interleave<const T: usize>(rows: &[f32], records: &mut [[f32; T]]) {
    let columns = records.len();
    for (column, record) in records.iter_mut().enumerate() {
        *record = std::array::from_fn(|token| rows[token * columns + column]);
    }
}

/// Quantises `T` rows, each of as many blocks as there are records.
fn quantise<const T: usize>(level: Level, rows: &[f32], records: &mut [Block<T>]) {
    match level {
        Level::Portable => quantise_rows(rows, records),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a level is only used where the machine has it.
        Level::Avx2 => unsafe { super::x86::avx2::quantise(rows, records) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx512 => unsafe { super::x86::avx512::quantise(rows, records) },
        #[cfg(not(target_arch = "x86_64"))]
        _ => quantise_rows(rows, records),
    }
}

/// The one way to quantise, which each level compiles for itself.
#[inline(always)]
pub(super) fn quantise_rows<const T: usize>(rows: &[f32], records: &mut [Block<T>]) {
    let columns = records.len() * COLUMNS;
    for token in 0..T {
        let blocks = rows[token * columns..][..columns].as_chunks::<COLUMNS>().0;
        for (values, record) in blocks.iter().zip(records.iter_mut()) {
            quantise_block(values, record, token);
        }
    }
}

#[inline(always)]
fn quantise_block<const T: usize>(values: &[f32; COLUMNS], record: &mut Block<T>, token: usize) {
    let largest = largest_magnitude(values);
    let steps = 127.0 / largest;
    // Zero, and what is too small to divide by.
    let steps = if steps.is_infinite() { 0.0 } else { steps };
    let scale = if steps == 0.0 { 0.0 } else { largest / 127.0 };
    let (mut quants, mut halves) = ([0; COLUMNS], [0; 2]);
    for (quant, value) in quants.iter_mut().zip(values) {
        *quant = nearest(value * steps);
    }
    for (half, quants) in halves.iter_mut().zip(quants.as_chunks::<16>().0) {
        *half = quants.iter().map(|&quant| i32::from(quant)).sum();
    }
    record.quants[token] = quants;
    record.scale[token] = scale;
    record.negated_sum[token] = -(halves[0] + halves[1]);
    record.sum[token] = (halves[0] + halves[1]) as f32;
    record.negated_halves[0][token] = -halves[0];
    record.negated_halves[1][token] = -halves[1];
}

/// The largest magnitude, by the order of the bits, which is the order of the values; not-a-number is above all.
#[inline(always)]
fn largest_magnitude(values: &[f32; COLUMNS]) -> f32 {
    let bits = values.iter().fold(0, |largest, value| (value.to_bits() & 0x7fff_ffff).max(largest));
    f32::from_bits(bits)
}

/// The nearest integer, ties to even, of a value within 127: what adding 1.5 * 2^23 leaves in the lowest bits.
#[inline(always)]
fn nearest(value: f32) -> i8 {
    (value + 12_582_912.0).to_bits() as i8
}
