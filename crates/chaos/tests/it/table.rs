//! The failure table of `docs/delivery.md` names tests that are there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[test]
fn every_row_of_the_failure_table_names_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("docs/delivery.md")).expect("the document");
    let (_, table) = text.split_once("## What a failure costs").expect("the section");
    let (table, _) = table.split_once("\n## ").expect("a section after it");
    let rows: Vec<_> = table
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .collect();
    assert!(rows.len() > 20, "{} rows", rows.len());
    let tests = tests(&root);
    for row in rows {
        let last = row
            .trim_end_matches(" |")
            .rsplit(" | ")
            .next()
            .unwrap_or_default();
        let named: Vec<_> = last.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test: {row}");
        for name in named {
            assert!(tests.contains(name), "{name} is no test: {row}");
        }
    }
}

/// The names of all functions in the workspace's tests.
fn tests(root: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders: Vec<PathBuf> = vec![root.join("services"), root.join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("it is there").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("text");
                let functions = text
                    .split("fn ")
                    .skip(1)
                    .filter_map(|after| after.split_once('('));
                names.extend(functions.map(|(name, _)| name.to_owned()));
            }
        }
    }
    names
}
