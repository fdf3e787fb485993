//! What a right file says arrives exactly.

use planner::model::gguf::{self, GgufFile, Value};
use planner::model::{Attention, Model};

use crate::writer::{Writer, kind};
use crate::{save, saved, small_llama};

fn read(writer: &Writer) -> Model {
    let (_folder, path) = saved(writer);
    gguf::read(&path).unwrap()
}

fn error(writer: &Writer) -> String {
    let (_folder, path) = saved(writer);
    gguf::read(&path).unwrap_err().to_string()
}

/// A model of one layer with these tensors in it besides the embedding.
fn one_layer(architecture: &str, tensors: &[(&str, &[u64])]) -> Writer {
    let mut writer = Writer::new(architecture)
        .number(&format!("{architecture}.block_count"), 1)
        .number(&format!("{architecture}.embedding_length"), 64)
        .number(&format!("{architecture}.attention.head_count"), 4)
        .floats("token_embd.weight", &[64, 10]);
    for (part, dims) in tensors {
        writer = writer.floats(&format!("blk.0.{part}"), dims);
    }
    writer
}

#[test]
fn a_small_model_is_exact_to_the_byte() {
    let model = read(&small_llama());
    let layer = 4 * (64 + 64 * 64 + 2 * 64 * 32 + 64 * 64 + 64 + 3 * 64 * 128);
    assert_eq!(model.name, "Small Llama F32");
    assert_eq!((model.architecture.as_str(), model.quant.as_str()), ("llama", "F32"));
    assert_eq!((model.hidden, model.heads, model.kv_heads), (64, 4, 2));
    assert_eq!((model.vocab, model.context_max, model.tied), (100, 512, false));
    assert_eq!(model.embedding_bytes, 4 * 64 * 100);
    assert_eq!(model.head_bytes, 4 * (64 * 100 + 64));
    assert_eq!(model.head_params, 64 * 100);
    assert_eq!(model.layer_count(), 2);
    for l in &model.layers {
        assert_eq!((l.trunk_bytes, l.trunk_params, l.experts), (layer, layer / 4, None));
        assert_eq!(l.attention, Attention::Full);
        assert_eq!(l.kv_bytes_per_token, 2 * (16 + 16) * 2);
        assert_eq!(l.attention_flops_per_context, 2.0 * 4.0 * 32.0);
    }
    assert_eq!(model.weight_bytes(), 2 * layer + 4 * (2 * 6400 + 64));
    assert_eq!(model.params(), model.weight_bytes() / 4 - 64);
}

#[test]
fn version_two_and_other_alignments_are_read() {
    let mut writer = Writer { version: 2, ..small_llama() };
    assert_eq!(read(&writer).layer_count(), 2);
    writer = Writer { alignment: 64, ..Writer::new("llama") }
        .number("general.alignment", 64)
        .number("llama.block_count", 1)
        .number("llama.embedding_length", 64)
        .floats("token_embd.weight", &[64, 3])
        .floats("blk.0.attn_norm.weight", &[8])
        .floats("blk.0.ffn_norm.weight", &[8]);
    let (_folder, path) = saved(&writer);
    let file = GgufFile::open(&path).unwrap();
    assert_eq!(file.alignment, 64);
    let first = file.tensors["token_embd.weight"].at;
    assert_eq!(first, writer.header().len() as u64);
    assert_eq!(file.tensors["blk.0.attn_norm.weight"].at, first + 64 * 3 * 4);
    assert_eq!(file.tensors["blk.0.ffn_norm.weight"].at, first + 64 * 3 * 4 + 64);
}

#[test]
fn without_an_output_the_head_is_the_embedding() {
    let writer = one_layer("llama", &[("attn_norm.weight", &[64])])
        .floats("output_norm.weight", &[64])
        .floats("rope_freqs.weight", &[8]);
    let model = read(&writer);
    assert!(model.tied);
    assert_eq!(model.embedding_bytes, 4 * 640);
    assert_eq!(model.head_bytes, 4 * (640 + 64 + 8));
    assert_eq!(model.weight_bytes(), 4 * (640 + 64 + 8 + 64));
}

#[test]
fn experts_are_counted_each_and_shared_ones_belong_to_the_trunk() {
    let writer = one_layer(
        "qwen3moe",
        &[
            ("attn_k.weight", &[64, 32]),
            ("attn_v.weight", &[64, 32]),
            ("ffn_gate_inp.weight", &[64, 8]),
            ("ffn_gate_exps.weight", &[64, 32, 8]),
            ("ffn_up_exps.weight", &[64, 32, 8]),
            ("ffn_down_exps.weight", &[32, 64, 8]),
            ("ffn_up_shexp.weight", &[64, 32]),
        ],
    )
    .number("qwen3moe.expert_count", 8)
    .number("qwen3moe.expert_used_count", 2);
    let model = read(&writer);
    let layer = &model.layers[0];
    let experts = layer.experts.unwrap();
    assert_eq!((experts.count, experts.used), (8, 2));
    assert_eq!((experts.bytes_each, experts.params_each), (3 * 64 * 32 * 4, 3 * 64 * 32));
    assert_eq!(layer.trunk_bytes, 4 * (2 * 64 * 32 + 64 * 8 + 64 * 32));
    assert_eq!(layer.active_bytes(1), (layer.trunk_bytes + 2 * experts.bytes_each) as f64);
}

#[test]
fn experts_in_a_tensor_each_count_like_those_in_one() {
    let names: Vec<String> = ["gate", "up", "down"]
        .iter()
        .flat_map(|part| (0..4).map(move |e| format!("ffn_{part}.{e}.weight")))
        .collect();
    let tensors: Vec<(&str, &[u64])> =
        names.iter().map(|name| (name.as_str(), [64, 64].as_slice())).collect();
    let writer =
        one_layer("llama", &tensors).number("llama.expert_count", 4).number("llama.expert_used_count", 2);
    let experts = read(&writer).layers[0].experts.unwrap();
    assert_eq!((experts.count, experts.bytes_each), (4, 3 * 64 * 64 * 4));
}

#[test]
fn a_gate_that_picks_too_many_is_refused() {
    let writer = one_layer("llama", &[("ffn_up_exps.weight", &[64, 64, 4])]);
    let said = |count, used| {
        error(&writer.clone().number("llama.expert_count", count).number("llama.expert_used_count", used))
    };
    assert!(said(4, 5).contains("picks 5 of 4 experts"), "{}", said(4, 5));
    assert!(said(4, 0).contains("picks 0 of 4"), "{}", said(4, 0));
    assert!(said(8, 2).contains("holds 4 experts, but the model has 8"), "{}", said(8, 2));
}

#[test]
fn latent_attention_is_seen_by_its_tensors() {
    let model = read(&one_layer(
        "deepseek2",
        &[
            ("attn_kv_a_mqa.weight", &[64, 40]),
            ("attn_kv_a_norm.weight", &[32]),
            ("attn_k_b.weight", &[16, 32, 4]),
        ],
    ));
    assert_eq!(model.layers[0].attention, Attention::Latent);
    assert_eq!(model.layers[0].kv_bytes_per_token, 40 * 2);
    assert_eq!(model.layers[0].attention_flops_per_context, 2.0 * 4.0 * (40.0 + 32.0));
}

fn windows(writer: Writer) -> Vec<bool> {
    let model = read(&writer);
    model.layers.iter().map(|l| l.attention == Attention::Sliding { window: 128 }).collect()
}

fn four_layers(architecture: &str) -> Writer {
    let mut writer = Writer::new(architecture)
        .number(&format!("{architecture}.block_count"), 4)
        .number(&format!("{architecture}.embedding_length"), 64)
        .number(&format!("{architecture}.attention.head_count"), 4)
        .number(&format!("{architecture}.attention.sliding_window"), 128)
        .floats("token_embd.weight", &[64, 10]);
    for layer in 0..4 {
        writer = writer.floats(&format!("blk.{layer}.attn_k.weight"), &[64, 32]);
    }
    writer
}

#[test]
fn windows_follow_the_architecture_the_period_or_the_list() {
    assert_eq!(windows(four_layers("gpt-oss")), [true, false, true, false]);
    assert_eq!(windows(four_layers("qwen2")), [false; 4]);
    let period = four_layers("gemma3").number("gemma3.attention.sliding_window_pattern", 3);
    assert_eq!(windows(period), [true, true, false, true]);
    let list =
        four_layers("step").flags("step.attention.sliding_window_pattern", &[false, true, true, false]);
    assert_eq!(windows(list), [false, true, true, false]);
    let zero = four_layers("gemma3").number("gemma3.attention.sliding_window_pattern", 0);
    assert_eq!(windows(zero), [false; 4]);
}

#[test]
fn heads_may_be_given_for_each_layer() {
    let writer = Writer::new("decilm")
        .number("decilm.block_count", 2)
        .number("decilm.embedding_length", 64)
        .numbers("decilm.attention.head_count", &[4, 2])
        .numbers("decilm.attention.head_count_kv", &[2, 1])
        .floats("token_embd.weight", &[64, 10])
        .floats("blk.0.attn_k.weight", &[64, 32])
        .floats("blk.1.attn_k.weight", &[64, 16]);
    let model = read(&writer);
    assert_eq!((model.heads, model.kv_heads), (4, 2));
    assert_eq!(model.layers[0].attention_flops_per_context, 2.0 * 4.0 * 64.0 / 2.0);
    assert_eq!(model.layers[1].attention_flops_per_context, 2.0 * 2.0 * 32.0);
}

#[test]
fn recurrent_layers_are_seen_by_their_tensors() {
    let writer = one_layer("qwen35moe", &[("ssm_out.weight", &[64, 64]), ("attn_qkv.weight", &[64, 96])])
        .number("qwen35moe.ssm.inner_size", 64)
        .number("qwen35moe.ssm.state_size", 16)
        .number("qwen35moe.ssm.group_count", 2)
        .number("qwen35moe.ssm.conv_kernel", 4);
    let layer = read(&writer).layers[0];
    assert_eq!(layer.attention, Attention::Sliding { window: 1 });
    assert_eq!(layer.kv_bytes_per_token, 4 * (64 * 16 + 3 * (64 + 2 * 2 * 16)));
}

#[test]
fn blocks_that_only_predict_are_left_out() {
    let writer = small_llama().number("llama.nextn_predict_layers", 1);
    let model = read(&writer);
    assert_eq!(model.layer_count(), 1);
    assert_eq!(model.layers[0], read(&small_llama()).layers[0]);
}

#[test]
fn fused_attention_counts_by_the_heads() {
    let layer = read(&one_layer("phi3", &[("attn_qkv.weight", &[64, 192])])).layers[0];
    assert_eq!(layer.kv_bytes_per_token, 4 * (16 + 16) * 2);
}

#[test]
fn arrays_are_read_from_disk_when_asked_for() {
    let (_folder, path) = saved(&small_llama());
    let file = GgufFile::open(&path).unwrap();
    let tokens: Vec<Value> =
        file.array("tokenizer.ggml.tokens").unwrap().unwrap().collect::<Result<_, _>>().unwrap();
    let texts: Vec<&str> = tokens.iter().filter_map(Value::as_str).collect();
    assert_eq!(texts, ["<s>", "a", "b"]);
    assert!(file.array("no.such.key").unwrap().is_none());
    assert!(file.array("llama.block_count").unwrap().is_none());
}

#[test]
fn an_array_whose_file_was_changed_meanwhile_ends_with_an_error() {
    let (folder, path) = saved(&small_llama());
    let file = GgufFile::open(&path).unwrap();
    save(folder.path(), "model.gguf", b"GGUF", 4);
    let read: Vec<_> = file.array("tokenizer.ggml.tokens").unwrap().unwrap().collect();
    assert_eq!(read.len(), 1);
    assert!(read[0].as_ref().unwrap_err().to_string().contains("fetch it again"));
}

#[test]
fn without_a_file_type_the_commonest_type_names_the_quantisation() {
    let writer = Writer::new("llama")
        .number("llama.block_count", 1)
        .number("llama.embedding_length", 256)
        .tensor("token_embd.weight", &[256, 4], 12, 4 * 144)
        .tensor("blk.0.attn_q.weight", &[256, 256], 14, 256 * 210);
    let model = read(&writer);
    assert_eq!((model.quant.as_str(), model.name.as_str()), ("Q6_K", "model Q6_K"));
    assert_eq!(model.layers[0].trunk_bytes, 256 * 210);
}

#[test]
fn names_lose_control_characters() {
    let writer = one_layer("llama", &[("attn_norm.weight", &[64])]).text("general.name", "a\u{1b}[31mb\n");
    assert_eq!(read(&writer).name, "a[31mb F32");
}

#[test]
fn what_is_missing_is_named() {
    let said = error(&Writer::new("llama").number("llama.block_count", 1));
    assert!(said.contains("has no `llama.embedding_length`"), "{said}");
    let said = error(&Writer::new("llama").text("llama.block_count", "two"));
    assert!(said.contains("`llama.block_count` is `two`, expected a whole number"), "{said}");
    let said = error(&one_layer("clip", &[]).number("clip.nextn_predict_layers", 7));
    assert!(said.contains("0 layers"), "{said}");
    let said =
        error(&one_layer("llama", &[("attn_norm.weight", &[64])]).floats("blk.7.attn_norm.weight", &[64]));
    assert!(said.contains("belongs to layer 7, but the model has 1 layers"), "{said}");
    let said = error(&one_layer("llama", &[]));
    assert!(said.contains("layer 0 of 1 has no tensors"), "{said}");
    let mut empty = Writer::new("llama").number("llama.block_count", 1).number("llama.embedding_length", 64);
    empty = empty.raw("llama.big", kind::U64, &u64::MAX.to_le_bytes()).raw("llama.x", kind::U8, &[1]);
    let said = error(&empty);
    assert!(said.contains("no tensor `token_embd.weight`"), "{said}");
}
