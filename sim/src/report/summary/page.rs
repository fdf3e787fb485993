//! Lines, headings, aligned tables and bars.

/// The widest line a summary may have, characters.
pub(super) const WIDTH: usize = 100;

/// Whether headings stand out by terminal codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// Text alone: for files, pipes and tests.
    #[default]
    Plain,
    /// Bold headings: for a terminal.
    Terminal,
}

/// How a column is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// Text that grows downwards.
#[derive(Debug, Default)]
pub(super) struct Page {
    style: Style,
    text: String,
}

impl Page {
    pub(super) fn new(style: Style) -> Self {
        Self { style, text: String::new() }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    /// A section's heading, after an empty line unless it is the first.
    pub(super) fn heading(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.bold(title);
    }

    /// A paragraph in bold, broken to the page's width.
    pub(super) fn bold(&mut self, title: &str) {
        for line in wrapped(title, WIDTH) {
            match self.style {
                Style::Plain => self.text.push_str(&line),
                Style::Terminal => self.text.push_str(&format!("\x1b[1m{line}\x1b[0m")),
            }
            self.text.push('\n');
        }
    }

    /// A paragraph, indented and broken to the page's width; later lines hang by `hang` more.
    pub(super) fn paragraph(&mut self, text: &str, hang: usize) {
        for (i, line) in wrapped(text, WIDTH - 2 - hang).iter().enumerate() {
            let indent = if i == 0 { 2 } else { 2 + hang };
            self.text.push_str(&format!("{:indent$}{line}\n", ""));
        }
    }

    /// Rows with aligned columns, two spaces apart; a left-aligned last column is broken to the page's width. The
    /// first row is the header; an empty one is left out.
    pub(super) fn table(&mut self, aligns: &[Align], rows: &[Vec<String>]) {
        let widths = column_widths(aligns.len(), rows);
        for row in rows.iter().filter(|row| row.iter().any(|cell| !cell.is_empty())) {
            self.row(aligns, &widths, row);
        }
    }

    fn row(&mut self, aligns: &[Align], widths: &[usize], row: &[String]) {
        let mut line = String::from(" ");
        for ((cell, align), width) in row.iter().zip(aligns).zip(widths).take(row.len().saturating_sub(1)) {
            let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
            line.push(' ');
            match align {
                Align::Left => line.extend([cell.as_str(), &gap]),
                Align::Right => line.extend([gap.as_str(), cell]),
            }
            line.push(' ');
        }
        line.push(' ');
        let (last, align, width) = match (row.last(), aligns.get(row.len() - 1), widths.get(row.len() - 1)) {
            (Some(last), Some(align), Some(width)) => (last.as_str(), *align, *width),
            _ => return,
        };
        let indent = line.chars().count();
        if align == Align::Right {
            line.push_str(&" ".repeat(width.saturating_sub(last.chars().count())));
        }
        let mut parts = wrapped(last, WIDTH.saturating_sub(indent).max(20)).into_iter();
        line.push_str(&parts.next().unwrap_or_default());
        self.text.push_str(line.trim_end());
        self.text.push('\n');
        for part in parts {
            self.text.push_str(&format!("{:indent$}{part}\n", ""));
        }
    }
}

fn column_widths(columns: usize, rows: &[Vec<String>]) -> Vec<usize> {
    let widest = |column| rows.iter().filter_map(|r| r.get(column)).map(|c: &String| c.chars().count()).max();
    (0..columns).map(|column| widest(column).unwrap_or(0)).collect()
}

/// `text` in lines of at most `width` characters, broken at spaces; a longer word gets a line of its own.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A bar of up to `cells` characters for `share` of the whole, in eighths of a character.
pub(super) fn bar(share: f64, cells: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * cells as f64 * 8.0).round() as usize;
    let at_least_visible = if share > 0.0 { eighths.max(1) } else { eighths };
    "█".repeat(at_least_visible / 8) + EIGHTHS[at_least_visible % 8]
}

/// A bar like [`bar`], the rest of its cells marked, so that the whole is seen.
pub(super) fn gauge(share: f64, cells: usize) -> String {
    let filled = bar(share, cells);
    let rest = cells.saturating_sub(filled.chars().count());
    filled + &"·".repeat(rest)
}

/// Cells of a row.
pub(super) fn cells<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.iter().map(|t| (*t).to_owned()).collect()
}
