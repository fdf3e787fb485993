//! The element formats of GGUF tensors: [`dequantise`] to f32 and [`quantise`] from it, portable and exact.
//!
//! Both follow ggml's reference code to the last bit (`ggml/src/ggml-quants.c` of llama.cpp, `dequantize_row_*` and
//! `quantize_row_*_ref`, without importance matrix), which the golden vectors beside these files hold them to: so a file
//! requantised here is the file that `llama-quantize --pure` writes. The fast kernels have their own layouts and are
//! tested against this module.
//!
//! * `float`: F32, F16, BF16.
//! * `per_32`: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: one scale, perhaps one minimum, for 32 weights.
//! * `k_quants`: Q2_K to Q6_K: 256 weights whose sub-blocks' scales are quantised too.
//! * `tabled`: IQ4_NL, IQ4_XS, MXFP4: 4-bit indices into a table of 16 values.

mod float;
pub(in crate::real) mod k_quants;
mod per_32;
pub(in crate::real) mod tabled;
#[cfg(test)]
mod tests;

use half::f16;
use planner::model::ggml::GgmlType;

/// A format that this version cannot compute with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "tensors of type {kind} are not supported; known are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, \
     Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS and MXFP4: quantise the model to one of these"
)]
pub struct UnknownFormat {
    /// The format that was met.
    pub kind: GgmlType,
}

/// The formats that [`dequantise`] and [`quantise`] know.
pub const KNOWN: [GgmlType; 16] = [
    GgmlType::F32,
    GgmlType::F16,
    GgmlType::BF16,
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::Q8_0,
    GgmlType::Q2_K,
    GgmlType::Q3_K,
    GgmlType::Q4_K,
    GgmlType::Q5_K,
    GgmlType::Q6_K,
    GgmlType::IQ4_NL,
    GgmlType::IQ4_XS,
    GgmlType::MXFP4,
];

/// Widens the blocks in `bytes` to the elements of `out`, exactly as llama.cpp's `dequantize_row_*` does.
///
/// # Errors
/// [`UnknownFormat`] for formats outside [`KNOWN`]; `out` is untouched then.
///
/// # Panics
/// Where `bytes` and `out` are not the same whole number of blocks: a tensor's table entry has been held against its
/// dimensions when the header was read.
pub fn dequantise(kind: GgmlType, bytes: &[u8], out: &mut [f32]) -> Result<(), UnknownFormat> {
    match kind {
        GgmlType::F32 => widen(bytes, out, float::from_f32),
        GgmlType::F16 => widen(bytes, out, float::from_f16),
        GgmlType::BF16 => widen(bytes, out, float::from_bf16),
        GgmlType::Q4_0 => widen(bytes, out, per_32::from_q4_0),
        GgmlType::Q4_1 => widen(bytes, out, per_32::from_q4_1),
        GgmlType::Q5_0 => widen(bytes, out, per_32::from_q5_0),
        GgmlType::Q5_1 => widen(bytes, out, per_32::from_q5_1),
        GgmlType::Q8_0 => widen(bytes, out, per_32::from_q8_0),
        GgmlType::Q2_K => widen(bytes, out, k_quants::q2::widened),
        GgmlType::Q3_K => widen(bytes, out, k_quants::q3::widened),
        GgmlType::Q4_K => widen(bytes, out, k_quants::q4::widened),
        GgmlType::Q5_K => widen(bytes, out, k_quants::q5::widened),
        GgmlType::Q6_K => widen(bytes, out, k_quants::q6::widened),
        GgmlType::IQ4_NL => widen(bytes, out, tabled::from_iq4_nl),
        GgmlType::IQ4_XS => widen(bytes, out, tabled::from_iq4_xs),
        GgmlType::MXFP4 => widen(bytes, out, tabled::from_mxfp4),
        _ => return Err(UnknownFormat { kind }),
    }
    Ok(())
}

/// Quantises a row, or several one after the other, as llama.cpp does without an importance matrix; the blocks are
/// appended to `out`.
///
/// # Errors
/// [`UnknownFormat`] for formats outside [`KNOWN`]; `out` is untouched then.
///
/// # Panics
/// Where `values` are no whole number of blocks.
pub fn quantise(kind: GgmlType, values: &[f32], out: &mut Vec<u8>) -> Result<(), UnknownFormat> {
    match kind {
        GgmlType::F32 => narrow(values, out, float::to_f32),
        GgmlType::F16 => narrow(values, out, float::to_f16),
        GgmlType::BF16 => narrow(values, out, float::to_bf16),
        GgmlType::Q4_0 => narrow(values, out, per_32::to_q4_0),
        GgmlType::Q4_1 => narrow(values, out, per_32::to_q4_1),
        GgmlType::Q5_0 => narrow(values, out, per_32::to_q5_0),
        GgmlType::Q5_1 => narrow(values, out, per_32::to_q5_1),
        GgmlType::Q8_0 => narrow(values, out, per_32::to_q8_0),
        GgmlType::Q2_K => narrow(values, out, k_quants::q2::narrowed),
        GgmlType::Q3_K => narrow(values, out, k_quants::q3::narrowed),
        GgmlType::Q4_K => narrow(values, out, k_quants::q4::narrowed),
        GgmlType::Q5_K => narrow(values, out, k_quants::q5::narrowed),
        GgmlType::Q6_K => narrow(values, out, k_quants::q6::narrowed),
        GgmlType::IQ4_NL => narrow(values, out, tabled::to_iq4_nl),
        GgmlType::IQ4_XS => narrow(values, out, tabled::to_iq4_xs),
        GgmlType::MXFP4 => narrow(values, out, tabled::to_mxfp4),
        _ => return Err(UnknownFormat { kind }),
    }
    Ok(())
}

/// Applies `block` to each block of `bytes` and its elements in `out`.
fn widen<const BYTES: usize, const ELEMENTS: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; ELEMENTS]),
) {
    let (blocks, bytes_left) = bytes.as_chunks::<BYTES>();
    let (rows, elements_left) = out.as_chunks_mut::<ELEMENTS>();
    assert!(bytes_left.is_empty() && elements_left.is_empty(), "whole blocks");
    assert_eq!(blocks.len(), rows.len(), "as many elements as the blocks hold");
    for (bytes, elements) in blocks.iter().zip(rows) {
        block(bytes, elements);
    }
}

/// Appends what `block` makes of each block's elements.
fn narrow<const BYTES: usize, const ELEMENTS: usize>(
    values: &[f32],
    out: &mut Vec<u8>,
    block: impl Fn(&[f32; ELEMENTS]) -> [u8; BYTES],
) {
    let (blocks, left) = values.as_chunks::<ELEMENTS>();
    assert!(left.is_empty(), "whole blocks");
    out.reserve(blocks.len() * BYTES);
    for elements in blocks {
        out.extend_from_slice(&block(elements));
    }
}

/// The half-precision number at `at`: a block's scale.
fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Stores `value` at `at`, rounded to half precision, and returns what it was rounded to.
fn put_f16(block: &mut [u8], at: usize, value: f32) -> f32 {
    let rounded = f16::from_f32(value);
    block[at..at + 2].copy_from_slice(&rounded.to_le_bytes());
    rounded.to_f32()
}

/// `1 / scale`, or 0 for a block of zeros.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The value that is largest without its sign, the first of equals; 0 for none.
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |max: f32, &v| if max.abs() < v.abs() { v } else { max })
}
