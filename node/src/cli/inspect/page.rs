//! The facts for people: a page that fits on a screen, and lists where they are asked for.

use std::fmt::Write as _;

use planner::units::fmt_bytes;

use super::facts::{Facts, ModelFacts, TokenizerFacts};
use crate::cli::figures::{count, plural, short};

/// Width of the names on the left.
const NAMES: usize = 15;

/// The whole page.
pub(super) fn text(facts: &Facts) -> String {
    let mut page = Page(format!("{}\n\n", facts.name));
    page.files(facts);
    if let Some(model) = &facts.model {
        page.model(model);
    }
    page.types(facts);
    if let Some(tokenizer) = &facts.tokenizer {
        page.tokenizer(tokenizer);
    }
    if let Some(template) = &facts.template {
        let size = if template.bytes > 0 {
            format!("{}, ", fmt_bytes(template.bytes as u64))
        } else {
            String::new()
        };
        let origin = if template.origin == "file" { "in the file" } else { &template.origin };
        page.line("chat template", &format!("{size}{origin}"));
    }
    for problem in &facts.problems {
        page.line("cannot be used", problem);
    }
    page.lists(facts);
    page.0
}

struct Page(String);

impl Page {
    fn line(&mut self, name: &str, value: &str) {
        writeln!(self.0, "  {name:<NAMES$} {value}").expect("writing to text never fails");
    }

    fn files(&mut self, facts: &Facts) {
        for file in &facts.files {
            self.line(
                "file",
                &format!("{} ({}, GGUF {})", file.path, fmt_bytes(file.bytes), facts.gguf_version),
            );
        }
        if let Some(license) = &facts.license {
            self.line("license", license);
        }
    }

    fn model(&mut self, model: &ModelFacts) {
        let heads = format!("{}, {} for keys and values", plural(model.heads.into(), "head"), model.kv_heads);
        self.line(
            "architecture",
            &format!("{}, {} wide, {heads}", model.architecture, count(model.hidden.into())),
        );
        self.line(
            "parameters",
            &format!("{} in {}", short(model.parameters), plural(model.layers.into(), "layer")),
        );
        if let Some([all, used]) = model.experts {
            self.line("experts", &format!("{all} a layer, of which a token passes {used}"));
        }
        self.line("layers", &format!("{} each", fmt_bytes(model.layer_bytes)));
        let head = if model.tied {
            "which is the head too".into()
        } else {
            format!("head {}", fmt_bytes(model.head_bytes))
        };
        self.line("embedding", &format!("{}, {head}", fmt_bytes(model.embedding_bytes)));
        self.line("each token", &format!("reads {} of weights", fmt_bytes(model.active_bytes)));
        self.context(model);
    }

    fn context(&mut self, model: &ModelFacts) {
        let per_token = format!("{} of keys and values for each in f16", fmt_bytes(model.kv_bytes_per_token));
        let context = match model.context {
            0 => format!("not said; {per_token}"),
            context => format!("{}; {per_token}", plural(context.into(), "token")),
        };
        self.line("context", &context);
        if let Some([layers, window]) = model.sliding {
            self.line(
                "",
                &format!(
                    "{} look back over {} only",
                    plural(layers.into(), "layer"),
                    plural(window.into(), "token")
                ),
            );
        }
    }

    fn types(&mut self, facts: &Facts) {
        let name = facts.model.as_ref().map_or("", |model| model.quantisation.as_str());
        self.line(
            "quantisation",
            &format!(
                "{name}: {} in {}",
                fmt_bytes(facts.tensor_bytes),
                plural(facts.tensor_count as u64, "tensor")
            ),
        );
        for kind in &facts.types {
            let share = 100.0 * kind.bytes as f64 / facts.tensor_bytes.max(1) as f64;
            let tensors = plural(kind.tensors as u64, "tensor");
            self.line(
                "",
                &format!("{:<7} {share:>5.1} %  {:>9} in {tensors}", kind.name, fmt_bytes(kind.bytes)),
            );
        }
    }

    fn tokenizer(&mut self, tokenizer: &TokenizerFacts) {
        self.line("tokenizer", &format!("{}, {}", tokenizer.kind, plural(tokenizer.tokens as u64, "token")));
        if let Some(bos) = tokenizer.bos.as_ref().filter(|_| tokenizer.adds_bos) {
            self.line("", &format!("begins texts with {bos}"));
        }
        self.line("", &format!("ends answers at {}", tokenizer.ends.join(" ")));
    }

    fn lists(&mut self, facts: &Facts) {
        for layer in facts.layers.iter().flatten() {
            let name = format!("layer {}", layer.layer);
            let kv = fmt_bytes(layer.kv_bytes_per_token);
            self.line(
                &name,
                &format!(
                    "{:>9}  {:>9}  KV {kv} a token, {}",
                    fmt_bytes(layer.bytes),
                    short(layer.parameters),
                    layer.attention
                ),
            );
        }
        if let Some(metadata) = &facts.metadata {
            self.0.push('\n');
            metadata.iter().for_each(|(key, value)| self.wide(key, value));
        }
        if let Some(tensors) = &facts.tensors {
            self.0.push('\n');
            for tensor in tensors {
                let dims: Vec<String> = tensor.dims.iter().map(u64::to_string).collect();
                let place = format!("part {}, byte {}", tensor.part + 1, tensor.at);
                self.wide(
                    &tensor.name,
                    &format!(
                        "{:<6} {:>9}  [{}]  {place}",
                        tensor.kind,
                        fmt_bytes(tensor.bytes),
                        dims.join(", ")
                    ),
                );
            }
        }
    }

    fn wide(&mut self, name: &str, value: &str) {
        writeln!(self.0, "  {name:<40} {value}").expect("writing to text never fails");
    }
}
