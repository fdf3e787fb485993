//! Fields of a JSON object, each held against what it may be. A field that is null is absent; one that nobody asks for is
//! ignored.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::fault::Fault;

/// What a JSON value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The integer of a number that has no fraction, as `3` or `3.0`.
pub(super) fn integer(value: &Value) -> Option<i128> {
    let Value::Number(number) = value else { return None };
    let exact = number.as_u64().map(i128::from).or_else(|| number.as_i64().map(i128::from));
    exact.or_else(|| number.as_f64().filter(|x| x.fract() == 0.0 && x.abs() < 9e15).map(|x| x as i128))
}

/// The fields of an object.
#[derive(Debug)]
pub(super) struct Fields {
    map: Map<String, Value>,
    /// What stands in front of a field's name in errors: `stream_options.`.
    path: String,
}

impl Fields {
    /// Of a request's body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Fault> {
        let parsed = serde_json::from_slice(body);
        let value: Value =
            parsed.map_err(|why| Fault::request(format!("The request's body is no JSON: {why}.")))?;
        match value {
            Value::Object(map) => Ok(Self { map, path: String::new() }),
            other => Err(Fault::request(format!(
                "The request's body must be a JSON object, and is {}.",
                kind(&other)
            ))),
        }
    }

    /// Of an object inside of another one.
    pub(super) fn within(map: Map<String, Value>, path: String) -> Self {
        Self { map, path }
    }

    /// The field's name in errors.
    pub(super) fn name(&self, field: &str) -> String {
        format!("{}{field}", self.path)
    }

    /// Whether there is such a field.
    pub(super) fn has(&self, field: &str) -> bool {
        self.map.get(field).is_some_and(|value| !value.is_null())
    }

    /// Takes a field, whatever it is.
    pub(super) fn take(&mut self, field: &str) -> Option<Value> {
        self.map.remove(field).filter(|value| !value.is_null())
    }

    /// The fields that nobody took.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.map
    }

    fn wrong(&self, field: &str, expected: &str, value: &Value) -> Fault {
        Fault::field(self.name(field), format!("must be {expected}, and is {}", kind(value)))
    }

    /// A boolean.
    pub(super) fn flag(&mut self, field: &str) -> Result<Option<bool>, Fault> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(self.wrong(field, "a boolean", &other)),
        }
    }

    /// A string.
    pub(super) fn text(&mut self, field: &str) -> Result<Option<String>, Fault> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(field, "a string", &other)),
        }
    }

    /// A number in `range`.
    pub(super) fn number(&mut self, field: &str, range: RangeInclusive<f64>) -> Result<Option<f32>, Fault> {
        let Some(value) = self.take(field) else { return Ok(None) };
        let number = value.as_f64().ok_or_else(|| self.wrong(field, "a number", &value))?;
        if range.contains(&number) {
            return Ok(Some(number as f32));
        }
        let (least, most) = (range.start(), range.end());
        Err(Fault::field(self.name(field), format!("must be from {least} to {most}, and is {number}")))
    }

    /// A whole number in `range`. A range that ends at [`u32::MAX`] is open: what is larger counts as that.
    pub(super) fn whole(&mut self, field: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, Fault> {
        let Some(value) = self.take(field) else { return Ok(None) };
        let number = integer(&value).ok_or_else(|| self.wrong(field, "a whole number", &value))?;
        let (least, most) = (*range.start(), *range.end());
        let is_open = most == u32::MAX;
        match u32::try_from(number.min(i128::from(u32::MAX))) {
            Ok(whole) if range.contains(&whole) && (is_open || number <= i128::from(most)) => Ok(Some(whole)),
            _ => {
                let bounds =
                    if is_open { format!("at least {least}") } else { format!("from {least} to {most}") };
                Err(Fault::field(self.name(field), format!("must be {bounds}, and is {number}")))
            }
        }
    }

    /// A list.
    pub(super) fn list(&mut self, field: &str) -> Result<Option<Vec<Value>>, Fault> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(self.wrong(field, "an array", &other)),
        }
    }

    /// An object.
    pub(super) fn object(&mut self, field: &str) -> Result<Option<Fields>, Fault> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields::within(map, format!("{}.", self.name(field))))),
            Some(other) => Err(self.wrong(field, "an object", &other)),
        }
    }

    /// A text that must be there.
    pub(super) fn needed(&mut self, field: &str) -> Result<String, Fault> {
        let missing = Fault::field(self.name(field), "is missing");
        self.text(field)?.ok_or(missing)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use super::*;

    fn fields(json: &str) -> Fields {
        Fields::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn null_is_absent_and_wholes_may_be_written_with_a_point() {
        let mut fields = fields(r#"{"a": null, "b": 3.0, "c": 99999999999999, "d": 1e300}"#);
        assert_eq!(fields.text("a"), Ok(None));
        assert_eq!(fields.whole("b", 1..=4), Ok(Some(3)));
        assert_eq!(fields.whole("c", 1..=u32::MAX), Ok(Some(u32::MAX)));
        assert_eq!(
            fields.whole("d", 1..=u32::MAX).unwrap_err().param(),
            Some("d"),
            "no whole number is that exact"
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_path() {
        let mut fields = fields(r#"{"a": {"b": 7}, "c": -1, "d": "x"}"#);
        let mut inner = fields.object("a").unwrap().unwrap();
        assert_eq!(inner.flag("b").unwrap_err().param(), Some("a.b"));
        assert_eq!(fields.whole("c", 1..=4).unwrap_err().param(), Some("c"));
        assert_eq!(fields.number("d", 0.0..=2.0).unwrap_err().param(), Some("d"));
        assert!(Fields::parse(b"[]").is_err() && Fields::parse(b"{").is_err());
    }
}
