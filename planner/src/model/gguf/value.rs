//! Metadata values. Arrays stay on disk: a header holds where they are, and [`ArrayReader`] walks them.

use std::fs::File;
use std::io::{Read, Seek};

use super::error::{GgufError, shown};
use super::reader::{HeaderReader, LIMITS};

/// The type of a metadata value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    /// By number in the file.
    const BY_ID: [ValueType; 13] = [
        ValueType::U8,
        ValueType::I8,
        ValueType::U16,
        ValueType::I16,
        ValueType::U32,
        ValueType::I32,
        ValueType::F32,
        ValueType::Bool,
        ValueType::String,
        ValueType::Array,
        ValueType::U64,
        ValueType::I64,
        ValueType::F64,
    ];

    /// Bytes of one value, for the types whose values are all alike.
    fn fixed_bytes(self) -> Option<u64> {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => Some(1),
            ValueType::U16 | ValueType::I16 => Some(2),
            ValueType::U32 | ValueType::I32 | ValueType::F32 => Some(4),
            ValueType::U64 | ValueType::I64 | ValueType::F64 => Some(8),
            ValueType::String | ValueType::Array => None,
        }
    }

    /// Bytes that one value takes at least: a string its length, an array its type and count.
    fn least_bytes(self) -> u64 {
        match self {
            ValueType::String => 8,
            ValueType::Array => 12,
            fixed => fixed.fixed_bytes().unwrap_or(1),
        }
    }
}

/// An array in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Array {
    /// Type of its elements.
    pub element: ValueType,
    /// How many.
    pub count: u64,
    /// Where the first stands, bytes from the start of the file.
    pub at: u64,
}

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    /// Its elements are still on disk: see [`super::GgufFile::array`].
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// As a whole number of zero or more, whatever integer type holds it.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::U64(v) => Some(v),
            Value::I8(v) => v.try_into().ok(),
            Value::I16(v) => v.try_into().ok(),
            Value::I32(v) => v.try_into().ok(),
            Value::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// As a floating-point number.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::F32(v) => Some(v.into()),
            Value::F64(v) => Some(v),
            _ => None,
        }
    }

    /// As a truth value.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Value::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// As text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(v) => Some(v),
            _ => None,
        }
    }

    /// As an array.
    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Value::Array(v) => Some(v),
            _ => None,
        }
    }

    /// How an error shows it.
    pub(super) fn shown(&self) -> String {
        match self {
            Value::String(text) => format!("`{}`", shown(text)),
            Value::Array(array) => format!("an array of {} values", array.count),
            Value::F32(v) => v.to_string(),
            Value::F64(v) => v.to_string(),
            Value::Bool(v) => v.to_string(),
            Value::I8(v) => v.to_string(),
            Value::I16(v) => v.to_string(),
            Value::I32(v) => v.to_string(),
            Value::I64(v) => v.to_string(),
            other => other.as_u64().map_or_else(String::new, |v| v.to_string()),
        }
    }
}

/// Reads a type's number.
pub(super) fn read_type<R: Read + Seek>(
    reader: &mut HeaderReader<R>,
    what: &str,
) -> Result<ValueType, GgufError> {
    let at = reader.at();
    let id = reader.u32(what)?;
    let found = ValueType::BY_ID.get(id as usize).copied();
    found.ok_or_else(|| reader.invalid(at, what, format!("has type {id}, which is none")))
}

/// Reads a value of a type; of an array only its head, and goes on past its elements.
pub(super) fn read_value<R: Read + Seek>(
    reader: &mut HeaderReader<R>,
    kind: ValueType,
    what: &str,
) -> Result<Value, GgufError> {
    let at = reader.at();
    Ok(match kind {
        ValueType::U8 => Value::U8(u8::from_le_bytes(reader.raw(what)?)),
        ValueType::I8 => Value::I8(i8::from_le_bytes(reader.raw(what)?)),
        ValueType::U16 => Value::U16(u16::from_le_bytes(reader.raw(what)?)),
        ValueType::I16 => Value::I16(i16::from_le_bytes(reader.raw(what)?)),
        ValueType::U32 => Value::U32(reader.u32(what)?),
        ValueType::I32 => Value::I32(i32::from_le_bytes(reader.raw(what)?)),
        ValueType::F32 => Value::F32(f32::from_le_bytes(reader.raw(what)?)),
        ValueType::U64 => Value::U64(reader.u64(what)?),
        ValueType::I64 => Value::I64(i64::from_le_bytes(reader.raw(what)?)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(reader.raw(what)?)),
        ValueType::Bool => match reader.raw::<1>(what)? {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            [other] => return Err(reader.invalid(at, what, format!("is {other}, neither true nor false"))),
        },
        ValueType::String => Value::String(reader.string(what, LIMITS.string_bytes)?),
        ValueType::Array => Value::Array(read_array(reader, what, 1)?),
    })
}

/// Reads an array's head and goes on past its elements, of which strings and arrays must be looked at one by one.
fn read_array<R: Read + Seek>(
    reader: &mut HeaderReader<R>,
    what: &str,
    depth: u32,
) -> Result<Array, GgufError> {
    reader.bounded(&format!("the depth of arrays in {what}"), depth.into(), LIMITS.array_depth.into())?;
    let element = read_type(reader, what)?;
    let count = reader.u64(what)?;
    reader.ensure_count(what, count, element.least_bytes())?;
    let array = Array { element, count, at: reader.at() };
    match element {
        ValueType::String => {
            for _ in 0..count {
                let length = reader.u64(what)?;
                reader.skip(what, length)?;
            }
        }
        ValueType::Array => {
            for _ in 0..count {
                read_array(reader, what, depth + 1)?;
            }
        }
        fixed => reader.skip(what, count * fixed.least_bytes())?,
    }
    Ok(array)
}

/// The elements of an array, read from disk one after the other. After an error it ends.
#[derive(Debug)]
pub struct ArrayReader {
    pub(super) reader: HeaderReader<File>,
    pub(super) element: ValueType,
    pub(super) left: u64,
    pub(super) what: String,
}

impl Iterator for ArrayReader {
    type Item = Result<Value, GgufError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let value = read_value(&mut self.reader, self.element, &self.what);
        if value.is_err() {
            self.left = 0;
        }
        Some(value)
    }
}
