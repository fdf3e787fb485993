//! How tokens are chosen, as OpenAI's fields say it, and those that llama.cpp and vLLM added.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::http::desk::Served;
use crate::http::fault::Fault;
use crate::http::fields::{Fields, integer, kind};
use crate::http::resume::Origin;
use crate::ids::Token;
use crate::sampling::{BIASES_MAX, Penalties, Rules, Sampling, WINDOW_MAX};

/// The least `top_p`: 0 stands for the likeliest token alone, which the sampler writes as a tiny share.
const TOP_P_MIN: f32 = 1e-6;

/// `chances`: how many log-probabilities are told, if any.
pub(super) fn read(
    fields: &mut Fields,
    served: &Served,
    chances: Option<u8>,
    origin: &Origin,
) -> Result<Sampling, Fault> {
    let temperature = fields.number("temperature", 0.0..=2.0)?.unwrap_or(1.0);
    let rules = Rules {
        top_k: top_k(fields)?,
        top_p: fields.number("top_p", 0.0..=1.0)?.map_or(1.0, |share| share.max(TOP_P_MIN)),
        min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(0.0),
        penalties: penalties(fields)?,
        biases: biases(fields, served)?,
        chances,
    };
    let seed = seed(fields)?.unwrap_or_else(|| origin.seed());
    let sampling = Sampling::drawn(temperature, seed);
    let sampling = if rules == Rules::default() { sampling } else { sampling.with(rules) };
    sampling.check().map_err(|why| Fault::field(why.field, format!("must be {}", why.expected)))?;
    Ok(sampling)
}

/// 0 and -1 stand for all, as in llama.cpp and vLLM.
fn top_k(fields: &mut Fields) -> Result<u32, Fault> {
    let Some(value) = fields.take("top_k") else { return Ok(0) };
    let number = integer(&value)
        .ok_or_else(|| Fault::field("top_k", format!("must be a whole number, and is {}", kind(&value))))?;
    Ok(u32::try_from(number.max(0)).unwrap_or(0))
}

/// Any whole number, a negative one too.
fn seed(fields: &mut Fields) -> Result<Option<u64>, Fault> {
    let Some(value) = fields.take("seed") else { return Ok(None) };
    let number = integer(&value);
    let number = number
        .ok_or_else(|| Fault::field("seed", format!("must be a whole number, and is {}", kind(&value))))?;
    Ok(Some(number as u64))
}

fn penalties(fields: &mut Fields) -> Result<Option<Penalties>, Fault> {
    let presence = fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0);
    let frequency = fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0);
    // llama.cpp's name, then vLLM's.
    let ours = fields.number("repeat_penalty", 0.01..=100.0)?;
    let theirs = fields.number("repetition_penalty", 0.01..=100.0)?;
    let repeat = ours.or(theirs).unwrap_or(1.0);
    let window = fields.whole("repeat_last_n", 0..=WINDOW_MAX as u32)?.unwrap_or(WINDOW_MAX as u32);
    let changes = presence != 0.0 || frequency != 0.0 || repeat != 1.0;
    Ok((changes && window > 0).then_some(Penalties { window, repeat, presence, frequency }))
}

fn biases(fields: &mut Fields, served: &Served) -> Result<Vec<(Token, f32)>, Fault> {
    let Some(map) = fields.object("logit_bias")? else { return Ok(Vec::new()) };
    let vocabulary = served.tokenizer.len();
    let mut biases = BTreeMap::new();
    for (key, value) in map.rest() {
        let name = || format!("logit_bias.{}", key.chars().take(32).collect::<String>());
        let token = key.parse::<u32>().ok().filter(|token| (*token as usize) < vocabulary);
        let token = token.ok_or_else(|| {
            Fault::field(name(), format!("is no token: this model's are 0 to {}", vocabulary - 1))
        })?;
        let bias = value.as_f64().filter(|bias| (-100.0..=100.0).contains(bias));
        let wrong = |value: &Value| Fault::field(name(), format!("must be from -100 to 100, and is {value}"));
        biases.insert(token, bias.ok_or_else(|| wrong(&value))? as f32);
    }
    if biases.len() > BIASES_MAX {
        return Err(Fault::field("logit_bias", format!("may have {BIASES_MAX} tokens at most")));
    }
    Ok(biases.into_iter().map(|(token, bias)| (Token(token), bias)).collect())
}
