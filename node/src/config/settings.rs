//! What was set, where, and which of it counts: Core's order of sources and its rules for lists (`common/settings.cpp`).
//! Knows the names of options only as keys.

use std::fmt;
use std::path::PathBuf;

/// What an option was set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `name=text`; without `=` the text is empty.
    Text(String),
    /// `noname`, or `noname=0`, which is true.
    Is(bool),
}

impl Value {
    /// As the command line would say it behind `=`.
    pub fn text(&self) -> &str {
        match self {
            Value::Text(text) => text,
            Value::Is(on) => ["0", "1"][usize::from(*on)],
        }
    }
}

/// Where something was set. In the order of precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// As an argument of the process.
    CommandLine,
    /// As `GROAT_NAME`.
    Environment,
    /// In a file.
    File {
        /// Its path.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The network it is for; empty: for all.
        section: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Origin::CommandLine => write!(f, "command line"),
            Origin::Environment => write!(f, "environment"),
            Origin::File { path, line, section } if section.is_empty() => write!(f, "{}:{line}", path.display()),
            Origin::File { path, line, section } => write!(f, "{}:{line} [{section}]", path.display()),
        }
    }
}

/// One setting.
#[derive(Clone, Debug)]
pub struct Given {
    /// The option, without `no`.
    pub name: String,
    /// To what.
    pub value: Value,
    /// Where.
    pub origin: Origin,
}

/// Everything that was set, in the order in which it was read.
#[derive(Debug, Default)]
pub struct Settings {
    /// All of it, other networks' as well.
    pub given: Vec<Given>,
    /// The network whose section counts; none before it is known, and for a network of one's own.
    pub section: String,
    /// The sections that files name, with their places.
    pub sections: Vec<(String, String)>,
}

/// Options that outside a section count on the main network only. Core: `ArgsManager::NETWORK_ONLY`.
pub const NETWORK_ONLY: [&str; 6] = ["addnode", "bind", "connect", "port", "rpcbind", "rpcport"];

impl Settings {
    /// What one source says of an option, oldest first, and how many of these a negation takes back.
    fn of(&self, name: &str, source: usize) -> (Vec<&Given>, usize) {
        let from = |origin: &Origin| match origin {
            Origin::CommandLine => source == 0,
            Origin::Environment => source == 1,
            Origin::File { section, .. } if section.is_empty() => source == 3,
            Origin::File { section, .. } => source == 2 && *section == self.section,
        };
        let all: Vec<&Given> = self.given.iter().filter(|given| given.name == name && from(&given.origin)).collect();
        let negated = all.iter().rposition(|given| given.value == Value::Is(false)).map_or(0, |at| at + 1);
        (all, negated)
    }

    /// Whether what stands outside all sections counts for this option.
    fn takes_global(&self, name: &str) -> bool {
        matches!(self.section.as_str(), "" | "main") || !NETWORK_ONLY.contains(&name)
    }

    /// What counts for an option that has one value: of the command line the last, of a file the first.
    pub fn single(&self, name: &str) -> Option<&Given> {
        (0..4).find_map(|source| {
            let (all, negated) = self.of(name, source);
            let off = negated > 0 && negated == all.len();
            if source == 3 && !off && !self.takes_global(name) {
                return None;
            }
            if off || source < 2 { all.last().copied() } else { all.get(negated).copied() }
        })
    }

    /// What counts for an option that may be repeated: that of all sources, until one is negated. If that leaves
    /// nothing, the negation itself is given.
    pub fn list(&self, name: &str) -> Vec<&Given> {
        let (mut result, mut off) = (Vec::new(), None);
        let (mut done, mut emptied) = (false, false);
        for source in 0..4 {
            let (all, negated) = self.of(name, source);
            if source == 3 && !self.takes_global(name) {
                break;
            }
            // Core: values of a file are taken behind a negation that left values in place before it.
            if !done || (source >= 2 && !emptied) {
                result.extend(&all[negated..]);
            }
            done |= negated > 0;
            if negated > 0 && negated == all.len() {
                emptied |= result.is_empty();
                off = off.or(all.last().copied());
            }
        }
        if result.is_empty() { off.into_iter().collect() } else { result }
    }

    /// Whether a shortcut such as `-regtest` names the network. Core: `GetChainArg`.
    pub fn names_chain(&self, name: &str) -> bool {
        let last = (0..4).find_map(|source| {
            let (all, negated) = self.of(name, source);
            all.last().copied().filter(|_| negated < all.len())
        });
        last.is_some_and(|given| super::flag(given.value.text()) == Ok(true))
    }

    /// The options that are set only where they do not count for this network. Core: `GetUnsuitableSectionOnlyArgs`.
    pub fn unsuitable(&self) -> Vec<&'static str> {
        let has = |name: &str, source: usize| {
            let (all, negated) = self.of(name, source);
            negated < all.len()
        };
        let misplaced =
            |name: &&str| !self.takes_global(name) && has(name, 3) && !(0..3).any(|source| has(name, source));
        NETWORK_ONLY.into_iter().filter(misplaced).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `c:`, `e:`, `s:`, `g:` say from where: command line, environment, section, global part.
    fn settings(all: &[&str]) -> Settings {
        let given = all.iter().map(|text| {
            let (source, text) = text.split_once(':').expect("a source");
            let file = |section: &str| Origin::File { path: "f".into(), line: 1, section: section.into() };
            let origin = match source {
                "c" => Origin::CommandLine,
                "e" => Origin::Environment,
                "s" => file("regtest"),
                "o" => file("signet"),
                _ => file(""),
            };
            let value = match text {
                "no" => Value::Is(false),
                "yes" => Value::Is(true),
                text => Value::Text(text.into()),
            };
            Given { name: "x".into(), value, origin }
        });
        Settings { given: given.collect(), section: "regtest".into(), sections: Vec::new() }
    }

    #[test]
    fn one_value_comes_from_the_nearest_source() {
        for (all, expected) in [
            (&["c:1", "c:2", "e:3", "s:4", "g:5"][..], Some("2")),
            (&["e:3", "s:4", "g:5"], Some("3")),
            (&["s:4", "s:5", "g:6"], Some("4")),
            (&["g:6", "g:7"], Some("6")),
            (&["o:6"], None),
            (&["c:1", "c:no", "g:5"], Some("0")),
            (&["c:no", "c:yes", "g:5"], Some("1")),
            (&["s:1", "s:no", "s:2", "s:3"], Some("2")),
            (&["s:no", "g:5"], Some("0")),
        ] {
            assert_eq!(settings(all).single("x").map(|given| given.value.text()), expected, "{all:?}");
        }
    }

    #[test]
    fn lists_add_up_until_one_is_negated() {
        for (all, expected) in [
            (&["c:1", "c:2", "e:3", "s:4", "g:5", "o:6"][..], &["1", "2", "3", "4", "5"][..]),
            (&["c:no", "s:4", "g:5"], &["0"]),
            (&["c:1", "c:no", "c:2", "e:3", "s:4"], &["2", "4"]),
            (&["s:no", "g:5"], &["0"]),
            (&["s:4", "s:no", "s:6", "g:5"], &["6", "5"]),
            (&["e:no", "c:1", "g:5"], &["1", "5"]),
        ] {
            let settings = settings(all);
            let found: Vec<&str> = settings.list("x").iter().map(|given| given.value.text()).collect();
            assert_eq!(found, expected, "{all:?}");
        }
    }

    #[test]
    fn a_port_outside_its_section_counts_on_the_main_network_only() {
        let mut settings = settings(&["g:1"]);
        settings.given[0].name = "port".into();
        assert!(settings.single("port").is_none() && settings.list("port").is_empty());
        assert_eq!(settings.unsuitable(), ["port"]);
        settings.section = "main".into();
        assert_eq!(settings.single("port").map(|given| given.value.text()), Some("1"));
        assert!(settings.unsuitable().is_empty());
    }

    #[test]
    fn of_a_shortcut_in_a_file_the_last_counts_and_a_negation_on_the_command_line_does_not() {
        for (all, expected) in [
            (&["g:1"][..], true),
            (&["g:1", "g:0"], false),
            (&["c:no", "g:1"], true),
            (&["c:0", "g:1"], false),
            (&["c:"], true),
            (&["g:no"], false),
        ] {
            assert_eq!(settings(all).names_chain("x"), expected, "{all:?}");
        }
    }
}
