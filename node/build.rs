//! Tells the compiler which commit is built: `GROAT_COMMIT`, "unknown" outside a checkout. The wallet's build runs it too.

use std::path::Path;
use std::process::Command;

fn main() {
    // The mark of uncommitted changes must follow the files it speaks of.
    for path in ["src", "../node/build.rs", "Cargo.toml", "../chain", "../net", "../Cargo.toml", "../Cargo.lock"] {
        println!("cargo:rerun-if-changed={path}");
    }
    // In a worktree HEAD lies in a folder of its own and the branches in the common one.
    let head = git(&["symbolic-ref", "-q", "HEAD"]).unwrap_or_default();
    for name in ["HEAD", "packed-refs", &head] {
        let path = git(&["rev-parse", "--git-path", name]).filter(|path| !name.is_empty() && Path::new(path).exists());
        if let Some(path) = path {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    let dirty = if changed { "-dirty" } else { "" };
    println!("cargo:rustc-env=GROAT_COMMIT={}", commit.map_or("unknown".into(), |commit| commit + dirty));
}

/// What git prints, if it runs and has an answer.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
