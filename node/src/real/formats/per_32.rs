//! Blocks of 32 weights with one scale `d`, and for the `_1` formats one minimum `m`: a weight is `d * q` with `q` around
//! zero, or `d * q + m`.
//!
//! Nibbles: byte `j` holds weight `j` in its low and weight `j + 16` in its high half. The fifth bits of Q5_0 and Q5_1
//! are a little-endian `u32`, bit `i` for weight `i`.

use super::{f16_at, inverse, largest, put_f16};

type Weights = [f32; 32];

/// Q4_0: `d`, nibbles; `q` is the nibble less 8.
pub(super) fn from_q4_0(block: &[u8; 18], out: &mut Weights) {
    let d = f16_at(block, 0);
    each_nibble(&block[2..], |i, nibble| out[i] = (i32::from(nibble) - 8) as f32 * d);
}

/// Q4_1: `d`, `m`, nibbles.
pub(super) fn from_q4_1(block: &[u8; 20], out: &mut Weights) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    each_nibble(&block[4..], |i, nibble| out[i] = f32::from(nibble) * d + m);
}

/// Q5_0: `d`, fifth bits, nibbles; `q` is the five bits less 16.
pub(super) fn from_q5_0(block: &[u8; 22], out: &mut Weights) {
    let d = f16_at(block, 0);
    each_five_bits(&block[2..], |i, five| out[i] = (i32::from(five) - 16) as f32 * d);
}

/// Q5_1: `d`, `m`, fifth bits, nibbles.
pub(super) fn from_q5_1(block: &[u8; 24], out: &mut Weights) {
    let (d, m) = (f16_at(block, 0), f16_at(block, 2));
    each_five_bits(&block[4..], |i, five| out[i] = f32::from(five) * d + m);
}

/// Q8_0: `d`, then 32 signed bytes.
pub(super) fn from_q8_0(block: &[u8; 34], out: &mut Weights) {
    let d = f16_at(block, 0);
    for (weight, &q) in out.iter_mut().zip(&block[2..]) {
        *weight = f32::from(q as i8) * d;
    }
}

pub(super) fn to_q4_0(weights: &Weights) -> [u8; 18] {
    let mut block = [0; 18];
    let d = largest(weights) / -8.0;
    put_f16(&mut block, 0, d);
    let id = inverse(d);
    put_nibbles(&mut block[2..], |i| ((weights[i] * id + 8.5) as u8).min(15));
    block
}

pub(super) fn to_q4_1(weights: &Weights) -> [u8; 20] {
    let mut block = [0; 20];
    let (d, m) = range(weights, 15.0);
    put_f16(&mut block, 0, d);
    put_f16(&mut block, 2, m);
    let id = inverse(d);
    put_nibbles(&mut block[4..], |i| (((weights[i] - m) * id + 0.5) as u8).min(15));
    block
}

pub(super) fn to_q5_0(weights: &Weights) -> [u8; 22] {
    let mut block = [0; 22];
    let d = largest(weights) / -16.0;
    put_f16(&mut block, 0, d);
    let id = inverse(d);
    put_five_bits(&mut block[2..], |i| ((weights[i] * id + 16.5) as u8).min(31));
    block
}

pub(super) fn to_q5_1(weights: &Weights) -> [u8; 24] {
    let mut block = [0; 24];
    let (d, m) = range(weights, 31.0);
    put_f16(&mut block, 0, d);
    put_f16(&mut block, 2, m);
    let id = inverse(d);
    put_five_bits(&mut block[4..], |i| (((weights[i] - m) * id + 0.5) as u8).min(31));
    block
}

pub(super) fn to_q8_0(weights: &Weights) -> [u8; 34] {
    let mut block = [0; 34];
    let d = largest(weights).abs() / 127.0;
    put_f16(&mut block, 0, d);
    let id = inverse(d);
    for (q, &weight) in block[2..].iter_mut().zip(weights) {
        *q = (weight * id).round() as i8 as u8;
    }
    block
}

/// Scale and minimum that spread `steps` steps over all weights.
fn range(weights: &Weights, steps: f32) -> (f32, f32) {
    let min = weights.iter().fold(f32::MAX, |min, &w| if w < min { w } else { min });
    let max = weights.iter().fold(-f32::MAX, |max, &w| if w > max { w } else { max });
    ((max - min) / steps, min)
}

/// Calls `weight(i, nibble)` for the 32 weights in 16 bytes.
fn each_nibble(nibbles: &[u8], mut weight: impl FnMut(usize, u8)) {
    for (j, byte) in nibbles.iter().enumerate() {
        weight(j, byte & 15);
        weight(j + 16, byte >> 4);
    }
}

/// The same for four bytes of fifth bits and 16 of nibbles.
fn each_five_bits(bytes: &[u8], mut weight: impl FnMut(usize, u8)) {
    let (fifth, nibbles) = bytes.split_at(4);
    each_nibble(nibbles, |i, nibble| weight(i, nibble | (fifth[i / 8] >> (i % 8) & 1) << 4));
}

fn put_nibbles(nibbles: &mut [u8], q: impl Fn(usize) -> u8) {
    for (j, byte) in nibbles.iter_mut().enumerate() {
        *byte = q(j) & 15 | q(j + 16) << 4;
    }
}

fn put_five_bits(bytes: &mut [u8], q: impl Fn(usize) -> u8) {
    let (fifth, nibbles) = bytes.split_at_mut(4);
    for i in 0..32 {
        fifth[i / 8] |= (q(i) >> 4) << (i % 8);
    }
    put_nibbles(nibbles, q);
}
