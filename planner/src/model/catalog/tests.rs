#![allow(clippy::unwrap_used, reason = "a failed lookup is the failed test")]

use super::*;
use crate::model::Attention;
use crate::units;

/// How far a sum may be from a published size: these are rounded, and files hold a vocabulary beside their tensors.
const SIZE_TOLERANCE: f64 = 0.03;

/// How far parameters may be from published ones, which are often rounded to whole thousand millions.
const PARAMETERS_TOLERANCE: f64 = 0.05;

#[test]
fn the_built_in_files_are_well_formed() {
    let catalog = read().unwrap();
    assert!(catalog.entries.len() >= 30);
    for entry in &catalog.entries {
        assert!(!entry.source.is_empty(), "{}", entry.name);
        assert!(entry.feed_forward.is_some() || entry.experts.as_ref().is_some_and(|e| e.dense_layers == 0));
        if let Some(published) = &entry.published {
            assert!(!published.source.is_empty(), "{}", entry.name);
        }
    }
}

#[test]
fn every_model_can_be_built_at_every_quantisation() {
    for entry in entries() {
        for mix in Mix::ALL {
            let model = build(entry, *mix).unwrap();
            assert_eq!(model.layer_count(), entry.layers, "{}", model.name);
            assert_eq!(model.tied, entry.tied, "{}", model.name);
            assert!(model.layers.iter().all(|layer| layer.trunk_bytes > 0), "{}", model.name);
        }
    }
}

#[test]
fn file_sizes_are_those_published() {
    let mut checked = 0;
    let mut wrong = Vec::new();
    for entry in entries() {
        for published in &entry.sizes {
            let model = build_named(entry, &published.quant).unwrap();
            let size = units::bytes(&published.size).unwrap() as f64;
            let error = model.weight_bytes() as f64 / size - 1.0;
            if error.abs() > SIZE_TOLERANCE {
                wrong.push(format!(
                    "{}: {} against {} ({:+.1} %)",
                    model.name,
                    model.weight_bytes(),
                    size,
                    error * 100.0
                ));
            }
            checked += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 40, "only {checked} sizes");
}

#[test]
fn parameters_are_those_published() {
    let mut wrong = Vec::new();
    for entry in entries() {
        let Some(published) = &entry.published else { continue };
        let model = build_named(entry, "F16").unwrap();
        let active = match published.active_counts {
            ActiveCounts::Both if model.tied => model.active_params(),
            ActiveCounts::Both => model.active_params() + model.embedding_params() as f64,
            ActiveCounts::NoEmbedding => model.active_params(),
            ActiveCounts::NeitherEmbeddingNorHead => model.active_params() - model.head_params as f64,
        };
        let dense = entry.experts.is_none().then_some(published.total_b);
        let pairs = [
            ("total", model.params() as f64, Some(published.total_b)),
            ("active", active, published.active_b.or(dense)),
        ];
        for (what, counted, said) in pairs {
            let Some(said) = said else { continue };
            let error = counted / (said * 1e9) - 1.0;
            if error.abs() > PARAMETERS_TOLERANCE {
                wrong.push(format!(
                    "{} {what}: {counted:.4e} against {said} B ({:+.1} %)",
                    entry.name,
                    error * 100.0
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_name_is_found_in_the_ways_people_write_it() {
    let expected = find("GLM-4.7-Flash Q4_K_M").unwrap();
    for name in ["glm-4.7-flash:q4_k_m", " GLM 4.7 Flash Q4_K_M ", "GLM-4.7-Flash", "glm_4.7_flash:Q4K"] {
        assert_eq!(find(name).unwrap(), expected, "{name}");
    }
    assert_eq!(find("Llama-3.3-70B-Instruct Q4_K_M").unwrap().name, "Llama-3.3-70B Q4_K_M");
    assert_eq!(find("gpt-oss-120B").unwrap().quant, "MXFP4");
    assert_eq!(find("Llama 2 7B Q40").unwrap().quant, "Q40");
    for name in names() {
        assert!(find(&name).unwrap().name.starts_with(&name));
    }
}

#[test]
fn errors_say_what_may_have_been_meant() {
    let text = find("Qwen3-235").unwrap_err().to_string();
    assert!(text.contains("no model `Qwen3-235`") && text.contains("near: Qwen3-235B-A22B,"), "{text}");
    let text = find("Qwen3-8B Q4_K_N").unwrap_err().to_string();
    assert!(
        text.contains("`Q4_K_N` of `Qwen3-8B`") && text.contains("Q4_K_M") && text.contains("MXFP4"),
        "{text}"
    );
    assert!(find("").is_err());
    assert!(find(&"x ".repeat(100_000)).is_err());
}

#[test]
fn glm_flash_attends_by_a_compressed_vector_and_has_one_dense_layer() {
    let model = find("GLM-4.7-Flash Q4_K_M").unwrap();
    assert_eq!(model.layer_count(), 47);
    assert!(model.layers.iter().all(|l| l.attention == Attention::Latent));
    assert!(model.layers.iter().all(|l| l.kv_bytes_per_token == (512 + 64) * 2));
    assert_eq!(model.layers[1].attention_flops_per_context, 2.0 * 20.0 * (576.0 + 512.0));
    assert!(model.layers[0].experts.is_none());
    let experts = model.layers[1].experts.unwrap();
    assert_eq!((experts.count, experts.used, experts.params_each), (64, 4, 3 * 2048 * 1536));
}

#[test]
fn grouped_heads_keep_a_key_and_a_value_each() {
    let model = find("Llama-3.3-70B").unwrap();
    assert_eq!(model.layers[9].kv_bytes_per_token, 8 * (128 + 128) * 2);
    assert_eq!(model.layers[9].attention_flops_per_context, 2.0 * 64.0 * (128.0 + 128.0));
    assert!(model.layers.iter().all(|l| l.attention == Attention::Full && l.experts.is_none()));
}

#[test]
fn windows_alternate_as_the_models_have_them() {
    let oss = find("gpt-oss-120b").unwrap();
    assert_eq!(oss.layers[0].attention, Attention::Sliding { window: 128 });
    assert_eq!(oss.layers[1].attention, Attention::Full);
    let gemma = find("Gemma-3-270m").unwrap();
    let full: Vec<usize> = (0..18).filter(|i| gemma.layers[*i].attention == Attention::Full).collect();
    assert_eq!(full, [5, 11, 17]);
}

#[test]
fn recurrent_layers_keep_a_state_that_does_not_grow() {
    let model = find("Qwen3.6-35B-A3B").unwrap();
    let full: Vec<_> = model.layers.iter().filter(|l| l.attention == Attention::Full).collect();
    assert_eq!(full.len(), 10);
    assert!(full.iter().all(|l| l.kv_bytes_per_token == 2 * (256 + 256) * 2));
    let state = 128 * 32 * 128 + 3 * (2 * 16 * 128 + 32 * 128);
    assert_eq!(model.layers[0].attention, Attention::Sliding { window: 1 });
    assert_eq!(model.layers[0].kv_bytes_per_token, state * 4);
}

#[test]
fn four_bits_read_less_than_eight_and_the_experts_least() {
    let (four, eight) = (find("Qwen3-30B-A3B Q4_K_M").unwrap(), find("Qwen3-30B-A3B Q8_0").unwrap());
    assert!(four.active_bytes() < 0.65 * eight.active_bytes());
    assert!(four.active_bytes() < 0.12 * four.weight_bytes() as f64);
}
