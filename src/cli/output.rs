//! Standard output for data, standard error for the rest.

use std::io::{self, IsTerminal as _, Write as _};

use super::Failure;
use crate::telemetry::escape;

/// Writes text to standard output. A reader that went away, as `head` does, is no failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::NotSo(format!(
            "cannot write to standard output: {error}"
        ))),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a remark to standard error.
pub(super) fn remark(text: &str) {
    // Nothing is left to complain to when standard error is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes why a verb failed to standard error, in one line.
pub(super) fn complain(text: &str) {
    remark(&format!("error: {}", escape(text)));
}

/// Lays rows out in columns like kubectl, without trailing blanks.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| escape(cell)).collect())
        .collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        })
        .collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(width + 3 - cell.chars().count()));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A word that is coloured on a terminal. The word alone says everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Care,
    Bad,
}

/// Colours text when standard output is a terminal and NO_COLOR is not set (no-color.org).
pub(super) fn tint(text: &str, tone: Tone) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain || !io::stdout().is_terminal() {
        return text.to_owned();
    }
    let code = match tone {
        Tone::Good => 32,
        Tone::Care => 33,
        Tone::Bad => 31,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["NAME", "AGE"], ["milan\n", "5s"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "NAME      AGE\nmilan\\n   5s\n");
    }
}
