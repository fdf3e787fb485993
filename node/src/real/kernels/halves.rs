//! 16-bit floats, widened without branches, so that the compiler can do many at once.

/// The value of an f16.
#[inline(always)]
pub(super) fn half(bits: u16) -> f32 {
    let (sign, rest) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff));
    // The exponent's bias is 112 less than f32's. Subnormals are that of 1.0 * 2^-14 and more, less 2^-14: a product with a
    // subnormal f32 would take processors a hundred cycles, and scales of K-quants are that small.
    const LEAST_NORMAL: u32 = 113 << 23;
    let normal = (rest << 13) + (112 << 23);
    let subnormal = f32::from_bits((rest << 13) + LEAST_NORMAL) - f32::from_bits(LEAST_NORMAL);
    let finite = if rest < 0x400 { subnormal.to_bits() } else { normal };
    let endless = 0x7f80_0000 | rest << 13;
    f32::from_bits(sign | if rest >= 0x7c00 { endless } else { finite })
}

/// The value of a bf16.
#[inline(always)]
pub(super) fn brain(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_those_of_ieee_754() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x0001, 2f32.powi(-24)),
            (0x03ff, 2f32.powi(-14) - 2f32.powi(-24)),
            (0x0400, 2f32.powi(-14)),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x7c00, f32::INFINITY),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(half(bits).to_bits(), f32::to_bits(value), "{bits:#06x}");
        }
        assert!(half(0x7e00).is_nan());
        assert!(half(0x8000).is_sign_negative());
    }
}
