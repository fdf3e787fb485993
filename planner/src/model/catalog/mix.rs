//! Quantisation mixes: which type each tensor of a model gets at `Q4_K_M`, `IQ2_M`, ….
//!
//! For llama.cpp's mixes the rules are those of `src/llama-quant.cpp` (2026), for the tensors that the catalog's models
//! have. The others are noted at their variant.

use crate::model::ggml::GgmlType;

/// How a tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As one of ggml's types.
    Ggml(GgmlType),
    /// As MLX stores 4 bits: groups of 64 with a scale and a bias in 16 bits each.
    MlxFourBit,
}

impl Encoding {
    /// Bytes of a tensor of these dimensions; its types fit, since [`Mix::encoding`] chose them by its rows.
    pub(super) fn bytes(self, dims: &[u64]) -> u64 {
        match self {
            Encoding::Ggml(ggml_type) => {
                ggml_type.tensor_bytes(dims).expect("the mix falls back to a type whose blocks fit the rows")
            }
            Encoding::MlxFourBit => dims.iter().product::<u64>() * 36 / 64,
        }
    }
}

/// What a tensor is for, as far as mixes treat it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Norms, biases, gates, convolutions: never quantised.
    Plain,
    Embedding,
    Output,
    Query,
    Key,
    Value,
    QueryKeyValue,
    AttentionOutput,
    FeedForward,
    FeedForwardDown,
    /// Any other matrix.
    Other,
}

/// Where a tensor stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// What for.
    pub(super) role: Role,
    /// One of all experts.
    pub(super) expert: bool,
    /// In which layer; 0 outside of layers.
    pub(super) layer: u32,
    /// Elements of a row.
    pub(super) row: u64,
}

/// What the rules ask about a model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traits {
    /// Layers.
    pub(super) layers: u32,
    /// Heads that share a KV head.
    pub(super) grouping: u32,
    /// Experts of a layer.
    pub(super) experts: u32,
    /// Whether head and embedding are one tensor.
    pub(super) tied: bool,
    /// A Llama or Qwen2 of 80 layers with grouped heads, which llama.cpp treats apart.
    pub(super) seventy_b: bool,
    /// The type in which the model's makers published the experts, and in which every file keeps them.
    pub(super) native_experts: Option<GgmlType>,
}

macro_rules! mixes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal $(| $alias:literal)*;)*) => {
        /// A quantisation, by name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(non_camel_case_types, reason = "the names people know")]
        pub(super) enum Mix { $($(#[$doc])* $variant,)* }

        impl Mix {
            pub(super) const ALL: &'static [Mix] = &[$(Mix::$variant,)*];

            /// The name as people write it.
            pub(super) fn name(self) -> &'static str {
                match self { $(Mix::$variant => $name,)* }
            }

            /// The mix of that name, in any case.
            pub(super) fn parse(text: &str) -> Option<Mix> {
                $(if [$name $(, $alias)*].iter().any(|name| name.eq_ignore_ascii_case(text)) {
                    return Some(Mix::$variant);
                })*
                None
            }
        }
    };
}

mixes! {
    F32 = "F32";
    F16 = "F16";
    BF16 = "BF16";
    Q8_0 = "Q8_0" | "Q8";
    Q6_K = "Q6_K";
    Q5_K_M = "Q5_K_M";
    Q5_K_S = "Q5_K_S";
    Q4_K_M = "Q4_K_M" | "Q4K";
    Q4_K_S = "Q4_K_S";
    /// Unsloth's dynamic mix. Its choice of types differs from model to model and is published only as files; what stands
    /// here meets the sizes that are known: experts as in `Q4_K_S`, the trunk a step higher.
    UD_Q4_K_XL = "UD-Q4_K_XL" | "UD-Q4_K_M";
    Q4_0 = "Q4_0";
    Q4_1 = "Q4_1";
    IQ4_XS = "IQ4_XS";
    Q3_K_M = "Q3_K_M";
    Q2_K = "Q2_K";
    IQ2_M = "IQ2_M";
    /// Experts in MXFP4, other matrices in `Q8_0`.
    MXFP4 = "MXFP4" | "MXFP4_MOE";
    /// distributed-llama: 4-bit matrices, embedding and norms in 32 bits.
    Q40 = "Q40";
    /// MLX: every matrix in 4 bits, groups of 64.
    FourBit = "4bit" | "4-bit" | "MLX-4bit";
}

/// The layers to which `Q4_K_M` and `Q5_K_M` give more bits: the first and last eighth and each third between.
fn more_bits(layer: u32, layers: u32) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

impl Mix {
    /// How this mix stores a tensor.
    pub(super) fn encoding(self, place: &Place, traits: &Traits) -> Encoding {
        if place.role == Role::Plain {
            let plain = if self == Mix::FourBit { GgmlType::F16 } else { GgmlType::F32 };
            return Encoding::Ggml(plain);
        }
        if let (true, Some(native)) = (place.expert, traits.native_experts) {
            return Encoding::Ggml(native);
        }
        if self == Mix::FourBit && place.row.is_multiple_of(64) {
            return Encoding::MlxFourBit;
        }
        Encoding::Ggml(fitting(self.wanted(place, traits), place.row))
    }

    /// The type the rules choose, before rows are looked at.
    fn wanted(self, place: &Place, traits: &Traits) -> GgmlType {
        let tied_embedding = traits.tied && place.role == Role::Embedding;
        if place.role == Role::Output || tied_embedding {
            return self.for_output();
        }
        if place.role == Role::Embedding {
            return self.for_embedding();
        }
        match place.role {
            Role::Value => self.for_value(place, traits),
            Role::Key if traits.experts == 8 => self.for_key_of_eight(),
            Role::QueryKeyValue => self.for_fused(),
            Role::AttentionOutput => self.for_attention_output(traits),
            Role::FeedForwardDown => self.for_down(place, traits),
            Role::FeedForward if self == Mix::MXFP4 && place.expert => GgmlType::MXFP4,
            Role::Query | Role::Key | Role::Other if self == Mix::UD_Q4_K_XL => GgmlType::Q5_K,
            _ => self.base(),
        }
    }

    /// The type of what no rule treats apart.
    fn base(self) -> GgmlType {
        match self {
            Mix::F32 => GgmlType::F32,
            Mix::F16 | Mix::FourBit => GgmlType::F16,
            Mix::BF16 => GgmlType::BF16,
            Mix::Q8_0 | Mix::MXFP4 => GgmlType::Q8_0,
            Mix::Q6_K => GgmlType::Q6_K,
            Mix::Q5_K_M | Mix::Q5_K_S => GgmlType::Q5_K,
            Mix::Q4_K_M | Mix::Q4_K_S | Mix::UD_Q4_K_XL => GgmlType::Q4_K,
            Mix::Q4_0 | Mix::Q40 => GgmlType::Q4_0,
            Mix::Q4_1 => GgmlType::Q4_1,
            Mix::IQ4_XS => GgmlType::IQ4_XS,
            Mix::Q3_K_M => GgmlType::Q3_K,
            Mix::Q2_K => GgmlType::Q2_K,
            Mix::IQ2_M => GgmlType::IQ2_S,
        }
    }

    fn for_output(self) -> GgmlType {
        match self {
            Mix::F32 | Mix::F16 | Mix::BF16 | Mix::Q8_0 | Mix::MXFP4 | Mix::Q40 | Mix::FourBit => self.base(),
            Mix::IQ2_M => GgmlType::Q5_K,
            _ => GgmlType::Q6_K,
        }
    }

    fn for_embedding(self) -> GgmlType {
        match self {
            Mix::IQ2_M => GgmlType::IQ3_S,
            Mix::Q40 => GgmlType::F32,
            _ => self.base(),
        }
    }

    fn for_value(self, place: &Place, traits: &Traits) -> GgmlType {
        let grouped = traits.grouping >= 4;
        let chosen = match self {
            Mix::IQ2_M if grouped || traits.experts >= 4 => return GgmlType::Q4_K,
            Mix::IQ2_M => return GgmlType::IQ3_S,
            Mix::Q2_K if grouped => GgmlType::Q4_K,
            Mix::Q2_K => GgmlType::Q3_K,
            Mix::Q3_K_M if place.layer < 2 => GgmlType::Q5_K,
            Mix::Q3_K_M => GgmlType::Q4_K,
            Mix::IQ4_XS if grouped => GgmlType::Q5_K,
            Mix::Q4_K_M | Mix::Q5_K_M if more_bits(place.layer, traits.layers) => GgmlType::Q6_K,
            Mix::Q4_K_S if place.layer < 4 => GgmlType::Q5_K,
            Mix::UD_Q4_K_XL => GgmlType::Q6_K,
            _ => self.base(),
        };
        match chosen {
            _ if traits.experts == 8 && self.is_quantised() => GgmlType::Q8_0,
            GgmlType::Q3_K | GgmlType::Q4_K if traits.seventy_b => GgmlType::Q5_K,
            _ => chosen,
        }
    }

    /// llama.cpp gives the small key tensors of an eight-expert model more bits.
    fn for_key_of_eight(self) -> GgmlType {
        match self {
            Mix::IQ2_M => GgmlType::Q4_K,
            _ if self.is_quantised() => GgmlType::Q8_0,
            _ => self.base(),
        }
    }

    fn is_quantised(self) -> bool {
        !matches!(self, Mix::F32 | Mix::F16 | Mix::BF16 | Mix::Q40 | Mix::FourBit)
    }

    fn for_fused(self) -> GgmlType {
        match self {
            Mix::Q3_K_M => GgmlType::Q4_K,
            Mix::Q4_K_M | Mix::UD_Q4_K_XL => GgmlType::Q5_K,
            Mix::Q5_K_M => GgmlType::Q6_K,
            _ => self.base(),
        }
    }

    fn for_attention_output(self, traits: &Traits) -> GgmlType {
        let eight = traits.experts == 8;
        match self {
            Mix::IQ2_M if eight => GgmlType::Q5_K,
            Mix::IQ2_M => GgmlType::IQ3_S,
            Mix::Q2_K | Mix::Q3_K_M | Mix::IQ4_XS | Mix::Q4_K_S | Mix::Q4_K_M if eight => GgmlType::Q5_K,
            Mix::Q2_K => GgmlType::Q3_K,
            Mix::Q3_K_M => GgmlType::Q4_K,
            Mix::UD_Q4_K_XL => GgmlType::Q5_K,
            _ => self.base(),
        }
    }

    fn for_down(self, place: &Place, traits: &Traits) -> GgmlType {
        let (layer, layers) = (place.layer, traits.layers);
        match self {
            Mix::MXFP4 if place.expert => GgmlType::MXFP4,
            Mix::IQ2_M if layer < layers / 8 => GgmlType::IQ3_S,
            Mix::Q2_K => GgmlType::Q3_K,
            Mix::Q3_K_M if layer < layers / 16 => GgmlType::Q5_K,
            Mix::Q3_K_M => GgmlType::Q4_K,
            Mix::Q4_K_M | Mix::Q5_K_M if more_bits(layer, layers) => GgmlType::Q6_K,
            Mix::Q4_K_S | Mix::UD_Q4_K_XL if layer < layers / 8 => GgmlType::Q5_K,
            _ => self.base(),
        }
    }
}

/// The type itself, or the one llama.cpp falls back to where its blocks do not divide a row.
fn fitting(wanted: GgmlType, row: u64) -> GgmlType {
    if row.is_multiple_of(wanted.block_elements()) {
        return wanted;
    }
    let smaller = match wanted {
        GgmlType::IQ2_S | GgmlType::IQ3_S | GgmlType::IQ4_XS => GgmlType::IQ4_NL,
        GgmlType::Q2_K | GgmlType::Q3_K => GgmlType::Q4_0,
        GgmlType::Q4_K => GgmlType::Q5_0,
        GgmlType::Q5_K => GgmlType::Q5_1,
        GgmlType::Q6_K => GgmlType::Q8_0,
        _ => GgmlType::F16,
    };
    if row.is_multiple_of(smaller.block_elements()) { smaller } else { GgmlType::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAITS: Traits =
        Traits { layers: 32, grouping: 4, experts: 0, tied: false, seventy_b: false, native_experts: None };

    fn chosen(mix: Mix, role: Role, layer: u32, row: u64) -> Encoding {
        mix.encoding(&Place { role, expert: false, layer, row }, &TRAITS)
    }

    #[test]
    fn names_and_aliases_are_found_in_any_case() {
        for mix in Mix::ALL {
            assert_eq!(Mix::parse(&mix.name().to_lowercase()), Some(*mix));
        }
        assert_eq!(Mix::parse("q4k"), Some(Mix::Q4_K_M));
        assert_eq!(Mix::parse("4-bit"), Some(Mix::FourBit));
        assert_eq!(Mix::parse("Q9"), None);
    }

    #[test]
    fn q4_k_m_gives_half_of_the_down_projections_six_bits() {
        let six = (0..32)
            .filter(|layer| {
                chosen(Mix::Q4_K_M, Role::FeedForwardDown, *layer, 4096) == Encoding::Ggml(GgmlType::Q6_K)
            })
            .count();
        assert_eq!(six, 16);
    }

    #[test]
    fn rows_that_blocks_do_not_divide_fall_back_as_in_llama_cpp() {
        assert_eq!(chosen(Mix::Q4_K_M, Role::Other, 9, 192), Encoding::Ggml(GgmlType::Q5_0));
        assert_eq!(chosen(Mix::Q4_1, Role::Output, 0, 576), Encoding::Ggml(GgmlType::Q8_0));
        assert_eq!(chosen(Mix::IQ2_M, Role::Other, 9, 100), Encoding::Ggml(GgmlType::F16));
    }

    #[test]
    fn norms_and_gates_are_never_quantised() {
        for mix in Mix::ALL {
            let Encoding::Ggml(plain) = chosen(*mix, Role::Plain, 0, 4096) else {
                panic!("{} quantises norms", mix.name())
            };
            assert_eq!(plain.block_elements(), 1);
        }
    }

    #[test]
    fn mlx_spends_four_and_a_half_bits() {
        assert_eq!(chosen(Mix::FourBit, Role::Query, 0, 4096).bytes(&[4096, 2]), 4096 * 2 * 9 / 16);
    }
}
