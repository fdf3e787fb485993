//! `inspect`: what a GGUF file holds, without loading it.
//!
//! * `facts`: gathered from the header; what `--json` prints.
//! * `page`: the same for people.

mod facts;
mod page;

use std::path::Path;

use planner::model::gguf::GgufFile;

use self::facts::Facts;
use super::arguments::Inspect;
use super::failure::Failure;
use super::{print, print_json};

pub(super) fn inspect(asked: &Inspect) -> Result<(), Failure> {
    let file = GgufFile::open(&asked.model)?;
    if asked.template {
        return template(&asked.model, &file);
    }
    let facts = Facts::of(&file, asked);
    if asked.json { print_json(&facts) } else { print(&page::text(&facts)) }
}

fn template(path: &Path, file: &GgufFile) -> Result<(), Failure> {
    let template = file.metadata.get("tokenizer.chat_template").and_then(|value| value.as_str());
    let missing = || Failure::Usage(format!("{} brings no chat template", path.display()));
    print(&format!("{}\n", template.ok_or_else(missing)?))
}
