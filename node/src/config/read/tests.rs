//! Options from the command line and from files.

use super::*;

/// A data folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("the temporary folder can be written");
    }
    folder
}

/// Reads these arguments with the data folder, and nothing of the environment.
fn read_in(folder: &tempfile::TempDir, arguments: &[&str]) -> Result<Read, String> {
    let datadir = format!("-datadir={}", folder.path().display());
    read_with(&[&[datadir.as_str()], arguments].concat(), |_| None)
}

fn read_with(arguments: &[&str], variable: impl Fn(&str) -> Option<String>) -> Result<Read, String> {
    let words = ["groatd"].iter().chain(arguments).map(OsString::from);
    read(words, variable).map_err(|stop| match stop {
        Stop::Wrong(error) => format!("{error:#}"),
        Stop::Told(error) => format!("told {:?}", error.kind()),
    })
}

fn given(arguments: &[&str]) -> Config {
    read_in(&folder(&[]), arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}")).config
}

#[test]
fn every_option_takes_a_value_and_none_is_ignored_as_well() {
    for option in Config::command().get_opts() {
        let name = option.get_long().expect("options have long names");
        assert!(matches!(option.get_action(), ArgAction::Set | ArgAction::Append), "--{name} would refuse --{name}=1");
        let idle = IGNORED.contains(&name);
        assert!(!idle, "--{name} has a meaning and is in a list of those without");
    }
}

#[test]
fn one_dash_is_as_good_as_two_and_a_value_may_stand_apart() {
    let config = given(&["-chain=regtest", "--dbcache", "99", "-par=-1", "import", "--loadblock=x", "-"]);
    assert_eq!((config.chain.as_str(), config.dbcache, config.par), ("regtest", 99, -1));
    assert_eq!(config.start.loadblock, [PathBuf::from("x")]);
    assert!(
        matches!(config.command, Some(super::super::Command::Import { files, .. }) if files == [PathBuf::from("-")])
    );
}

#[test]
fn switches_and_negations_are_cores() {
    for (argument, expected) in [
        ("-listen", Some(true)),
        ("-listen=", Some(true)),
        ("-listen=0", Some(false)),
        ("-listen=7", Some(true)),
        ("-nolisten", Some(false)),
        ("-nolisten=1", Some(false)),
        ("-nolisten=0", Some(true)),
        ("-rpcport=1", None),
    ] {
        assert_eq!(given(&[argument]).listen, expected, "{argument}");
    }
    let config = given(&["-listen=0", "-addnode=a", "-listen=1", "-addnode=b", "-noproxy", "-debug", "-noprune"]);
    assert_eq!((config.listen, config.addnode.len(), config.prune), (Some(true), 2, 0));
    assert!(config.peers.proxy.is_empty() && config.log.debug == ["1"]);
    assert_eq!(given(&["-debug", "coins", "stats"]).log.debug, ["1"], "a value that is left out is not the next word");
    assert_eq!(given(&["-connect=x", "-noconnect"]).connect, ["0"]);
    assert!(given(&["-addnode=x", "-noaddnode"]).addnode.is_empty());
}

#[test]
fn what_is_wrong_on_the_command_line_is_said_in_one_sentence() {
    let parsing = "Error parsing command line arguments:";
    for (arguments, expected) in [
        (&["-listne=1"][..], &format!("{parsing} Invalid parameter -listne=1 (there is -listen)")[..]),
        (&["-zzz"], &format!("{parsing} Invalid parameter -zzz")),
        (&["-regtest.port=1"], &format!("{parsing} Invalid parameter -regtest.port=1")),
        (&["-nodatadir"], &format!("{parsing} Negating of -datadir is meaningless and therefore forbidden")),
        (&["-port"], &format!("{parsing} Can not set -port with no value. Please specify value with -port=value.")),
        (&["-includeconf=x"], &format!("{parsing} -includeconf cannot be used from commandline; -includeconf=\"x\"")),
        (&["-listen=true"], "invalid value 'true' for '--listen <0|1>': it is 0 or 1"),
        (
            &["-regtest", "-signet"],
            "Invalid combination of -regtest, -signet, -testnet, -testnet4 and -chain. Can use at most one.",
        ),
        (&["-help"], "told DisplayHelp"),
        (&["-regtest", "-signet", "import", "-h"], "told DisplayHelp"),
        (&["-version"], "told DisplayVersion"),
    ] {
        assert_eq!(read_in(&folder(&[]), arguments).expect_err("it is wrong"), expected, "{arguments:?}");
    }
}

#[test]
fn a_file_counts_less_than_the_environment_and_that_less_than_the_command_line() {
    let folder = folder(&[(
        "groat.conf",
        "regtest=1\ndbcache=7\npar=3\nmempoolexpiry=1\n[regtest]\nmempoolexpiry=2\nmempoolexpiry=3\nport=5\n[main]\nport=6\n",
    )]);
    let datadir = format!("--datadir={}", folder.path().display());
    let variable = |name: &str| (name == "GROAT_PAR").then(|| "2".to_string());
    let read = read_with(&[&datadir, "-dbcache=9"], variable).expect("it is well formed");
    let config = &read.config;
    assert_eq!((config.chain.as_str(), config.dbcache, config.par, config.mempoolexpiry), ("regtest", 9, 2, 2));
    assert_eq!(config.port, Some(5));
    let path = folder.path().join("groat.conf");
    let expected = format!("mempoolexpiry=2  # {}:6 [regtest]\npar=2  # environment\n", path.display());
    let shown = super::super::show::check(&read.counts);
    assert!(shown.contains(&expected), "expected the lines\n{expected}in\n{shown}");
}

#[test]
fn files_are_chosen_as_documented() {
    let both = folder(&[("groat.conf", "dbcache=7"), ("bitcoin.conf", "dbcache=8"), ("other.conf", "dbcache=9")]);
    let dbcache =
        |folder, arguments: &[&str]| read_in(folder, arguments).map(|read| (read.config.dbcache, read.notes.len()));
    assert_eq!(dbcache(&both, &[]), Ok((7, 1)), "groat.conf, and a note on the other");
    assert_eq!(dbcache(&both, &["-noconf"]), Ok((450, 0)));
    let error = dbcache(&both, &["-conf=other.conf"]).expect_err("groat.conf would be ignored");
    assert!(error.contains("contains a groat.conf file which is ignored"), "{error}");
    assert_eq!(dbcache(&both, &["-conf=other.conf", "-allowignoredconf"]), Ok((9, 1)));
    let foreign = folder(&[("bitcoin.conf", "dbcache=8\nwallet=x\nunheard=1\n[tset]\n")]);
    let error = dbcache(&foreign, &[]).expect_err("no network is named");
    assert!(error.contains("names no network") && error.contains("--chain=main"), "{error}");
    let read = read_in(&foreign, &["-chain=testnet3"]).expect("it is well formed");
    assert_eq!((read.config.chain.as_str(), read.config.dbcache, read.notes.len()), ("test", 8, 1));
    assert!(read.notes[0].contains("bitcoin.conf:3: unheard"), "{:?}", read.notes);
    assert!(read.warnings[0].contains("bitcoin.conf:4 Section [tset] is not recognized."), "{:?}", read.warnings);
}

#[test]
fn files_include_others_once() {
    let files = [
        ("groat.conf", "chain=regtest\nincludeconf=a.conf\n[regtest]\nincludeconf=b.conf\n"),
        ("a.conf", "dbcache=1\nuacomment=a\nincludeconf=c.conf\n"),
        ("b.conf", "dbcache=2\nuacomment=b\n"),
    ];
    let folder = folder(&files);
    let read = read_in(&folder, &[]).expect("it is well formed");
    // The section's file comes first.
    assert_eq!((read.config.dbcache, &read.config.start.uacomment[..]), (2, &["b".to_string(), "a".into()][..]));
    assert_eq!(read.notes.len(), 3, "two files and one that is not included: {:?}", read.notes);
    assert_eq!(read_in(&folder, &["-noincludeconf"]).expect("it is well formed").config.dbcache, 450);
    std::fs::remove_file(folder.path().join("b.conf")).expect("the temporary folder can be written");
    let error = read_in(&folder, &[]).expect_err("a file is missing");
    assert_eq!(error, "Error reading configuration file: Failed to include configuration file b.conf");
}

#[test]
fn what_is_wrong_in_a_file_is_said() {
    for (text, expected) in [
        (
            "-listen=1",
            "Error reading configuration file: parse error on line 1: -listen=1, options in configuration file must be specified without leading -",
        ),
        (
            "conf=x",
            "Error reading configuration file: conf cannot be set in the configuration file; use includeconf= if you want to include additional config files",
        ),
        (
            "nodatadir=1",
            "Error reading configuration file: Negating of -datadir is meaningless and therefore forbidden",
        ),
        ("signet=1\nport=7", "Config setting for -port only applied on signet network when in [signet] section."),
        ("signet=1\ndbcache=x", "invalid value 'x' for '--dbcache <MIB>': invalid digit found in string"),
    ] {
        assert_eq!(read_in(&folder(&[("groat.conf", text)]), &[]).expect_err("it is wrong"), expected, "{text:?}");
    }
    let long = folder(&[("groat.conf", &"#".repeat((1 << 20) + 1))]);
    let error = read_in(&long, &[]).expect_err("it is too long");
    assert!(error.ends_with("it has more than 1048576 bytes and is no configuration file"), "{error}");
    let error = read_in(&folder(&[]), &["-conf=absent.conf"]).expect_err("there is none");
    assert!(
        error.starts_with("Error reading configuration file: specified config file \"")
            && error.ends_with("absent.conf\" could not be opened."),
        "{error}"
    );
}

#[test]
fn what_config_prints_can_be_read_again() {
    let text = super::super::show::default();
    for name in ["\n#dbcache=450\n", "\n#port=\n", "\n## Mempool\n"] {
        assert!(text.contains(name), "{name:?} is not in\n{text}");
    }
    let uncommented: String = text
        .lines()
        .filter(|line| line.starts_with('#') && line.contains('=') && !line.starts_with("# ") && !line.ends_with('='))
        .map(|line| format!("{}\n", &line[1..]))
        .collect();
    let read = read_in(&folder(&[("groat.conf", &uncommented)]), &[]).expect("defaults are valid");
    assert_eq!((read.config.dbcache, read.config.chain.as_str()), (450, "testnet4"));
}
