#![allow(clippy::unwrap_used, reason = "a known format that is refused is the failed test")]

use planner::model::ggml::GgmlType;
use proptest::prelude::*;

use super::{KNOWN, UnknownFormat, dequantise, quantise};

/// Input and, by format, what llama.cpp makes of it: see `tests/scripts/golden-formats.py`, which wrote them.
const INPUT: &[u8] = include_bytes!("golden/input.f32");

macro_rules! golden {
    ($($kind:ident)*) => {
        [$((GgmlType::$kind, include_bytes!(concat!("golden/", stringify!($kind), ".bin")).as_slice())),*]
    };
}

const GOLDEN: [(GgmlType, &[u8]); 15] =
    golden!(F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4);

/// Weights in a golden file's blocks of random bits.
const RANDOM_WEIGHTS: usize = 512;

fn floats(bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / 4];
    dequantise(GgmlType::F32, bytes, &mut out).unwrap();
    out
}

fn block_bytes(kind: GgmlType, weights: usize) -> usize {
    weights / kind.block_elements() as usize * kind.block_bytes() as usize
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn every_block_is_quantised_as_llama_cpp_does_it() {
    let input = floats(INPUT);
    for (kind, golden) in GOLDEN {
        let mut blocks = Vec::new();
        quantise(kind, &input, &mut blocks).unwrap();
        let expected = &golden[..block_bytes(kind, input.len())];
        let per_block = kind.block_bytes() as usize;
        for (i, (ours, theirs)) in blocks.chunks(per_block).zip(expected.chunks(per_block)).enumerate() {
            assert_eq!(ours, theirs, "{kind}, block {i}");
        }
        assert_eq!(blocks.len(), expected.len(), "{kind}");
    }
}

#[test]
fn every_bit_pattern_is_widened_as_llama_cpp_does_it() {
    for (kind, golden) in GOLDEN {
        let random = &golden[block_bytes(kind, INPUT.len() / 4)..];
        let (blocks, expected) = random.split_at(block_bytes(kind, RANDOM_WEIGHTS));
        let mut ours = vec![0.0; RANDOM_WEIGHTS];
        dequantise(kind, blocks, &mut ours).unwrap();
        assert_eq!(bits(&ours), bits(&floats(expected)), "{kind}");
    }
}

#[test]
fn an_unknown_format_names_itself_and_the_known_ones() {
    let refused = dequantise(GgmlType::IQ1_S, &[0; 50], &mut [0.0; 256]);
    assert_eq!(refused, Err(UnknownFormat { kind: GgmlType::IQ1_S }));
    let said = UnknownFormat { kind: GgmlType::IQ1_S }.to_string();
    for kind in KNOWN {
        assert!(said.contains(kind.name()), "{said}");
    }
    for kind in GgmlType::ALL {
        let mut blocks = Vec::new();
        let known = quantise(*kind, &[0.0; 256], &mut blocks).is_ok();
        assert_eq!(known, KNOWN.contains(kind), "{kind}");
    }
}

/// The largest difference that a format may leave, as a share of the largest weight of 256: half a step, and what the
/// rounded scales add while they are no subnormal halves.
fn bound(kind: GgmlType) -> f32 {
    match kind {
        GgmlType::F32 => 0.0,
        GgmlType::F16 => 1.0 / 2048.0,
        GgmlType::BF16 | GgmlType::Q8_0 => 1.0 / 200.0,
        GgmlType::Q6_K => 1.0 / 24.0,
        GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q5_K => 1.0 / 12.0,
        GgmlType::Q2_K | GgmlType::Q3_K => 0.6,
        _ => 0.26,
    }
}

proptest! {
    #[test]
    fn a_weight_comes_back_within_a_step(weights in prop::collection::vec(-1.0f32..1.0, 256), scale in 0i32..8) {
        let weights: Vec<f32> = weights.iter().map(|w| w * 2f32.powi(scale)).collect();
        let largest = weights.iter().fold(0.0f32, |max, w| max.max(w.abs()));
        for kind in KNOWN {
            let (mut blocks, mut back) = (Vec::new(), vec![0.0; 256]);
            quantise(kind, &weights, &mut blocks).unwrap();
            prop_assert_eq!(blocks.len(), block_bytes(kind, 256));
            dequantise(kind, &blocks, &mut back).unwrap();
            for (weight, back) in weights.iter().zip(back) {
                prop_assert!((weight - back).abs() <= bound(kind) * largest, "{}: {} became {}", kind, weight, back);
            }
        }
    }

    #[test]
    fn no_bits_make_quantising_panic(bits in prop::collection::vec(any::<u32>(), 256)) {
        let weights: Vec<f32> = bits.iter().map(|b| f32::from_bits(*b)).collect();
        for kind in KNOWN {
            let (mut blocks, mut back) = (Vec::new(), vec![0.0; 256]);
            quantise(kind, &weights, &mut blocks).unwrap();
            dequantise(kind, &blocks, &mut back).unwrap();
        }
    }
}
