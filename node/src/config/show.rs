//! `groatd config`: the options as a file to begin with, what is set and where, and what is taken without effect; and
//! the options for shells and as a manual page.

use std::fmt::Write;

use clap::CommandFactory;

use super::Config;
use super::ignored::IGNORED;
use super::settings::{Given, NETWORK_ONLY};

/// Options whose values are nobody's business. Core: `SENSITIVE`.
const SENSITIVE: [&str; 4] = ["rpcauth", "rpcpassword", "rpcuser", "torpassword"];

/// A configuration file with every option commented out, at its default, with its help.
pub fn default() -> String {
    let mut text = String::from("# The options of groatd. A line counts once its # is taken away.\n");
    let command = Config::command();
    let mut heading = None;
    let mut options: Vec<_> = command.get_opts().filter(|option| !option.is_hide_set()).collect();
    options.sort_by_key(|option| option.get_help_heading());
    for option in options {
        let Some(name) = option.get_long().filter(|name| *name != "conf") else { continue };
        if option.get_help_heading() != heading {
            heading = option.get_help_heading();
            let _ = writeln!(text, "\n## {}", heading.unwrap_or_default());
        }
        let help = option.get_help().map(ToString::to_string).unwrap_or_default();
        let values: Vec<_> = option.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let place = if NETWORK_ONLY.contains(&name) { " (in the section of its network)" } else { "" };
        let _ = writeln!(text, "\n# {help}{place}\n#{name}={}", values.join(","));
    }
    text
}

/// What counts of all that is set, one line each, with its place.
pub fn check(counts: &[Given]) -> String {
    if counts.is_empty() {
        return "# nothing is set: all options have their defaults (groatd config --default shows them)\n".into();
    }
    let mut text = String::new();
    for Given { name, value, origin } in counts {
        let shown = if SENSITIVE.contains(&name.as_str()) { "****" } else { value.text() };
        let idle = IGNORED.contains(&name.as_str());
        let idle = if idle { "; it has no effect here" } else { "" };
        let _ = writeln!(text, "{name}={shown}  # {origin}{idle}");
    }
    text
}

/// Core's options that are taken and have no effect, one a line.
pub fn ignored() -> String {
    IGNORED.iter().map(|name| format!("{name}\n")).collect()
}

/// What a shell reads to complete the options.
pub fn completions(shell: clap_complete::Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Config::command(), "groatd", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The manual page, in roff.
pub fn manual() -> String {
    let mut text = Vec::new();
    let rendered = clap_mangen::Man::new(Config::command()).render(&mut text);
    rendered.expect("a list of bytes takes all that is written");
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_shell_and_the_manual_know_the_options() {
        let texts = clap_complete::Shell::value_variants().iter().map(|shell| completions(*shell)).chain([manual()]);
        // In roff a hyphen has a backslash before it.
        for text in texts.map(|text| text.replace("\\-", "-")) {
            assert!(text.contains("dbcache") && text.contains("verify-chain"), "something is missing: {text}");
        }
    }
}
