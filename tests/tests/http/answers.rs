//! What requests may say about their answers, and that it is heeded.

use serde_json::{Value, json};

use crate::client::post;
use crate::house::{CONTEXT, MODEL, address, house};

/// A greedy completion with `more` fields.
#[track_caller]
fn completion(more: Value) -> Value {
    let mut body = json!({"model": MODEL, "prompt": "The days of the week are Monday,", "max_tokens": 16, "temperature": 0});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    post(address(), "/v1/completions", &body).ok()
}

fn text(reply: &Value) -> &str {
    reply["choices"][0]["text"].as_str().unwrap()
}

#[test]
fn a_stop_string_ends_an_answer_in_front_of_it_wherever_tokens_cut_it() {
    let whole = completion(json!({}));
    let whole = text(&whole);
    let characters: Vec<char> = whole.chars().collect();
    for (from, to) in [(3, 4), (5, 9), (8, 20), (1, 30)] {
        let stop: String = characters[from..to.min(characters.len())].iter().collect();
        let reply = completion(json!({"stop": ["never said", stop]}));
        assert_eq!(text(&reply), &whole[..whole.find(&stop).unwrap()], "{stop:?}");
        assert_eq!(reply["choices"][0]["finish_reason"], "stop");
    }
    let reply = completion(json!({"stop": "never said"}));
    assert_eq!((text(&reply), &reply["choices"][0]["finish_reason"]), (whole, &json!("length")));
}

#[test]
fn the_nth_choice_is_the_answer_to_the_nth_seed() {
    let asked = |seed: i64, n: u32| completion(json!({"temperature": 1.3, "seed": seed, "n": n}));
    let three = asked(40, 3);
    let three: Vec<&Value> =
        three["choices"].as_array().unwrap().iter().map(|choice| &choice["text"]).collect();
    for (i, choice) in three.iter().enumerate() {
        assert_eq!(asked(40 + i as i64, 1)["choices"][0]["text"], **choice);
    }
    assert!(three[0] != three[1] && three[1] != three[2], "{three:?}");
    let drawn = |_| text(&completion(json!({"temperature": 1.5}))).to_owned();
    let [one, two] = [0, 1].map(drawn);
    assert_ne!(one, two, "without a seed each answer is another");
}

#[test]
fn several_prompts_and_tokens_are_answered_in_order() {
    let words = ["One, two,", "Paris is the capital of"];
    let tokens = |text: &str| -> Vec<u32> {
        house().served.tokenizer.encode(text, true, true).iter().map(|token| token.0).collect()
    };
    let by_text = completion(json!({"prompt": words}));
    let by_tokens = completion(json!({"prompt": words.map(tokens)}));
    assert_eq!(by_text["choices"], by_tokens["choices"]);
    assert_eq!(by_text["usage"], by_tokens["usage"]);
    for (i, word) in words.iter().enumerate() {
        let alone = completion(json!({"prompt": word}));
        assert_eq!(alone["choices"][0]["text"], by_text["choices"][i]["text"]);
        assert_eq!(by_text["choices"][i]["index"], i);
    }
    assert_eq!(completion(json!({"prompt": tokens(words[0])}))["choices"][0], by_text["choices"][0]);
}

#[test]
fn a_bias_forces_and_forbids_tokens() {
    let token = house().served.tokenizer.encode(" blue", false, false)[0].0.to_string();
    let forced = completion(json!({"logit_bias": {&token: 100}, "max_tokens": 3}));
    assert_eq!(text(&forced), " blue blue blue");
    let first = completion(json!({"max_tokens": 1, "logprobs": 1}));
    let first = first["choices"][0]["logprobs"]["tokens"][0].as_str().unwrap().to_owned();
    let token = house().served.tokenizer.encode(&first, false, false)[0].0.to_string();
    assert_ne!(text(&completion(json!({"logit_bias": {token: -100}, "max_tokens": 1}))), first);
}

#[test]
fn penalties_and_candidates_change_what_is_chosen() {
    let plain = completion(json!({"prompt": "a a a a a a a a", "max_tokens": 12}));
    for more in [
        json!({"frequency_penalty": 2.0}),
        json!({"repeat_penalty": 1.8}),
        json!({"repetition_penalty": 1.8}),
    ] {
        let mut more = more;
        more["prompt"] = "a a a a a a a a".into();
        more["max_tokens"] = 12.into();
        assert_ne!(text(&completion(more.clone())), text(&plain), "{more}");
    }
    let greedy = completion(json!({}));
    for more in [json!({"top_k": 1}), json!({"top_p": 0}), json!({"min_p": 1})] {
        let mut more = more;
        more["temperature"] = 2.into();
        assert_eq!(text(&completion(more.clone())), text(&greedy), "{more}: only the likeliest is left");
    }
}

#[test]
fn the_model_ends_an_answer_and_the_context_bounds_it() {
    let messages = json!([{"role": "user", "content": "Answer with the single word: yes"}]);
    let body = json!({"model": MODEL, "messages": messages, "temperature": 0});
    let reply = post(address(), "/v1/chat/completions", &body).ok();
    assert_eq!(reply["choices"][0]["finish_reason"], "stop", "{reply}");
    assert!(!reply.to_string().contains("<|im_end|>"));
    // More than the context has room for is as much as it has room for.
    let long = "word ".repeat(CONTEXT as usize - 20);
    let reply = completion(json!({"prompt": long, "max_tokens": 100_000}));
    assert_eq!(reply["usage"]["total_tokens"], CONTEXT);
    assert_eq!(reply["choices"][0]["finish_reason"], "length");
}

#[test]
fn tools_reach_the_template_and_answers_to_them_are_taken() {
    let call = json!({"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{\"zone\": \"CET\"}"}});
    let messages = json!([
        {"role": "user", "content": "What time is it?"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "12:00"},
    ]);
    let tool = json!({"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}});
    let body = json!({"model": MODEL, "messages": messages, "tools": [tool], "tool_choice": "auto", "max_tokens": 4});
    post(address(), "/v1/chat/completions", &body).ok();
}
