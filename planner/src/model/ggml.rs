//! The element types of ggml, with how many bytes a block of each takes.
//!
//! Source: `ggml/include/ggml.h` (numbers) and `ggml/src/ggml-common.h` (block layouts) of llama.cpp. A number that is
//! not here is an error when a file uses it, never a guess.

use std::fmt;

macro_rules! ggml_types {
    ($($variant:ident = $id:literal, $name:literal, $elements:literal per $bytes:literal;)*) => {
        /// How the elements of a tensor are stored.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(non_camel_case_types, reason = "the names of ggml, which people know")]
        pub enum GgmlType {
            $(#[doc = concat!("`", $name, "`: ", $elements, " elements in ", $bytes, " bytes.")] $variant,)*
        }

        impl GgmlType {
            /// Every type, by number.
            pub const ALL: &'static [GgmlType] = &[$(GgmlType::$variant,)*];

            /// The type with this number in a GGUF file, if there is one.
            pub fn from_id(id: u32) -> Option<Self> {
                match id {
                    $($id => Some(GgmlType::$variant),)*
                    _ => None,
                }
            }

            /// Its number in a GGUF file.
            pub fn id(self) -> u32 {
                match self { $(GgmlType::$variant => $id,)* }
            }

            /// Its name, as llama.cpp prints it.
            pub fn name(self) -> &'static str {
                match self { $(GgmlType::$variant => $name,)* }
            }

            /// Elements of one block; the first dimension of a tensor is a multiple of it.
            pub fn block_elements(self) -> u64 {
                match self { $(GgmlType::$variant => $elements,)* }
            }

            /// Bytes of one block.
            pub fn block_bytes(self) -> u64 {
                match self { $(GgmlType::$variant => $bytes,)* }
            }
        }
    };
}

ggml_types! {
    F32 = 0, "F32", 1 per 4;
    F16 = 1, "F16", 1 per 2;
    Q4_0 = 2, "Q4_0", 32 per 18;
    Q4_1 = 3, "Q4_1", 32 per 20;
    Q5_0 = 6, "Q5_0", 32 per 22;
    Q5_1 = 7, "Q5_1", 32 per 24;
    Q8_0 = 8, "Q8_0", 32 per 34;
    Q8_1 = 9, "Q8_1", 32 per 36;
    Q2_K = 10, "Q2_K", 256 per 84;
    Q3_K = 11, "Q3_K", 256 per 110;
    Q4_K = 12, "Q4_K", 256 per 144;
    Q5_K = 13, "Q5_K", 256 per 176;
    Q6_K = 14, "Q6_K", 256 per 210;
    Q8_K = 15, "Q8_K", 256 per 292;
    IQ2_XXS = 16, "IQ2_XXS", 256 per 66;
    IQ2_XS = 17, "IQ2_XS", 256 per 74;
    IQ3_XXS = 18, "IQ3_XXS", 256 per 98;
    IQ1_S = 19, "IQ1_S", 256 per 50;
    IQ4_NL = 20, "IQ4_NL", 32 per 18;
    IQ3_S = 21, "IQ3_S", 256 per 110;
    IQ2_S = 22, "IQ2_S", 256 per 82;
    IQ4_XS = 23, "IQ4_XS", 256 per 136;
    I8 = 24, "I8", 1 per 1;
    I16 = 25, "I16", 1 per 2;
    I32 = 26, "I32", 1 per 4;
    I64 = 27, "I64", 1 per 8;
    F64 = 28, "F64", 1 per 8;
    IQ1_M = 29, "IQ1_M", 256 per 56;
    BF16 = 30, "BF16", 1 per 2;
    TQ1_0 = 34, "TQ1_0", 256 per 54;
    TQ2_0 = 35, "TQ2_0", 256 per 66;
    MXFP4 = 39, "MXFP4", 32 per 17;
    NVFP4 = 40, "NVFP4", 64 per 36;
    Q1_0 = 41, "Q1_0", 128 per 18;
}

impl GgmlType {
    /// Bytes of a tensor of `dims` (fastest first), or `None` where a row is no whole number of blocks or the count does
    /// not fit 64 bits.
    pub fn tensor_bytes(self, dims: &[u64]) -> Option<u64> {
        let row = *dims.first()?;
        if row % self.block_elements() != 0 {
            return None;
        }
        let elements = dims.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim))?;
        (elements / self.block_elements()).checked_mul(self.block_bytes())
    }

    /// Whether a number stood for a type that ggml has taken out again: such files must be made anew.
    pub fn was_removed(id: u32) -> bool {
        matches!(id, 4 | 5 | 31..=33 | 36..=38)
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_to_their_types() {
        for ggml_type in GgmlType::ALL {
            assert_eq!(GgmlType::from_id(ggml_type.id()), Some(*ggml_type));
            assert!(!GgmlType::was_removed(ggml_type.id()), "{ggml_type}");
        }
        assert_eq!(GgmlType::from_id(4), None);
        assert_eq!(GgmlType::from_id(u32::MAX), None);
    }

    #[test]
    fn bits_per_weight_are_those_llama_cpp_documents() {
        let bits = |t: GgmlType| t.block_bytes() as f64 * 8.0 / t.block_elements() as f64;
        for (ggml_type, documented) in [
            (GgmlType::Q4_0, 4.5),
            (GgmlType::Q2_K, 2.625),
            (GgmlType::Q3_K, 3.4375),
            (GgmlType::Q4_K, 4.5),
            (GgmlType::Q5_K, 5.5),
            (GgmlType::Q6_K, 6.5625),
            (GgmlType::IQ1_S, 1.5625),
            (GgmlType::IQ2_XXS, 2.0625),
            (GgmlType::IQ3_S, 3.4375),
            (GgmlType::IQ4_XS, 4.25),
            (GgmlType::TQ1_0, 1.6875),
            (GgmlType::MXFP4, 4.25),
            (GgmlType::NVFP4, 4.5),
        ] {
            assert_eq!(bits(ggml_type), documented, "{ggml_type}");
        }
    }

    #[test]
    fn a_tensor_counts_whole_blocks_and_never_overflows() {
        assert_eq!(GgmlType::Q4_K.tensor_bytes(&[512, 3]), Some(6 * 144));
        assert_eq!(GgmlType::Q4_K.tensor_bytes(&[500, 3]), None);
        assert_eq!(GgmlType::F32.tensor_bytes(&[u64::MAX / 2, 3]), None);
        assert_eq!(GgmlType::F64.tensor_bytes(&[u64::MAX / 4]), None);
        assert_eq!(GgmlType::F32.tensor_bytes(&[]), None);
    }
}
