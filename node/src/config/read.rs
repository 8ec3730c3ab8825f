//! From the process's arguments, its environment and the configuration files to one list of arguments for clap, which
//! stays the only one that knows types. Core's rules and texts (`common/args.cpp`, `config.cpp`, `init.cpp`).

use std::any::TypeId;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Command, CommandFactory, FromArgMatches};

use super::file;
use super::ignored::IGNORED;
use super::settings::{Given, Origin, Settings, Value};
use super::{Config, flag};

/// What is read from the data folder if nothing else is named: the first that exists.
const CONFIG_FILES: [&str; 2] = ["groat.conf", BITCOIN_CONF];
/// Core: `BITCOIN_CONF_FILENAME`.
const BITCOIN_CONF: &str = "bitcoin.conf";
/// `-regtest` is `-chain=regtest`, and so on.
const SHORTCUTS: [(&str, &str); 4] =
    [("testnet", "test"), ("testnet4", "testnet4"), ("signet", "signet"), ("regtest", "regtest")];
/// The networks that have a section.
const SECTIONS: [&str; 5] = ["main", "test", "testnet4", "signet", "regtest"];
/// Options that cannot be negated. Core: `DISALLOW_NEGATION`.
const NEVER_NEGATED: [&str; 2] = ["datadir", "signetchallenge"];

/// What was read.
#[derive(Debug)]
pub struct Read {
    /// The options with their types.
    pub config: Config,
    /// What counts of all that was set, with its place.
    pub counts: Vec<Given>,
    /// Lines for the log: nothing is wrong with them that must be put right.
    pub notes: Vec<String>,
    /// Lines for standard error.
    pub warnings: Vec<String>,
}

/// Why there is nothing to run.
#[derive(Debug)]
pub enum Stop {
    /// Help or the version was asked for; it prints itself.
    Told(clap::Error),
    /// Something is wrong.
    Wrong(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Stop {
        Stop::Wrong(error)
    }
}

/// How an option takes its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// On or off.
    Switch,
    /// Any number of values; whether a value may be left out.
    List(bool),
    /// One value; whether it may be left out.
    Single(bool),
    /// Known, and of no effect on clap.
    Aside,
}

/// The options of a process.
struct Known {
    kinds: BTreeMap<String, Kind>,
}

impl Known {
    fn of(command: &Command) -> Known {
        let aside = IGNORED.iter().copied().chain(SHORTCUTS.map(|(name, _)| name)).chain(["includeconf"]);
        let mut kinds: BTreeMap<String, Kind> = aside.map(|name| (name.into(), Kind::Aside)).collect();
        for option in command.get_opts() {
            let Some(name) = option.get_long() else { continue };
            let optional = option.get_num_args().is_some_and(|number| number.min_values() == 0);
            let kind = match option.get_action() {
                ArgAction::Append => Kind::List(optional),
                _ if option.get_value_parser().type_id() == TypeId::of::<bool>() => Kind::Switch,
                _ => Kind::Single(optional),
            };
            kinds.insert(name.into(), kind);
        }
        Known { kinds }
    }

    /// The option that `key` is or negates, and what it is set to with this value. Core: `InterpretKey`.
    fn interpret(&self, key: &str, value: Option<&str>) -> Option<(String, Kind, Value)> {
        let text = || Value::Text(value.unwrap_or_default().into());
        if let Some(kind) = self.kinds.get(key) {
            return Some((key.into(), *kind, text()));
        }
        let name = key.strip_prefix("no")?;
        let off = value.is_none_or(|value| flag(value) != Ok(false));
        self.kinds.get(name).map(|kind| (name.into(), *kind, Value::Is(!off)))
    }
}

/// Reads everything. `variable` gives what the environment holds under a name.
pub fn read(
    arguments: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Read, Stop> {
    let command = Config::command();
    let known = Known::of(&command);
    let mut settings = Settings::default();
    let rest = read_arguments(arguments, &known, &mut settings)?;
    let words = |options: Vec<OsString>| [OsString::from("groatd")].into_iter().chain(options).chain(rest.clone());
    if rest.iter().any(|word| word == "--help" || word == "--version") {
        // Whatever is wrong with the rest.
        command.try_get_matches_from(words(Vec::new())).map_err(one_sentence)?;
        return Err(anyhow!("there is no help for this").into());
    }
    read_environment(variable, &known, &mut settings);
    let mut notes = Vec::new();
    let used = read_files(&known, &mut settings, &mut notes).context("Error reading configuration file")?;
    let chain = choose_chain(&mut settings, used.as_deref())?;
    refuse_second_file(&settings, used.as_deref(), &mut notes)?;
    if let Some(name) = settings.unsuitable().first() {
        let text = format!("Config setting for -{name} only applied on {chain} network when in [{chain}] section.");
        return Err(anyhow!(text).into());
    }
    let strange = settings.sections.iter().filter(|(name, _)| !SECTIONS.contains(&name.as_str()));
    let warnings = strange.map(|(name, place)| format!("Warning: {place} Section [{name}] is not recognized."));
    let counts = counting(&settings, &known);
    let options = counts.iter().filter(|given| known.kinds[&given.name] != Kind::Aside && given.name != "chain");
    let options = options.map(|given| match (known.kinds[&given.name], given.value.text()) {
        // What it is then, clap has been told.
        (Kind::Single(true) | Kind::List(true), "") => format!("--{}", given.name),
        (_, text) => format!("--{}={text}", given.name),
    });
    // The last of them has its value: what follows is none.
    let options = options.chain([format!("--chain={chain}")]).map(OsString::from).collect();
    let matches = command.try_get_matches_from(words(options));
    let config = matches.and_then(|matches| Config::from_arg_matches(&matches)).map_err(one_sentence)?;
    Ok(Read { config, counts, notes, warnings: warnings.collect() })
}

/// Takes `GROAT_NAME` for every option.
fn read_environment(variable: impl Fn(&str) -> Option<String>, known: &Known, settings: &mut Settings) {
    for (name, _) in known.kinds.iter().filter(|(_, kind)| **kind != Kind::Aside) {
        let value = variable(&format!("GROAT_{}", name.to_uppercase().replace('-', "_")));
        settings.given.extend(value.map(|text| Given {
            name: name.clone(),
            value: Value::Text(text),
            origin: Origin::Environment,
        }));
    }
}

/// The network, whose section counts from now on.
fn choose_chain(settings: &mut Settings, used: Option<&Path>) -> anyhow::Result<String> {
    let chain = chain(settings)?;
    if let Some(used) = used.filter(|used| chain.is_none() && used.ends_with(BITCOIN_CONF)) {
        bail!(
            "{} names no network: Bitcoin Core then takes the main one, groatd testnet4; \
             say which is meant, for example with --chain=main",
            used.display()
        );
    }
    let chain = chain.unwrap_or_else(|| "testnet4".into());
    if SECTIONS.contains(&chain.as_str()) {
        settings.section.clone_from(&chain);
    }
    Ok(chain)
}

/// Takes the settings out of the arguments; what is left is the subcommand with its own words.
fn read_arguments(
    arguments: impl IntoIterator<Item = OsString>,
    known: &Known,
    settings: &mut Settings,
) -> anyhow::Result<Vec<OsString>> {
    let mut rest = Vec::new();
    let mut arguments = arguments.into_iter().skip(1).peekable();
    let parsing = "Error parsing command line arguments:";
    while let Some(argument) = arguments.next() {
        let text = argument.to_str().filter(|text| text.starts_with('-') && *text != "-").map(str::to_owned);
        let Some(text) = text else {
            rest.push(argument);
            continue;
        };
        let body = text.strip_prefix("--").unwrap_or(&text[1..]);
        if body.is_empty() {
            rest.push(argument);
            rest.extend(arguments);
            break;
        }
        let word = match body {
            "h" | "?" | "help" | "help-debug" => Some("--help"),
            "V" | "version" | "version=1" => Some("--version"),
            _ => None,
        };
        if let Some(word) = word {
            rest.push(word.into());
            continue;
        }
        let (key, mut value) = match body.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (body, None),
        };
        let Some((name, kind, meant)) = known.interpret(key, value.as_deref()) else {
            if rest.is_empty() {
                bail!("{parsing} Invalid parameter {text}{}", suggestion(key));
            }
            rest.push(format!("--{body}").into());
            continue;
        };
        let negated = matches!(meant, Value::Is(_));
        if negated && NEVER_NEGATED.contains(&name.as_str()) {
            bail!("{parsing} Negating of -{name} is meaningless and therefore forbidden");
        }
        if name == "includeconf" && !negated {
            let value = value.unwrap_or_default();
            bail!("{parsing} -includeconf cannot be used from commandline; -includeconf=\"{value}\"");
        }
        if value.is_none() && !negated && matches!(kind, Kind::Single(false) | Kind::List(false)) {
            // `--name value`, as clap has it; no value looks like an option.
            let option =
                |word: &str| word.starts_with('-') && word[1..].starts_with(|letter: char| !letter.is_numeric());
            value = arguments
                .next_if(|next| next.to_str().is_some_and(|next| !option(next)))
                .and_then(|next| next.into_string().ok());
            if value.is_none() {
                bail!("{parsing} Can not set -{name} with no value. Please specify value with -{name}=value.");
            }
        }
        let value = if negated { meant } else { Value::Text(value.unwrap_or_default()) };
        settings.given.push(Given { name, value, origin: Origin::CommandLine });
    }
    Ok(rest)
}

/// What may have been meant, as clap sees it.
fn suggestion(key: &str) -> String {
    let error = Config::command().try_get_matches_from(["groatd", &format!("--{key}")]).err();
    match error.as_ref().and_then(|error| error.get(ContextKind::SuggestedArg)) {
        Some(ContextValue::String(name)) => format!(" (there is -{})", name.trim_start_matches('-')),
        _ => String::new(),
    }
}

/// A usage error of clap's as one sentence; help is none.
fn one_sentence(error: clap::Error) -> Stop {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Stop::Told(error);
    }
    let text = error.to_string();
    let whole = text.split("\n\n").next().unwrap_or(&text).trim_start_matches("error: ");
    Stop::Wrong(anyhow!(whole.split_whitespace().collect::<Vec<_>>().join(" ")))
}

/// The folder of all data, as far as it is known.
fn data_folder(settings: &Settings) -> PathBuf {
    let named = settings.single("datadir").map(|given| given.value.text()).filter(|text| !text.is_empty());
    named.map_or_else(super::default_folder, PathBuf::from)
}

/// Reads the configuration file, and those that it includes; gives its path if there is one.
fn read_files(known: &Known, settings: &mut Settings, notes: &mut Vec<String>) -> anyhow::Result<Option<PathBuf>> {
    let folder = data_folder(settings);
    let named = settings.single("conf").map(|given| given.value.clone());
    let path = match &named {
        Some(Value::Is(_)) => return Ok(None),
        Some(Value::Text(name)) => folder.join(name),
        None => match CONFIG_FILES.map(|name| folder.join(name)).into_iter().find(|path| path.exists()) {
            Some(path) => path,
            None => return Ok(None),
        },
    };
    if path.is_dir() {
        bail!("Config file \"{}\" is a directory.", path.display());
    }
    if named.is_some() && std::fs::File::open(&path).is_err() {
        bail!("specified config file \"{}\" could not be opened.", path.display());
    }
    read_file(&path, known, settings, notes)?;
    if settings.given.iter().any(|given| given.name == "includeconf" && given.origin == Origin::CommandLine) {
        return Ok(Some(path));
    }
    // Before the network is known to everything else, its section counts for what is included. That several are named
    // is said later.
    settings.section = chain(settings).ok().flatten().unwrap_or_default();
    let included = includes(settings);
    for name in &included {
        let path = folder.join(name);
        if path.is_dir() {
            bail!("Included config file \"{}\" is a directory.", path.display());
        }
        if std::fs::File::open(&path).is_err() {
            bail!("Failed to include configuration file {name}");
        }
        read_file(&path, known, settings, notes)?;
        notes.push(format!("included configuration file {}", path.display()));
    }
    for name in includes(settings).into_iter().filter(|name| !included.contains(name)) {
        notes.push(format!("includeconf cannot be used from included files; ignoring includeconf={name}"));
    }
    settings.section.clear();
    Ok(Some(path))
}

/// The files to include, those of the network's section first.
fn includes(settings: &Settings) -> Vec<String> {
    let named = settings.list("includeconf").into_iter().filter(|given| given.value != Value::Is(false));
    named.map(|given| given.value.text().to_owned()).collect()
}

/// The text of a configuration file.
fn read_text(path: &Path) -> anyhow::Result<String> {
    /// Bytes of a file: one with more is another kind of file.
    const MAX_FILE: u64 = 1 << 20;
    let mut text = String::new();
    let read = std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text);
    if text.len() as u64 > MAX_FILE {
        bail!("it has more than {MAX_FILE} bytes and is no configuration file");
    }
    read?;
    Ok(text)
}

fn read_file(path: &Path, known: &Known, settings: &mut Settings, notes: &mut Vec<String>) -> anyhow::Result<()> {
    let text = read_text(path).with_context(|| path.display().to_string())?;
    let parsed = file::parse(&text).map_err(|error| anyhow!(error))?;
    let places = parsed.sections.into_iter().map(|(name, line)| (name, format!("{}:{line}", path.display())));
    settings.sections.extend(places);
    for entry in parsed.entries {
        let file::Entry { section, name: key, value, line } = entry;
        let Some((name, _, value)) = known.interpret(&key, Some(&value)) else {
            notes.push(format!("{}:{line}: {key} is not known and is ignored", path.display()));
            continue;
        };
        if name == "conf" {
            bail!(
                "conf cannot be set in the configuration file; \
                 use includeconf= if you want to include additional config files"
            );
        }
        if value == Value::Is(false) && NEVER_NEGATED.contains(&name.as_str()) {
            bail!("Negating of -{name} is meaningless and therefore forbidden");
        }
        if name == "reindex" {
            notes.push(format!("{}:{line}: with reindex here every start rebuilds everything", path.display()));
        }
        let origin = Origin::File { path: path.into(), line, section };
        settings.given.push(Given { name, value, origin });
    }
    Ok(())
}

/// The network that is named, if one is. Core: `GetChainArg`.
fn chain(settings: &Settings) -> anyhow::Result<Option<String>> {
    let named = settings.single("chain").map(|given| given.value.text());
    let mut all: Vec<&str> = named.into_iter().collect();
    all.extend(SHORTCUTS.iter().filter(|(name, _)| settings.names_chain(name)).map(|(_, chain)| *chain));
    match all[..] {
        [] => Ok(None),
        ["testnet3"] => Ok(Some("test".into())),
        [chain] => Ok(Some(chain.into())),
        _ => bail!("Invalid combination of -regtest, -signet, -testnet, -testnet4 and -chain. Can use at most one."),
    }
}

/// A file that would be read if the folder had been named in another place must not be passed over in silence.
fn refuse_second_file(settings: &Settings, used: Option<&Path>, notes: &mut Vec<String>) -> anyhow::Result<()> {
    let folder = data_folder(settings);
    let found: Vec<PathBuf> =
        CONFIG_FILES.map(|name| folder.join(name)).into_iter().filter(|path| path.exists()).collect();
    let (Some(used), Some(first)) = (used, found.first()) else { return Ok(()) };
    let same = |path: &PathBuf| path.canonicalize().ok() == used.canonicalize().ok();
    let allowed = settings.single("allowignoredconf").is_some_and(|given| flag(given.value.text()) == Ok(true));
    if found.iter().any(same) {
        for other in found.iter().filter(|path| !same(path)) {
            notes.push(format!("{} is read; {} beside it is not", used.display(), other.display()));
        }
    } else if allowed {
        notes.push(format!("{} is read; {} is not", used.display(), first.display()));
    } else {
        bail!(
            "Data directory \"{}\" contains a {} file which is ignored, because a different configuration file \"{}\" \
             is being used instead: keep one of the two and use includeconf= for the rest, or set allowignoredconf=1",
            folder.display(),
            first.file_name().unwrap_or_default().display(),
            used.display()
        );
    }
    Ok(())
}

/// What counts, in the order of the names.
fn counting(settings: &Settings, known: &Known) -> Vec<Given> {
    let mut names: Vec<&str> = settings.given.iter().map(|given| given.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut counts = Vec::new();
    for name in names {
        match known.kinds[name] {
            Kind::List(_) => counts.extend(settings.list(name).into_iter().cloned()),
            _ => counts.extend(settings.single(name).cloned()),
        }
    }
    // A list that is switched off is empty; of these peers none is a wish as well.
    counts.retain(|given| {
        let off = matches!(known.kinds[&given.name], Kind::List(_)) && given.value == Value::Is(false);
        !off || given.name == "connect"
    });
    counts
}

#[cfg(test)]
mod tests;
