//! What was measured, of whom: how often, the median, the 99th percentile, and how it compares with us.

use std::collections::BTreeMap;

/// We; the others are compared with this column.
pub(crate) const OURS: &str = "landbridge";
/// After how many vain waits nobody waits for the same thing again.
const PATIENCE: usize = 3;

/// Values by row and by whose they are; what did not come about is infinite.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<&'static str>,
    columns: Vec<&'static str>,
    cells: BTreeMap<(&'static str, &'static str), Vec<f64>>,
}

impl Table {
    /// Adds a value; rows and columns are printed in the order in which they came first.
    pub(crate) fn add(&mut self, row: &'static str, column: &'static str, value: f64) {
        for (names, name) in [(&mut self.rows, row), (&mut self.columns, column)] {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        self.cells.entry((row, column)).or_default().push(value);
    }

    /// Returns whether something has never come about so often that it is not waited for again.
    pub(crate) fn is_hopeless(&self, row: &'static str, column: &'static str) -> bool {
        let values = self.cells.get(&(row, column)).map(Vec::as_slice);
        values.is_some_and(|all| all.len() >= PATIENCE && all.iter().all(|one| one.is_infinite()))
    }

    /// Prints everything, rows in the order of `order` first.
    pub(crate) fn print(mut self, order: &[&'static str]) {
        println!(
            "{:<50}{:<18}{:>4}{:>12}{:>12}{:>10}",
            "", "", "n", "median", "p99", "ratio"
        );
        self.columns.sort_by_key(|name| (*name != OURS, *name));
        self.rows
            .sort_by_key(|row| order.iter().position(|one| one == row));
        for row in &self.rows {
            let ours = self.cells.get(&(*row, OURS)).map(|values| at(values, 50));
            for column in &self.columns {
                let Some(values) = self.cells.get(&(*row, *column)) else {
                    continue;
                };
                let ratio = ours.map(|ours| at(values, 50) / ours);
                let ratio = ratio.filter(|ratio| ratio.is_finite());
                println!(
                    "{:<50}{column:<18}{:>4}{:>12}{:>12}{:>10}",
                    if *column == OURS { *row } else { "" },
                    values.len(),
                    shown(at(values, 50)),
                    shown(at(values, 99)),
                    ratio.map_or_else(String::new, |ratio| format!("x {ratio:.2}"))
                );
            }
        }
    }
}

fn at(values: &[f64], share: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() * share / 100).min(sorted.len() - 1)]
}

fn shown(value: f64) -> String {
    if value.is_infinite() {
        "never".to_owned()
    } else {
        format!("{value:.1}")
    }
}
