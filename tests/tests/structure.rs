//! Which module imports which: the maps in each crate's `lib.rs` are true.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of a crate as the table in its `lib.rs` has them, from the ground up.
fn map(lib: &str) -> Vec<&str> {
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | ")?.split(" | ").next());
    rows.filter(|cell| *cell != "module").flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

/// The code of a file without comments and without the tests at its end.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..tests].lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// All files of a module but its tests.
fn files(source: &Path, module: &str) -> Vec<PathBuf> {
    let mut found = vec![source.join(format!("{module}.rs"))];
    let mut folders = vec![source.join(module)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let tests = path.file_stem().is_some_and(|name| name == "tests");
            if path.is_dir() && !tests {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !tests {
                found.push(path);
            }
        }
    }
    found.retain(|path| path.exists());
    found
}

/// The names that follow `crate::`, also within braces.
fn imports(code: &str) -> BTreeSet<&str> {
    let word =
        |text: &'_ str| text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            found.insert(&rest[..word(rest)]);
            continue;
        };
        let mut depth = 0;
        for (at, letter) in list.char_indices() {
            let begins = at == 0 || list[..at].trim_end().ends_with(',');
            if depth == 0 && begins && letter.is_alphabetic() {
                found.insert(&list[at..at + word(&list[at..])]);
            }
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    found
}

/// Every module stands on the map, and imports only what stands before it; `shared`: modules that all may use.
fn follows_its_map(package: &str, shared: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(package).join("src");
    let lib = fs::read_to_string(source.join("lib.rs")).unwrap();
    let map = map(&lib);
    let declared =
        lib.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
    let declared: BTreeSet<&str> = declared.filter(|name| *name != "tests").collect();
    assert_eq!(map.iter().copied().collect::<BTreeSet<_>>(), declared, "{package}/src/lib.rs: the map and the modules");
    for (at, module) in map.iter().enumerate().filter(|(_, module)| !shared.contains(module)) {
        for path in files(&source, module) {
            let code = code(&path);
            let imports = imports(&code).into_iter().filter(|name| declared.contains(name) && name != module);
            let wrong: Vec<_> = imports.filter(|name| !map[..at].contains(name)).collect();
            assert!(wrong.is_empty(), "{} imports {wrong:?}, which the map has below {module}", path.display());
        }
    }
}

#[test]
fn modules_of_the_chain_import_only_what_stands_above_them_on_its_map() {
    follows_its_map("chain", &[]);
}

#[test]
fn modules_of_the_protocol_import_only_what_stands_above_them_on_its_map() {
    follows_its_map("net", &["peer", "protocol"]);
}

#[test]
fn modules_of_the_node_import_only_what_stands_above_them_on_its_map() {
    follows_its_map("node", &[]);
}
