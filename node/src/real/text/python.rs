//! Where templates expect Python: `tojson` writes what `json.dumps` would.

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// The most that JSON may be indented by.
const INDENT_MAX: usize = 16;

/// JSON of a value, in Python's spelling. Of the options of `json.dumps`, `indent` counts; characters outside ASCII stay as
/// they are, as `transformers` has it.
///
/// # Errors
/// Values that JSON has no form for, unknown options.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: (Option<bool>, Option<bool>) = (options.get("ensure_ascii")?, options.get("sort_keys")?);
    options.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut out, Spaced)),
        Some(width) => {
            let indent = " ".repeat(width.min(INDENT_MAX));
            value.serialize(&mut Serializer::with_formatter(
                &mut out,
                PrettyFormatter::with_indent(indent.as_bytes()),
            ))
        }
    };
    written.map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("cannot write JSON: {e}")))?;
    Ok(Value::from(String::from_utf8(out).expect("a JSON writer writes UTF-8")))
}

/// JSON on one line with a space behind each comma and colon.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: std::io::Write + ?Sized>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: std::io::Write + ?Sized>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: std::io::Write + ?Sized>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}
