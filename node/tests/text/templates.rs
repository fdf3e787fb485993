//! Conversations into prompts, as `transformers` renders them (`tests/scripts/golden-templates.py`).

use std::collections::BTreeMap;
use std::path::Path;

use node::real::text::{Chat, ChatTemplate, Message, Origin, TemplateError, TemplateValue, Tokenizer};
use serde::Deserialize;

use crate::vocabularies::{bpe, spm, tokenizer};
use crate::writer::Writer;

/// A conversation of `chats.json`.
#[derive(Debug, Deserialize)]
struct Conversation {
    messages: Vec<Message>,
    tools: Option<TemplateValue>,
    #[serde(default = "yes")]
    add_generation_prompt: bool,
    #[serde(default)]
    variables: BTreeMap<String, TemplateValue>,
}

fn yes() -> bool {
    true
}

/// What `transformers` made of it.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Rendered {
    Text(String),
    Refused(String),
    Failed(String),
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/templates"))
}

fn own() -> Tokenizer {
    tokenizer(&bpe("smollm"))
}

fn rendered(template: &ChatTemplate, conversation: &Conversation) -> Rendered {
    let chat = Chat {
        messages: &conversation.messages,
        tools: conversation.tools.as_ref(),
        add_generation_prompt: conversation.add_generation_prompt,
        now: Some(jiff::civil::date(2026, 3, 5).at(14, 7, 9, 0)),
        variables: conversation.variables.clone(),
    };
    match template.render(&chat) {
        Ok(text) => Rendered::Text(text),
        Err(TemplateError::Refused(words)) => Rendered::Refused(words),
        Err(error) => Rendered::Failed(error.to_string()),
    }
}

/// Renders all conversations by all templates of a folder, and says where the results are not those expected.
fn differences(
    templates: &[(String, String)],
    expected: &BTreeMap<String, BTreeMap<String, Rendered>>,
) -> Vec<String> {
    let chats: BTreeMap<String, Conversation> =
        serde_json::from_str(&read(&folder().join("chats.json"))).unwrap();
    let tokenizer = own();
    let mut found = Vec::new();
    for (name, source) in templates {
        let template = match ChatTemplate::from_text(source, &tokenizer) {
            Ok(template) => template,
            Err(error) => {
                found.push(format!("{name}: {error}"));
                continue;
            }
        };
        for (chat, conversation) in &chats {
            let (got, want) = (rendered(&template, conversation), &expected[name][chat]);
            // Where Python fails, what its error says is Python's.
            let both_fail = matches!((&got, want), (Rendered::Failed(_), Rendered::Failed(_)));
            if !both_fail && got != *want {
                found.push(format!("{name}, {chat}:\n  got  {got:?}\n  want {want:?}"));
            }
        }
    }
    found
}

fn templates(folder: &Path) -> Vec<(String, String)> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let jinja = files.filter(|path| path.extension().is_some_and(|e| e == "jinja"));
    jinja.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), read(&path))).collect()
}

#[test]
fn prompts_are_those_of_transformers() {
    let expected = serde_json::from_str(&read(&folder().join("rendered.json"))).unwrap();
    let mut all = templates(folder());
    all.extend(templates(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/real/text"))));
    assert_eq!(all.len(), 7);
    let found = differences(&all, &expected);
    assert!(found.is_empty(), "{} differ\n{}", found.len(), found.join("\n"));
}

fn hello() -> Vec<Message> {
    vec![Message::new("user", "Hello")]
}

fn error(source: &str) -> TemplateError {
    match ChatTemplate::from_text(source, &own()) {
        Ok(template) => template.render(&Chat::new(&hello())).unwrap_err(),
        Err(error) => error,
    }
}

#[test]
fn the_file_brings_its_own_template() {
    let file = bpe("smollm")
        .text("tokenizer.chat_template", "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}")
        .write();
    let template = ChatTemplate::from_gguf(&file.open(), &own()).unwrap();
    assert_eq!(template.origin(), Origin::File);
    assert_eq!(template.render(&Chat::new(&hello())).unwrap(), "<|endoftext|>Hello<|im_end|>");
}

fn fallback(writer: &Writer) -> (Origin, String, usize) {
    let written = writer.write();
    let file = written.open();
    let template = ChatTemplate::from_gguf(&file, &Tokenizer::from_gguf(&file).unwrap()).unwrap();
    let messages = [Message::new("system", "Be kind."), hello().remove(0)];
    (template.origin(), template.render(&Chat::new(&messages)).unwrap(), template.stops().len())
}

fn letters(more: &[&str]) -> Writer {
    let tokens: Vec<String> = ["a", "b"].iter().chain(more).map(|text| (*text).to_owned()).collect();
    Writer::new()
        .text("tokenizer.ggml.model", "gpt2")
        .texts("tokenizer.ggml.tokens", &tokens)
        .texts("tokenizer.ggml.merges", &[])
}

#[test]
fn without_a_template_the_vocabulary_suggests_one() {
    let chatml =
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(fallback(&bpe("smollm")), (Origin::Fallback("ChatML"), chatml.into(), 1));
    assert_eq!(fallback(&spm(true)).0, Origin::Fallback("ChatML"));
    let gemma = "<start_of_turn>user\nBe kind.\n\nHello<end_of_turn>\n<start_of_turn>model\n";
    assert_eq!(fallback(&letters(&["<start_of_turn>"])), (Origin::Fallback("Gemma"), gemma.into(), 1));
    let llama = "<|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHello\
        <|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n";
    assert_eq!(fallback(&letters(&["<|start_header_id|>"])), (Origin::Fallback("Llama 3"), llama.into(), 1));
    let plain = "Be kind.\n\nUser: Hello\n\nAssistant:";
    assert_eq!(fallback(&letters(&[])), (Origin::Fallback("plain dialogue"), plain.into(), 3));
}

#[test]
fn a_template_refuses_in_its_own_words() {
    let refused = error("{% macro m() %}{{ raise_exception('No tools here.') }}{% endmacro %}{{ m() }}");
    assert_eq!(refused, TemplateError::Refused("No tools here.".into()));
}

#[test]
fn a_template_that_is_no_jinja_is_refused_with_its_line() {
    assert!(
        matches!(error("a\n{% if %}"), TemplateError::Syntax { line: 2, .. }),
        "{:?}",
        error("a\n{% if %}")
    );
    let file = bpe("smollm").text("tokenizer.chat_template", "{% for %}").write();
    let text = ChatTemplate::from_gguf(&file.open(), &own()).unwrap_err().to_string();
    assert!(text.contains("`tokenizer.chat_template`") && text.contains("line 1"), "{text}");
}

#[test]
fn what_fails_says_where() {
    assert!(matches!(error("\n\n{{ messages[0].nothing.more }}"), TemplateError::Failed { line: 3, .. }));
    assert!(matches!(error("{{ strftime_now('%Y') }}"), TemplateError::Failed { .. }), "no date was given");
}

#[test]
fn hostile_templates_end() {
    let bounded = |source: &str| match error(source) {
        TemplateError::Syntax { .. } | TemplateError::TooMuch { .. } | TemplateError::Failed { .. } => {}
        other => panic!("{source}: {other:?}"),
    };
    bounded("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}");
    bounded("{{ 'x' * 100000000000 }}");
    bounded(
        "{% set ns = namespace(t='x') %}{% for i in range(60) %}{% set ns.t = ns.t + ns.t %}{% endfor %}{{ ns.t }}",
    );
    bounded(
        "{% for i in range(99999) %}{{ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' * 9 }}{% endfor %}",
    );
    bounded("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}");
    bounded("{% include 'chat' %}");
    bounded("{{ (messages | tojson(indent=100000000)) * 100000000 }}");
    bounded(
        "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
    );
    bounded(
        "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l | tojson }}",
    );
    bounded(&"{% if true %}".repeat(5_000));
    bounded(&format!("{{{{ {} }}}}", "(".repeat(60_000)));
    bounded(&"x".repeat((64 << 10) + 1));
}

/// Each of these overflowed a thread's usual stack, which no caller can catch.
#[test]
fn deep_expressions_do_not_end_the_process() {
    let deep = |source: String| {
        if let Ok(template) = ChatTemplate::from_text(&source, &own()) {
            let _ = template.render(&Chat::new(&hello()));
        }
    };
    for (start, link, end) in [
        ("1", "+1", ""),
        ("", "-", "1"),
        ("", "not ", "x"),
        ("messages", ".x", ""),
        ("messages", "[0]", ""),
        ("messages", "|trim", ""),
        ("messages", "()", ""),
        ("'x'", "~'x'", ""),
        ("1", "**1", ""),
        ("1", " and 1", ""),
        ("", "1 if x else ", "1"),
    ] {
        let links = (64 << 10) / link.len() - 16;
        deep(format!("{{{{ {start}{}{end} }}}}", link.repeat(links)));
    }
    deep(format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(5_000)));
    let nested =
        "{% set ns = namespace(l=[1]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}";
    deep(nested.to_owned());
    deep(format!("{nested}{{{{ ns.l | tojson }}}}"));
    deep(format!("{nested}{{{{ ns.l }}}}"));
}
