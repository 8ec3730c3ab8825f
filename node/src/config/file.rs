//! The text of a configuration file in Core's format: `name=value`, `[section]`, `# comment`. Knows no option.

/// What a file says, line by line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct File {
    /// The lines that set something.
    pub entries: Vec<Entry>,
    /// The sections that are named, with their lines.
    pub sections: Vec<(String, usize)>,
}

/// `name=value`
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The network it is for; empty: for all.
    pub section: String,
    /// As it stands there, perhaps with `no` before it.
    pub name: String,
    /// What stands behind the `=`.
    pub value: String,
    /// Counted from 1.
    pub line: usize,
}

/// Reads a file. The errors are Core's (`GetConfigOptions`), without the name of the file.
pub fn parse(text: &str) -> Result<File, String> {
    let mut file = File::default();
    let mut prefix = String::new();
    // What some editors put before the text would make another name of the first.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (line, written) in (1..).zip(text.split('\n')) {
        let (said, commented) = written.split_once('#').map_or((written, false), |(said, _)| (said, true));
        let said = said.trim_matches([' ', '\t', '\r']);
        if said.is_empty() {
            continue;
        }
        if let Some(section) = said.strip_prefix('[').and_then(|said| said.strip_suffix(']')) {
            file.sections.push((section.into(), line));
            prefix = format!("{section}.");
            continue;
        }
        if said.starts_with('-') {
            return Err(format!(
                "parse error on line {line}: {said}, options in configuration file must be specified without leading -"
            ));
        }
        let Some((name, value)) = said.split_once('=') else {
            let negated = said.starts_with("no");
            let hint = format!(", if you intended to specify a negated option, use {said}=1 instead");
            return Err(format!("parse error on line {line}: {said}{}", if negated { hint.as_str() } else { "" }));
        };
        let full = format!("{prefix}{}", name.trim_end_matches([' ', '\t', '\r']));
        if commented && full.contains("rpcpassword") {
            return Err(format!(
                "parse error on line {line}, using # in rpcpassword can be ambiguous and should be avoided"
            ));
        }
        // `regtest.port=1` is as good as `port=1` in the section.
        if let Some(dot) = full.rfind('.').filter(|dot| prefix.len() <= *dot) {
            file.sections.push((full[..dot].into(), line));
        }
        let (section, name) = full.split_once('.').unwrap_or(("", &full));
        let value = value.trim_start_matches([' ', '\t', '\r']);
        file.entries.push(Entry { section: section.into(), name: name.into(), value: value.into(), line });
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<(String, String, String, usize)> {
        let file = parse(text).expect("the text is well formed");
        file.entries.into_iter().map(|entry| (entry.section, entry.name, entry.value, entry.line)).collect()
    }

    #[test]
    fn lines_are_read_as_core_reads_them() {
        let text = "\u{feff}# all of it\r\n\n  server = 1 \t# why\nrpcauth=a:b$c=d\nregtest.port=1\n[main]\nuacomment=a b\nport=\n\
                    regtest.port=2\n[]\nx=1";
        let expected = [
            ("", "server", "1", 3),
            ("", "rpcauth", "a:b$c=d", 4),
            ("regtest", "port", "1", 5),
            ("main", "uacomment", "a b", 7),
            ("main", "port", "", 8),
            ("main", "regtest.port", "2", 9),
            ("", "x", "1", 11),
        ];
        let expected = expected.map(|(section, name, value, line)| (section.into(), name.into(), value.into(), line));
        assert_eq!(entries(text), expected);
        let sections = parse(text).expect("the text is well formed").sections;
        let expected = [("regtest", 5), ("main", 6), ("main.regtest", 9), ("", 10)];
        assert_eq!(sections, expected.map(|(name, line)| (name.to_string(), line)));
    }

    #[test]
    fn what_is_no_setting_is_refused_with_its_line() {
        for (text, expected) in [
            ("a=1\nlisten", "parse error on line 2: listen"),
            (
                "nolisten",
                "parse error on line 1: nolisten, if you intended to specify a negated option, use nolisten=1 instead",
            ),
            (
                "-listen=1",
                "parse error on line 1: -listen=1, options in configuration file must be specified without leading -",
            ),
            ("rpcpassword=a#b", "parse error on line 1, using # in rpcpassword can be ambiguous and should be avoided"),
            ("[regtest", "parse error on line 1: [regtest"),
        ] {
            assert_eq!(parse(text), Err(expected.into()), "{text:?}");
        }
    }
}
