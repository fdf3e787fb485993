//! Which model answers: named, chosen by the mesh, or on somebody's disk and not served.

use serde_json::json;

use super::client::post;
use super::house::{MODEL, UNSERVED, address};

#[test]
fn the_mesh_chooses_where_the_client_leaves_it_to() {
    let body = json!({"model": "auto", "prompt": "Hi", "max_tokens": 3});
    let answer = post(address(), "/v1/completions", &body).ok();
    assert_eq!(answer["model"], MODEL);
    let chat = json!({"model": "auto", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3});
    assert_eq!(post(address(), "/v1/chat/completions", &chat).ok()["model"], MODEL);
    let long = json!({"model": "auto", "prompt": "Hi ".repeat(5_000), "max_tokens": 3});
    let refused = post(address(), "/v1/completions", &long);
    assert_eq!(refused.status, 503);
    assert_eq!(refused.error()["code"], "model_not_served");
}

#[test]
fn a_model_that_nobody_serves_yet_is_asked_for_again_later() {
    let refused = post(address(), "/v1/completions", &json!({"model": UNSERVED, "prompt": "Hi"}));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("7")));
    let error = refused.error();
    assert_eq!((&error["code"], &error["param"]), (&json!("model_not_served"), &json!("model")));
    assert!(error["message"].as_str().unwrap().contains("on the disk of a friend"), "{error}");
    let unknown = post(address(), "/v1/completions", &json!({"model": "nowhere", "prompt": "Hi"}));
    assert_eq!((unknown.status, &unknown.error()["code"]), (404, &json!("model_not_found")));
}
