//! Models split over several files: `NAME-00001-of-00003.gguf`.

use std::path::{Path, PathBuf};

use super::error::GgufError;
use super::header::Header;

/// Digits of a part's number and of the count.
const DIGITS: usize = 5;

/// What a part's file name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartName {
    /// What stands before the numbers.
    pub(super) stem: String,
    /// How many parts there are.
    count: u64,
}

impl PartName {
    /// Takes a file name apart; `None` where it is not that of a part.
    pub(super) fn parse(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
        let (rest, count) = name.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let is_number = |text: &str| text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_digit());
        (is_number(number) && is_number(count))
            .then(|| PartName { stem: stem.into(), count: count.parse().unwrap_or(0) })
    }

    /// The file of part `part`, from 1, beside `path`.
    fn sibling(&self, path: &Path, part: u64) -> PathBuf {
        path.with_file_name(format!("{}-{part:05}-of-{:05}.gguf", self.stem, self.count))
    }
}

/// What a header says of its place among the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    number: u64,
    count: u64,
}

impl Place {
    /// Of a whole model, part 0 of 1.
    fn of(header: &Header) -> Self {
        let value = |key: &str| header.metadata.get(key).and_then(super::value::Value::as_u64);
        Place { number: value("split.no").unwrap_or(0), count: value("split.count").unwrap_or(1).max(1) }
    }
}

/// The files of the model that `path` is, or is a part of, in order; `header` is that of `path`.
pub(super) fn parts(path: &Path, header: &Header) -> Result<Vec<PathBuf>, GgufError> {
    let place = Place::of(header);
    if place.count == 1 {
        return Ok(vec![path.into()]);
    }
    let problem = |problem: String| GgufError::Split { file: path.into(), problem };
    if place.count > u64::from(u16::MAX) {
        return Err(problem(format!(
            "`split.count` says {} parts; there are at most {}",
            place.count,
            u16::MAX
        )));
    }
    let Some(name) = PartName::parse(path) else {
        return Err(problem(format!(
            "it is part {} of {}, but its name does not end in `-{:05}-of-{:05}.gguf`, so the other parts cannot be found",
            place.number.saturating_add(1),
            place.count,
            place.number.saturating_add(1),
            place.count
        )));
    };
    if name.count != place.count {
        return Err(problem(format!("its name says {} parts, its header {}", name.count, place.count)));
    }
    let mut found = Vec::new();
    for part in 1..=place.count {
        let file = name.sibling(path, part);
        if !file.exists() {
            return Err(GgufError::MissingPart { file, part, count: place.count });
        }
        found.push(file);
    }
    Ok(found)
}

/// Refuses a header that is not the one of part `number` (from 0) of `count`.
pub(super) fn check_place(
    file: &Path,
    header: &Header,
    number: usize,
    count: usize,
) -> Result<(), GgufError> {
    let place = Place::of(header);
    let expected = Place { number: number as u64, count: count as u64 };
    if place == expected || count == 1 {
        return Ok(());
    }
    let problem = format!(
        "its header says part {} of {}, expected part {} of {count}",
        place.number.saturating_add(1),
        place.count,
        number + 1
    );
    Err(GgufError::Split { file: file.into(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parts_name_leads_to_its_siblings() {
        let path = Path::new("/models/Qwen3-235B-Q4_K_M-00002-of-00003.gguf");
        let name = PartName::parse(path).expect("a part's name");
        assert_eq!(name.stem, "Qwen3-235B-Q4_K_M");
        assert_eq!(name.sibling(path, 3), Path::new("/models/Qwen3-235B-Q4_K_M-00003-of-00003.gguf"));
    }

    #[test]
    fn other_names_are_no_parts() {
        for name in
            ["model.gguf", "a-1-of-3.gguf", "a-00001-of-00003.bin", "a-0000x-of-00003.gguf", "-of-.gguf"]
        {
            assert_eq!(PartName::parse(Path::new(name)), None, "{name}");
        }
    }
}
