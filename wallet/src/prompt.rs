//! What is asked at the terminal: yes or no, a line, a password without echo. Where nobody can answer, the option to
//! give instead is named.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::{Doing, Error, Result, usage};

/// How questions are answered.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Every question of yes or no is answered with yes.
    pub yes: bool,
    /// Nothing is asked.
    pub no_input: bool,
    /// The wallet password is the first line of this file.
    pub password_file: Option<PathBuf>,
    /// The BIP39 passphrase is the first line of this file.
    pub passphrase_file: Option<PathBuf>,
}

impl Prompt {
    fn can_ask(&self) -> bool {
        !self.no_input && std::io::stdin().is_terminal()
    }

    /// Asks a question of yes or no. No is the default, and [`Error::Declined`].
    pub fn confirm(&self, question: &str) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        let answer = self.line(&format!("{question} [y/N] "), "--yes")?;
        if ["y", "yes"].contains(&answer.to_ascii_lowercase().as_str()) { Ok(()) } else { Err(Error::Declined) }
    }

    /// Asks for a line. `instead` is what makes the question needless.
    pub fn line(&self, question: &str, instead: &str) -> Result<String> {
        if !self.can_ask() {
            return Err(usage(format!("this needs an answer, and nobody can be asked: give {instead}")));
        }
        eprint!("{question}");
        std::io::stderr().flush().doing("write to the terminal")?;
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line).doing("read from the terminal")?;
        if read == 0 { Err(Error::Declined) } else { Ok(line.trim().to_owned()) }
    }

    /// Asks for a line where somebody can be asked; else, and where it is empty, it is `default`.
    pub fn line_or(&self, question: &str, default: &str) -> Result<String> {
        if !self.can_ask() || self.yes {
            return Ok(default.to_owned());
        }
        let line = self.line(&format!("{question} [{default}] "), "--no-input")?;
        Ok(if line.is_empty() { default.to_owned() } else { line })
    }

    /// The password that opens the wallet.
    pub fn password(&self) -> Result<Zeroizing<String>> {
        match &self.password_file {
            Some(path) => first_line(path),
            None => self.hidden("Wallet password: ", "--password-file FILE"),
        }
    }

    /// A password for a new wallet file, asked for twice.
    pub fn new_password(&self, file: Option<&Path>, option: &str) -> Result<Zeroizing<String>> {
        match file {
            Some(path) => first_line(path),
            None => self.hidden_twice("Choose a wallet password: ", option),
        }
    }

    /// The BIP39 passphrase of a new wallet, asked for twice: with a mistyped one its coins could never be spent.
    pub fn new_passphrase(&self) -> Result<Zeroizing<String>> {
        match &self.passphrase_file {
            Some(path) => first_line(path),
            None => self.hidden_twice("BIP39 passphrase: ", "--passphrase-file FILE"),
        }
    }

    fn hidden_twice(&self, question: &str, option: &str) -> Result<Zeroizing<String>> {
        loop {
            let first = self.hidden(question, option)?;
            if *first == *self.hidden("The same again: ", option)? {
                return Ok(first);
            }
            eprintln!("The two differ.");
        }
    }

    /// The BIP39 passphrase of a wallet that has one.
    pub fn passphrase(&self) -> Result<Zeroizing<String>> {
        match &self.passphrase_file {
            Some(path) => first_line(path),
            None => self.hidden("BIP39 passphrase: ", "--passphrase-file FILE"),
        }
    }

    fn hidden(&self, question: &str, instead: &str) -> Result<Zeroizing<String>> {
        let missing = || usage(format!("this needs a secret, and nobody can be asked: give {instead}"));
        if self.no_input {
            return Err(missing());
        }
        // It speaks with the terminal even where standard input is a pipe.
        rpassword::prompt_password(question).map(Zeroizing::new).map_err(|_| missing())
    }
}

/// The first line of a file that holds a secret.
fn first_line(path: &Path) -> Result<Zeroizing<String>> {
    let all = Zeroizing::new(std::fs::read_to_string(path).doing(format!("read {}", path.display()))?);
    Ok(Zeroizing::new(all.lines().next().unwrap_or_default().to_owned()))
}
