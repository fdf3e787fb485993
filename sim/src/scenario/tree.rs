//! The text as a tree of values that remember where they stand, in the order of the text.

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Fault;
use super::source::Span;

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) span: Span,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Whole(i64),
    Real(f64),
    Flag(bool),
    /// TOML has dates; scenarios have no use for one.
    Date(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) node: Node,
}

impl Value {
    /// The word for what it is, with its article.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Value::Text(_) => "a text",
            Value::Whole(_) => "a whole number",
            Value::Real(_) => "a number",
            Value::Flag(_) => "true or false",
            Value::Date(_) => "a date",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

impl Node {
    /// The entry of a table; `None` also where this is no table.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }
}

/// Reads a TOML document; `base` is added to every span.
///
/// # Errors
/// All syntax errors the parser finds, at most as many as fit on a screen.
pub(crate) fn parse_document(text: &str, base: usize) -> Result<Node, Vec<Fault>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let span = shift(table.span(), base);
        let mut faults = Vec::new();
        let value = table_of(table.into_inner(), base, &mut faults);
        return if faults.is_empty() { Ok(Node { value, span }) } else { Err(faults) };
    }
    Err(syntax_faults(errors, base, text.len()))
}

/// Reads one TOML value; `base` is added to every span.
///
/// # Errors
/// The syntax errors.
pub(crate) fn parse_value(text: &str, base: usize) -> Result<Node, Vec<Fault>> {
    let (value, errors) = DeValue::parse_recoverable(text);
    if errors.is_empty() {
        let mut faults = Vec::new();
        let node = node_of(value, base, &mut faults);
        return if faults.is_empty() { Ok(node) } else { Err(faults) };
    }
    Err(syntax_faults(errors, base, text.len()))
}

/// One slip of the pen often upsets the parser several times; the first few errors say it all.
const SYNTAX_ERRORS_SHOWN: usize = 5;

fn syntax_faults(errors: Vec<toml::de::Error>, base: usize, len: usize) -> Vec<Fault> {
    let fault = |e: toml::de::Error| Fault {
        span: shift(e.span().unwrap_or(0..len), base),
        key: String::new(),
        message: format!("not valid TOML: {}", e.message().replace('\n', ", ")),
        cure: "write `key = value`; texts and quantities stand in quotes: rtt = \"40 ms\"".into(),
    };
    errors.into_iter().take(SYNTAX_ERRORS_SHOWN).map(fault).collect()
}

fn shift(span: Span, base: usize) -> Span {
    span.start + base..span.end + base
}

fn node_of(value: Spanned<DeValue<'_>>, base: usize, faults: &mut Vec<Fault>) -> Node {
    let span = shift(value.span(), base);
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(n) => whole_of(n.as_str(), n.radix(), &span, faults),
        DeValue::Float(x) => Value::Real(x.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Value::Flag(flag),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Array(items) => Value::List(items.into_iter().map(|i| node_of(i, base, faults)).collect()),
        DeValue::Table(table) => table_of(table, base, faults),
    };
    Node { value, span }
}

fn whole_of(digits: &str, radix: u32, span: &Span, faults: &mut Vec<Fault>) -> Value {
    i64::from_str_radix(digits, radix).map_or_else(
        |_| {
            faults.push(Fault {
                span: span.clone(),
                key: String::new(),
                message: format!("the number {digits} does not fit into 64 bits"),
                cure: "no number of a scenario is that large".into(),
            });
            Value::Whole(0)
        },
        Value::Whole,
    )
}

fn table_of(table: DeTable<'_>, base: usize, faults: &mut Vec<Fault>) -> Value {
    let mut entries: Vec<Entry> = table
        .into_iter()
        .map(|(key, value)| Entry {
            key_span: shift(key.span(), base),
            key: key.into_inner().into_owned(),
            node: node_of(value, base, faults),
        })
        .collect();
    // The parser sorts by name; people mean the order in which they wrote.
    entries.sort_by_key(|e| e.key_span.start);
    Value::Table(entries)
}

/// Lays `upper` over `lower`: tables are merged key by key, lists of tables are joined (lower first), and of anything else
/// the upper wins. Keys keep the lower's order, new ones follow.
pub(crate) fn merge(lower: Node, upper: Node) -> Node {
    match (lower.value, upper.value) {
        (Value::Table(mut below), Value::Table(above)) => {
            for entry in above {
                match below.iter_mut().find(|e| e.key == entry.key) {
                    Some(old) => {
                        let lower =
                            std::mem::replace(&mut old.node, Node { value: Value::Flag(false), span: 0..0 });
                        *old = Entry { node: merge(lower, entry.node), ..entry };
                    }
                    None => below.push(entry),
                }
            }
            Node { value: Value::Table(below), span: upper.span }
        }
        (Value::List(mut below), Value::List(above)) if are_tables(&below) && are_tables(&above) => {
            below.extend(above);
            Node { value: Value::List(below), span: upper.span }
        }
        (_, value) => Node { value, span: upper.span },
    }
}

fn are_tables(items: &[Node]) -> bool {
    !items.is_empty() && items.iter().all(|i| matches!(i.value, Value::Table(_)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn keys(node: &Node) -> Vec<&str> {
        let Value::Table(entries) = &node.value else { return Vec::new() };
        entries.iter().map(|e| e.key.as_str()).collect()
    }

    #[test]
    fn tables_keep_the_order_of_the_text() {
        let node = parse_document("[node.zeta]\n[node.alpha]\n[a]\n", 0).unwrap();
        assert_eq!(keys(&node), ["node", "a"]);
        assert_eq!(keys(&node.get("node").unwrap().node), ["zeta", "alpha"]);
    }

    #[test]
    fn the_upper_file_wins_and_lists_of_tables_join() {
        let lower = parse_document("x = 1\ny = [1]\n[[f]]\na = 1\n[t]\np = 1\n", 0).unwrap();
        let upper = parse_document("y = [2]\n[[f]]\na = 2\n[t]\nq = 2\n", 100).unwrap();
        let both = merge(lower, upper);
        assert_eq!(keys(&both), ["x", "y", "f", "t"]);
        assert_eq!(keys(&both.get("t").unwrap().node), ["p", "q"]);
        let Value::List(y) = &both.get("y").unwrap().node.value else { panic!() };
        assert_eq!(y[0].value, Value::Whole(2));
        let Value::List(f) = &both.get("f").unwrap().node.value else { panic!() };
        assert_eq!(f.len(), 2);
    }

    #[test]
    fn several_syntax_errors_are_found_at_once() {
        let faults = parse_document("a = \nb = 1\nc = = 2\n", 10).unwrap_err();
        assert!(faults.len() >= 2);
        assert!(faults[0].span.start >= 10);
    }
}
