//! `docs/RULES.md` names what exists, and all of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files in `folder` and below.
fn sources(folder: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![repository().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "rs" => found.push(path),
                _ => {}
            }
        }
    }
    found
}

/// The text in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The rows of the tables of rules, by cells: rule, function, reason, source, test.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix("|"));
    let rows = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    rows.filter(|cells| cells.len() == 5 && cells[0] != "rule").collect()
}

#[test]
fn every_row_names_what_exists() {
    let page = read(&repository().join("docs/RULES.md"));
    let rejections = read(&repository().join("chain/src/rejection.rs"));
    let tests: String = ["chain/src", "tests/tests"].into_iter().flat_map(sources).map(|path| read(&path)).collect();
    let rows = rows(&page);
    assert!(rows.len() > 40, "the page has {} rows", rows.len());
    for cells in rows {
        for function in quoted(cells[1]) {
            let (module, name) = function.rsplit_once("::").unwrap_or((function, ""));
            let path = format!("chain/src/{}", module.replace("::", "/"));
            let mut files = if repository().join(&path).is_dir() { sources(&path) } else { Vec::new() };
            files.extend(Some(repository().join(path + ".rs")).filter(|file| file.exists()));
            assert!(!files.is_empty(), "{}: no module {module}", cells[0]);
            let signature = format!("fn {name}(");
            let generic = format!("fn {name}<");
            let defines = |source: &str| source.contains(&signature) || source.contains(&generic);
            let defined = name.is_empty() || files.iter().any(|file| defines(&read(file)));
            assert!(defined, "{}: no function {function}", cells[0]);
        }
        for reason in quoted(cells[2]) {
            assert!(rejections.contains(&format!("#[error(\"{reason}\")]")), "{}: no reason {reason}", cells[0]);
        }
        for test in quoted(cells[4]) {
            assert!(tests.contains(&format!("fn {test}(")), "{}: no test {test}", cells[0]);
        }
    }
}

#[test]
fn every_rejection_and_every_rule_has_a_row() {
    let page = read(&repository().join("docs/RULES.md"));
    let rows = rows(&page);
    let listed = |column: usize| rows.iter().flat_map(|cells| quoted(cells[column])).collect::<BTreeSet<_>>();
    let rejections = read(&repository().join("chain/src/rejection.rs"));
    let reasons: Vec<_> = rejections.split("#[error(\"").skip(1).filter_map(|rest| rest.split("\")]").next()).collect();
    assert!(reasons.len() > 40, "{} reasons", reasons.len());
    for reason in reasons {
        assert!(listed(2).contains(reason), "docs/RULES.md does not list the reason {reason}");
    }
    let folder = repository().join("chain/src/rules");
    for file in sources("chain/src/rules").iter().filter(|file| file.parent() == Some(&folder)) {
        let module = file.file_stem().expect("a file").to_string_lossy().into_owned();
        let source = read(file);
        for name in source.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next()) {
            let function = format!("rules::{module}::{name}");
            let listed = listed(1).contains(function.as_str());
            assert!(listed || !name.starts_with("check_"), "docs/RULES.md does not list {function}");
        }
    }
}
