//! The table in `behaviours.md`: every row has a proof, and every proof exists.

use crate::recorded;
use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn every_behaviour_is_shown_by_something_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("tests/kubeapi/behaviours.md")).unwrap();
    let requests: BTreeSet<String> = recorded::lines("requests.jsonl")
        .iter()
        .map(|request| request["name"].as_str().unwrap().to_owned())
        .collect();
    let mut sources = String::new();
    for folder in ["src/kubeapi", "tests/kubeapi", "tests"] {
        collect(&root.join(folder), &mut sources);
    }
    let mut rows = 0;
    for line in table.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Ok(number) = cells[1].parse::<usize>() else {
            continue;
        };
        rows += 1;
        assert_eq!(number, rows);
        let (answers, tests) = (named(cells[3]), named(cells[4]));
        assert!(!answers.is_empty() || !tests.is_empty(), "{line}");
        for name in answers {
            assert!(requests.contains(name), "{number}: {name} is no request");
        }
        for name in tests {
            let head = format!("fn {name}(");
            assert!(sources.contains(&head), "{number}: {name} is no test");
        }
    }
    assert_eq!(rows, 56);
}

fn named(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn collect(folder: &Path, sources: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            *sources += &fs::read_to_string(path).unwrap();
        }
    }
}
