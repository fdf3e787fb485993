//! Floating-point elements; each is a block of one.

use half::{bf16, f16};

pub(super) fn from_f32(bytes: &[u8; 4], [out]: &mut [f32; 1]) {
    *out = f32::from_le_bytes(*bytes);
}

pub(super) fn from_f16(bytes: &[u8; 2], [out]: &mut [f32; 1]) {
    *out = f16::from_le_bytes(*bytes).to_f32();
}

pub(super) fn from_bf16(bytes: &[u8; 2], [out]: &mut [f32; 1]) {
    *out = bf16::from_le_bytes(*bytes).to_f32();
}

pub(super) fn to_f32([value]: &[f32; 1]) -> [u8; 4] {
    value.to_le_bytes()
}

/// Rounds to the nearest, ties to even, as ggml does.
pub(super) fn to_f16([value]: &[f32; 1]) -> [u8; 2] {
    f16::from_f32(*value).to_le_bytes()
}

/// Rounds to the nearest, ties to even, as ggml does.
pub(super) fn to_bf16([value]: &[f32; 1]) -> [u8; 2] {
    bf16::from_f32(*value).to_le_bytes()
}
