//! Finds the data that tests read: `GROAT_DATA` (real blocks and published vectors) and Bitcoin Core's vectors.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The top folder of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate lies in the repository")
}

/// Files in the `GROAT_DATA` folder `folder` whose name ends with `ending`, in order of name. Says plainly when the
/// set is absent and gives an empty list: the caller then returns.
pub fn groat_data(folder: &str, ending: &str) -> Vec<PathBuf> {
    let top = std::env::var_os("GROAT_DATA").map_or_else(|| repository().join("../shared/data"), PathBuf::from);
    let mut found = Vec::new();
    walk(&top.join(folder), &mut |path| {
        if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    });
    found.sort();
    if found.is_empty() {
        eprintln!("SKIPPED: no {folder}/*{ending} below {} (set GROAT_DATA)", top.display());
    }
    found
}

fn walk(folder: &Path, each: &mut dyn FnMut(PathBuf)) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { walk(&path, each) } else { each(path) }
    }
}

/// The folder of Bitcoin Core's source that the package `libbitcoinkernel-sys` carries.
pub fn core_source() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["metadata", "--format-version", "1", "--all-features"])
            .current_dir(repository())
            .output()
            .expect("cargo runs, since it started this test");
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr)));
        let manifest = metadata["packages"]
            .as_array()
            .and_then(|all| all.iter().find(|package| package["name"] == "libbitcoinkernel-sys"))
            .and_then(|package| package["manifest_path"].as_str())
            .expect("libbitcoinkernel-sys is a dependency of groat-tests; `cargo fetch` brings it");
        Path::new(manifest).parent().expect("a manifest lies in a folder").join("bitcoin")
    })
}

/// One of Core's JSON vector files.
pub fn core_vectors(name: &str) -> serde_json::Value {
    let path = core_source().join("src/test/data").join(name);
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
