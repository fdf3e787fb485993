//! Writes GGUF headers for tests: whole ones, and ones that lie.

/// Tensors are written without data; this is what they are aligned to unless a test says otherwise.
const ALIGNMENT: u64 = 32;

/// Numbers of value types.
pub(crate) mod kind {
    pub(crate) const U8: u32 = 0;
    pub(crate) const U16: u32 = 2;
    pub(crate) const U32: u32 = 4;
    pub(crate) const BOOL: u32 = 7;
    pub(crate) const STRING: u32 = 8;
    pub(crate) const ARRAY: u32 = 9;
    pub(crate) const U64: u32 = 10;
}

/// A header in the making.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    /// Of the format.
    pub(crate) version: u32,
    /// Of tensors.
    pub(crate) alignment: u64,
    /// Metadata, each as bytes.
    pub(crate) entries: Vec<Vec<u8>>,
    /// The table, each line as bytes.
    pub(crate) tensors: Vec<Vec<u8>>,
    /// From the first tensor to behind the last.
    pub(crate) data_bytes: u64,
}

impl Writer {
    /// Nothing yet but the architecture.
    pub(crate) fn new(architecture: &str) -> Self {
        let writer = Writer {
            version: 3,
            alignment: ALIGNMENT,
            entries: Vec::new(),
            tensors: Vec::new(),
            data_bytes: 0,
        };
        writer.text("general.architecture", architecture)
    }

    /// A metadata entry as raw bytes of a type.
    pub(crate) fn raw(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        let mut entry = string(key.as_bytes());
        entry.extend(kind.to_le_bytes());
        entry.extend(value);
        self.entries.push(entry);
        self
    }

    /// Text.
    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.raw(key, kind::STRING, &string(value.as_bytes()))
    }

    /// A number.
    pub(crate) fn number(self, key: &str, value: u32) -> Self {
        self.raw(key, kind::U32, &value.to_le_bytes())
    }

    /// An array of numbers.
    pub(crate) fn numbers(self, key: &str, values: &[u32]) -> Self {
        let elements = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        self.raw(key, kind::ARRAY, &array(kind::U32, values.len() as u64, &elements))
    }

    /// An array of truth values.
    pub(crate) fn flags(self, key: &str, values: &[bool]) -> Self {
        let elements: Vec<u8> = values.iter().map(|value| u8::from(*value)).collect();
        self.raw(key, kind::ARRAY, &array(kind::BOOL, values.len() as u64, &elements))
    }

    /// An array of texts.
    pub(crate) fn texts(self, key: &str, values: &[&str]) -> Self {
        let elements: Vec<u8> = values.iter().flat_map(|value| string(value.as_bytes())).collect();
        self.raw(key, kind::ARRAY, &array(kind::STRING, values.len() as u64, &elements))
    }

    /// A tensor of `bytes` bytes behind those before it.
    pub(crate) fn tensor(self, name: &str, dims: &[u64], type_id: u32, bytes: u64) -> Self {
        let at = self.data_bytes;
        let mut writer = self.tensor_at(name, dims, type_id, at);
        writer.data_bytes = (at + bytes).next_multiple_of(writer.alignment);
        writer
    }

    /// A tensor at a place of the test's choosing, for which the file does not grow.
    pub(crate) fn tensor_at(mut self, name: &str, dims: &[u64], type_id: u32, at: u64) -> Self {
        let mut entry = string(name.as_bytes());
        entry.extend((dims.len() as u32).to_le_bytes());
        entry.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        entry.extend(type_id.to_le_bytes());
        entry.extend(at.to_le_bytes());
        self.tensors.push(entry);
        self
    }

    /// A tensor of f32 of these dimensions.
    pub(crate) fn floats(self, name: &str, dims: &[u64]) -> Self {
        let bytes = dims.iter().product::<u64>() * 4;
        self.tensor(name, dims, 0, bytes)
    }

    /// The header's bytes, with padding to where data begin.
    pub(crate) fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        out.extend(self.entries.concat());
        out.extend(self.tensors.concat());
        out.resize(out.len().next_multiple_of(self.alignment as usize), 0);
        out
    }

    /// Bytes of the whole file, data included.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.header().len() as u64 + self.data_bytes
    }
}

/// A string as the format has it.
pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

/// An array as the format has it, with a count of the test's choosing.
pub(crate) fn array(element: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&element.to_le_bytes(), &count.to_le_bytes()[..], elements].concat()
}
