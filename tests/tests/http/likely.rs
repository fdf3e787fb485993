//! Log-probabilities: they belong to the text, and add up.

use serde_json::{Value, json};

use crate::client::post;
use crate::house::{MODEL, address};

#[test]
fn of_a_chat_they_spell_the_text_and_the_greedy_choice_is_the_likeliest() {
    let messages = json!([{"role": "user", "content": "Write one line with the words café, 日本 and 🦀."}]);
    let body = json!({
        "model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 40, "logprobs": true, "top_logprobs": 20,
    });
    let reply = post(address(), "/v1/chat/completions", &body).ok();
    let choice = &reply["choices"][0];
    let words = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(words.len() as u64, reply["usage"]["completion_tokens"].as_u64().unwrap());
    let byte = |byte: &Value| byte.as_u64().unwrap() as u8;
    let bytes: Vec<u8> =
        words.iter().flat_map(|word| word["bytes"].as_array().unwrap().iter().map(byte)).collect();
    assert_eq!(String::from_utf8_lossy(&bytes), choice["message"]["content"].as_str().unwrap());
    for word in words {
        let top = word["top_logprobs"].as_array().unwrap();
        let logprob = |value: &Value| value["logprob"].as_f64().unwrap();
        assert_eq!(top.len(), 20);
        assert_eq!((&top[0]["token"], logprob(&top[0])), (&word["token"], logprob(word)), "greedy");
        assert!(top.windows(2).all(|pair| logprob(&pair[0]) >= logprob(&pair[1])));
        let sum: f64 = top.iter().map(|value| logprob(value).exp()).sum();
        assert!(sum > 0.05 && sum <= 1.0 + 1e-4, "{sum}");
    }
}

#[test]
fn of_a_completion_they_say_where_in_the_text_each_token_begins() {
    let body = json!({"model": MODEL, "prompt": "Once upon a time", "temperature": 0, "max_tokens": 12, "logprobs": 3});
    let reply = post(address(), "/v1/completions", &body).ok();
    let choice = &reply["choices"][0];
    let text = choice["text"].as_str().unwrap();
    let of = |field: &str| choice["logprobs"][field].as_array().unwrap().clone();
    let (tokens, offsets) = (of("tokens"), of("text_offset"));
    assert_eq!((tokens.len(), of("token_logprobs").len(), of("top_logprobs").len()), (12, 12, 12));
    for (token, offset) in tokens.iter().zip(&offsets) {
        let token = token.as_str().unwrap();
        let rest: String = text.chars().skip(offset.as_u64().unwrap() as usize).collect();
        assert!(rest.starts_with(token), "{token:?} in {rest:?}");
    }
    let top: Vec<usize> = of("top_logprobs").iter().map(|top| top.as_object().unwrap().len()).collect();
    assert!(top.iter().all(|count| *count == 3), "{top:?}");
}

#[test]
fn they_end_where_a_stop_string_ends_the_text() {
    let messages = json!([{"role": "user", "content": "Count from 1 to 9."}]);
    let body = |stop: Value| json!({"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 30, "logprobs": true, "stop": stop});
    let whole = post(address(), "/v1/chat/completions", &body(json!(null))).ok();
    let whole = whole["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let middle: String = whole.chars().skip(6).take(3).collect();
    let reply = post(address(), "/v1/chat/completions", &body(json!(middle))).ok();
    let choice = &reply["choices"][0];
    let text = choice["message"]["content"].as_str().unwrap();
    let words = choice["logprobs"]["content"].as_array().unwrap();
    let spelt: String = words.iter().map(|word| word["token"].as_str().unwrap()).collect();
    assert!(spelt.starts_with(text), "{spelt:?} begins with {text:?}");
    let last = words.last().map_or(0, |word| word["token"].as_str().unwrap().len());
    assert!(spelt.len() - last < text.len().max(1), "{spelt:?} has a token too many for {text:?}");
}
