//! The tensors that the GGUF of a catalog model has, from its widths.

use super::data::{AttentionEntry, Bias, Entry, ExpertsEntry, LatentEntry, QueryKeyNorm, RecurrentEntry};
use super::mix::Role;

/// One tensor, before it is given a type.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor {
    /// llama.cpp's name.
    pub(super) name: String,
    /// Dimensions, fastest first.
    pub(super) dims: Vec<u64>,
    /// What for.
    pub(super) role: Role,
    /// Its layer; 0 outside of layers.
    pub(super) layer: u32,
    /// Whether it holds all experts of a layer.
    pub(super) expert: bool,
}

/// All tensors of `entry`, layer by layer.
pub(super) fn tensors(entry: &Entry) -> Vec<Tensor> {
    let (hidden, vocab) = (entry.hidden.into(), entry.vocab.into());
    let mut list = List { tensors: Vec::new(), layer: None };
    list.push("token_embd.weight", [hidden, vocab], Role::Embedding);
    for layer in 0..entry.layers {
        list.layer = Some(layer);
        list.push_layer(entry, layer);
    }
    list.layer = None;
    list.plain("output_norm.weight", [hidden]);
    if !entry.tied {
        list.push("output.weight", [hidden, vocab], Role::Output);
    }
    list.tensors
}

/// Whether layer `layer` of `entry` is recurrent.
fn is_recurrent(recurrent: &RecurrentEntry, layer: u32) -> bool {
    !(layer + 1).is_multiple_of(recurrent.period)
}

struct List {
    tensors: Vec<Tensor>,
    layer: Option<u32>,
}

impl List {
    fn push<const N: usize>(&mut self, part: &str, dims: [u64; N], role: Role) {
        let name = match self.layer {
            Some(layer) => format!("blk.{layer}.{part}"),
            None => part.into(),
        };
        let expert = part.contains("_exps.");
        self.tensors.push(Tensor { name, dims: dims.into(), role, layer: self.layer.unwrap_or(0), expert });
    }

    fn plain<const N: usize>(&mut self, part: &str, dims: [u64; N]) {
        self.push(part, dims, Role::Plain);
    }

    fn push_layer(&mut self, entry: &Entry, layer: u32) {
        let hidden = u64::from(entry.hidden);
        self.plain("attn_norm.weight", [hidden]);
        match (&entry.attention.latent, &entry.attention.recurrent) {
            (Some(latent), _) => self.push_latent(&entry.attention, latent, hidden),
            (None, Some(recurrent)) if is_recurrent(recurrent, layer) => {
                self.push_recurrent(recurrent, hidden)
            }
            _ => self.push_grouped(&entry.attention, hidden),
        }
        self.plain("ffn_norm.weight", [hidden]);
        if entry.post_norms {
            self.plain("post_attention_norm.weight", [hidden]);
            self.plain("post_ffw_norm.weight", [hidden]);
        }
        match &entry.experts {
            Some(experts) if layer >= experts.dense_layers => self.push_experts(experts, hidden),
            _ => self.push_feed_forward("", entry.feed_forward.unwrap_or(0).into(), hidden),
        }
    }

    fn push_grouped(&mut self, attention: &AttentionEntry, hidden: u64) {
        let head = u64::from(attention.head);
        let (heads, kv_heads) = (u64::from(attention.heads), u64::from(attention.kv_heads));
        let (query, kv) = (heads * head, kv_heads * head);
        let gate = if attention.gated { query } else { 0 };
        self.push("attn_q.weight", [hidden, query + gate], Role::Query);
        self.push("attn_k.weight", [hidden, kv], Role::Key);
        self.push("attn_v.weight", [hidden, kv], Role::Value);
        self.push("attn_output.weight", [query, hidden], Role::AttentionOutput);
        if attention.bias != Bias::None {
            self.plain("attn_q.bias", [query]);
            self.plain("attn_k.bias", [kv]);
            self.plain("attn_v.bias", [kv]);
        }
        if attention.bias == Bias::All {
            self.plain("attn_output.bias", [hidden]);
        }
        let normed = match attention.query_key_norm {
            QueryKeyNorm::None => None,
            QueryKeyNorm::Head => Some((head, head)),
            QueryKeyNorm::Full => Some((query, kv)),
        };
        if let Some((of_query, of_key)) = normed {
            self.plain("attn_q_norm.weight", [of_query]);
            self.plain("attn_k_norm.weight", [of_key]);
        }
        if attention.sinks {
            self.plain("attn_sinks.weight", [heads]);
        }
    }

    fn push_latent(&mut self, attention: &AttentionEntry, latent: &LatentEntry, hidden: u64) {
        let heads = u64::from(attention.heads);
        let (query_rank, kv_rank) = (u64::from(latent.query_rank), u64::from(latent.kv_rank));
        let (nope, rope, value) = (u64::from(latent.nope), u64::from(latent.rope), u64::from(latent.value));
        self.push("attn_q_a.weight", [hidden, query_rank], Role::Other);
        self.plain("attn_q_a_norm.weight", [query_rank]);
        self.push("attn_q_b.weight", [query_rank, heads * (nope + rope)], Role::Other);
        self.push("attn_kv_a_mqa.weight", [hidden, kv_rank + rope], Role::Other);
        self.plain("attn_kv_a_norm.weight", [kv_rank]);
        self.push("attn_k_b.weight", [nope, kv_rank, heads], Role::Other);
        self.push("attn_v_b.weight", [kv_rank, value, heads], Role::Other);
        self.push("attn_output.weight", [heads * value, hidden], Role::AttentionOutput);
        if let Some(index) = &latent.index {
            let (heads, head) = (u64::from(index.heads), u64::from(index.head));
            self.push("indexer.attn_q_b.weight", [query_rank, heads * head], Role::Other);
            self.push("indexer.attn_k.weight", [hidden, head], Role::Key);
            self.plain("indexer.k_norm.weight", [head]);
            self.push("indexer.proj.weight", [hidden, heads], Role::Other);
        }
    }

    fn push_recurrent(&mut self, recurrent: &RecurrentEntry, hidden: u64) {
        let value_heads = u64::from(recurrent.value_heads);
        let keys = u64::from(recurrent.key_heads) * u64::from(recurrent.key);
        let values = value_heads * u64::from(recurrent.value);
        self.push("attn_qkv.weight", [hidden, 2 * keys + values], Role::QueryKeyValue);
        self.push("attn_gate.weight", [hidden, values], Role::Other);
        self.plain("ssm_conv1d.weight", [recurrent.convolution.into(), 2 * keys + values]);
        self.plain("ssm_a", [value_heads]);
        self.plain("ssm_dt.bias", [value_heads]);
        self.push("ssm_alpha.weight", [hidden, value_heads], Role::Other);
        self.push("ssm_beta.weight", [hidden, value_heads], Role::Other);
        self.plain("ssm_norm.weight", [recurrent.value.into()]);
        self.push("ssm_out.weight", [values, hidden], Role::Other);
    }

    fn push_feed_forward(&mut self, suffix: &str, width: u64, hidden: u64) {
        self.push(&format!("ffn_gate{suffix}.weight"), [hidden, width], Role::FeedForward);
        self.push(&format!("ffn_up{suffix}.weight"), [hidden, width], Role::FeedForward);
        self.push(&format!("ffn_down{suffix}.weight"), [width, hidden], Role::FeedForwardDown);
    }

    fn push_experts(&mut self, experts: &ExpertsEntry, hidden: u64) {
        let (count, width) = (u64::from(experts.count), u64::from(experts.width));
        self.plain("ffn_gate_inp.weight", [hidden, count]);
        self.push("ffn_gate_exps.weight", [hidden, width, count], Role::FeedForward);
        self.push("ffn_up_exps.weight", [hidden, width, count], Role::FeedForward);
        self.push("ffn_down_exps.weight", [width, hidden, count], Role::FeedForwardDown);
        if experts.bias {
            self.plain("ffn_gate_inp.bias", [count]);
            self.plain("ffn_gate_exps.bias", [width, count]);
            self.plain("ffn_up_exps.bias", [width, count]);
            self.plain("ffn_down_exps.bias", [hidden, count]);
        }
        if experts.score_bias {
            self.plain("exp_probs_b.bias", [count]);
        }
        if experts.shared_width > 0 {
            self.push_feed_forward("_shexp", experts.shared_width.into(), hidden);
        }
        if experts.shared_gate {
            self.plain("ffn_gate_inp_shexp.weight", [hidden]);
        }
    }
}
