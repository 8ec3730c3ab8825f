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

/// The bodies of all functions of this name: from there to the brace that stands below its `fn`.
fn bodies<'a>(source: &'a str, name: &str) -> Vec<&'a str> {
    let heads = [format!("fn {name}("), format!("fn {name}<")];
    let mut found = Vec::new();
    for at in heads.iter().flat_map(|head| source.match_indices(head.as_str())).map(|(at, _)| at) {
        let line = source[..at].rfind('\n').map_or(0, |end| end + 1);
        let indent = source[line..at].len() - source[line..at].trim_start().len();
        let end = format!("\n{}}}", &source[line..line + indent]);
        let length = source[at..].find(&end).unwrap_or(source.len() - at);
        found.push(&source[at..at + length]);
    }
    found
}

/// Whether a word stands in the text.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    text.match_indices(word)
        .any(|(at, _)| !is_part(text[..at].chars().next_back()) && !is_part(text[at + word.len()..].chars().next()))
}

/// All rejections: the reason, and the name in the enum.
fn rejections(source: &str) -> Vec<(&str, &str)> {
    let parts = source.split("#[error(\"").skip(1).filter_map(|rest| rest.split_once("\")]\n"));
    parts.map(|(reason, rest)| (reason, rest.trim_start().split(['(', ',']).next().unwrap_or_default())).collect()
}

/// The source of the module that a path names: of its file, of all files of its folder, or of both.
fn module(path: &str) -> String {
    let path = format!("chain/src/{}", path.replace("::", "/"));
    let mut files = if repository().join(&path).is_dir() { sources(&path) } else { Vec::new() };
    files.extend(Some(repository().join(path + ".rs")).filter(|file| file.exists()));
    files.retain(|file| !file.components().any(|part| part.as_os_str() == "tests"));
    files.iter().map(|file| read(file)).collect()
}

/// The tests of the rules speak of limits by their names: here is what they are.
#[test]
fn constants_have_cores_values() {
    use crate::rules::{branch::*, commitment::*, connect::*, deployment::*, header::*, inputs::*, limits::*};
    use crate::script::*;
    assert_eq!((MEDIAN_TIME_SPAN, MAX_FUTURE_BLOCK_TIME, MAX_TIMEWARP), (11, 7_200, 600));
    assert_eq!((MAX_BLOCK_WEIGHT, WITNESS_SCALE_FACTOR, MINIMUM_WITNESS_COMMITMENT), (4_000_000, 4, 38));
    assert_eq!(WITNESS_COMMITMENT_HEAD, [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed]);
    assert_eq!((MAX_MONEY, MAX_BLOCK_SIGOPS_COST), (2_100_000_000_000_000, 80_000));
    assert_eq!((LOCKTIME_THRESHOLD, SEQUENCE_LOCKTIME_DISABLE_FLAG), (500_000_000, 0x8000_0000));
    assert_eq!((SEQUENCE_LOCKTIME_TYPE_FLAG, SEQUENCE_LOCKTIME_MASK), (0x0040_0000, 0xffff));
    assert_eq!((SEQUENCE_LOCKTIME_GRANULARITY, BIP34_IMPLIES_BIP30_LIMIT), (9, 1_983_702));
    assert_eq!((VERSIONBITS_TOP_BITS, VERSIONBITS_TOP_MASK, VERSIONBITS_NUM_BITS), (0x2000_0000, 0xe000_0000, 5));
    assert_eq!(crate::rules::signet::SIGNET_HEADER, [0xec, 0xc7, 0xda, 0xa2]);
}

#[test]
fn every_row_is_whole_and_names_what_exists() {
    let page = read(&repository().join("docs/RULES.md"));
    let source = read(&repository().join("chain/src/rejection.rs"));
    let rejections = rejections(&source);
    let tests: String = ["chain/src", "tests/tests"].into_iter().flat_map(sources).map(|path| read(&path)).collect();
    let rows = rows(&page);
    assert!(rows.len() > 70, "the page has {} rows", rows.len());
    let mut given = BTreeSet::new();
    for cells in rows {
        let rule = cells[0];
        assert!(!rule.is_empty() && !cells[3].is_empty(), "{cells:?}: no rule, or it comes from nowhere");
        let (mut code, mut asked) = (String::new(), String::new());
        for function in quoted(cells[1]) {
            let (path, name) = function.rsplit_once("::").unwrap_or((function, ""));
            let module = module(path);
            let found = bodies(&module, name);
            assert!(!found.is_empty(), "{rule}: no function {function}");
            code.extend(found);
        }
        assert!(!code.is_empty(), "{rule}: no function");
        for test in quoted(cells[4]) {
            let found = bodies(&tests, test);
            assert!(!found.is_empty(), "{rule}: no test {test}");
            asked.extend(found);
        }
        assert!(!asked.is_empty(), "{rule}: no test");
        for reason in quoted(cells[2]) {
            let named: Vec<&str> =
                rejections.iter().filter(|(text, _)| *text == reason).map(|(_, name)| *name).collect();
            assert!(!named.is_empty(), "{rule}: no reason {reason}");
            let gives: Vec<&str> = named.iter().filter(|name| has_word(&code, name)).copied().collect();
            assert!(!gives.is_empty(), "{rule}: none of {} gives {reason}", cells[1]);
            given.extend(gives);
            let is_asked = named.iter().any(|name| has_word(&asked, name)) || asked.contains(reason);
            assert!(is_asked, "{rule}: none of {} asks for {reason}", cells[4]);
        }
    }
    for (reason, name) in rejections {
        assert!(given.contains(name), "docs/RULES.md has no row with a function that gives {name}: {reason}");
    }
}

#[test]
fn every_check_has_a_row() {
    let page = read(&repository().join("docs/RULES.md"));
    let listed: BTreeSet<&str> = rows(&page).iter().flat_map(|cells| quoted(cells[1])).collect();
    let folder = repository().join("chain/src/rules");
    for file in sources("chain/src/rules").iter().filter(|file| file.parent() == Some(&folder)) {
        let module = file.file_stem().expect("a file").to_string_lossy().into_owned();
        let source = read(file);
        for name in source.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next()) {
            let function = format!("rules::{module}::{name}");
            let is_listed = listed.contains(function.as_str());
            assert!(is_listed || !name.starts_with("check_"), "docs/RULES.md does not list {function}");
        }
    }
}
