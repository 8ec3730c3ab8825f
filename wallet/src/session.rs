//! What a command works with: the options, the chain, the terminal; and from there the wallet and the node.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use serde_json::Value;

use crate::cli::{Color, Options};
use crate::error::{Result, failed, usage};
use crate::format;
use crate::net;
use crate::network::Network;
use crate::prompt::Prompt;
use crate::rpc::Node;
use crate::store::{self, Birthday, Store};
use crate::sync;

/// Prints lines. Whoever reads them may have enough, as `head` has: then all is done.
pub fn print(text: &str) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// One run of the program.
pub struct Session {
    options: Options,
    /// The chain.
    pub network: Network,
    /// The terminal's answers.
    pub prompt: Prompt,
}

impl Session {
    /// From the options of every command.
    pub fn new(options: Options) -> Result<Session> {
        let network = Network::load(&options.chain)?;
        let prompt = Prompt {
            yes: options.yes,
            no_input: options.no_input,
            password_file: options.password_file.clone(),
            passphrase_file: options.passphrase_file.clone(),
        };
        Ok(Session { options, network, prompt })
    }

    /// The same with other options.
    pub fn with(&self, change: impl FnOnce(&mut Options)) -> Result<Session> {
        let mut options = self.options.clone();
        change(&mut options);
        Session::new(options)
    }

    /// Folder of all data.
    pub fn datadir(&self) -> PathBuf {
        let home = || std::env::home_dir().unwrap_or_default().join(".groat");
        self.options.datadir.clone().unwrap_or_else(home)
    }

    /// The option that names the data folder again, with a space before it; nothing for the default.
    pub fn datadir_option(&self) -> String {
        self.options.datadir.as_ref().map_or(String::new(), |folder| format!(" --datadir {}", folder.display()))
    }

    /// Where this chain's wallets are.
    pub fn wallets(&self) -> PathBuf {
        self.datadir().join(&self.network.params.folder).join("wallets")
    }

    /// Name of the wallet meant: the one given, or the only one.
    pub fn wallet_name(&self) -> Result<String> {
        if let Some(name) = &self.options.wallet {
            return Ok(name.clone());
        }
        let (folder, chain) = (self.wallets(), self.network.name());
        match &store::names(&folder)?[..] {
            [] => Err(failed(format!(
                "no wallet on {chain} yet (looked in {}): `groat create NAME` makes one",
                folder.display()
            ))),
            [name] => Ok(name.clone()),
            names => Err(usage(format!("there are several wallets ({}): say which with --wallet", names.join(", ")))),
        }
    }

    /// The wallet of this name.
    pub fn open_named(&self, name: &str) -> Result<Store> {
        Store::open(&self.wallets(), name, &self.network)
    }

    /// The wallet meant.
    pub fn open(&self) -> Result<Store> {
        Store::open(&self.wallets(), &self.wallet_name()?, &self.network)
    }

    /// The wallet meant, for what is better seen with one and can do without.
    pub fn open_if_any(&self) -> Result<Option<Store>> {
        if self.options.wallet.is_none() && store::names(&self.wallets())?.len() != 1 {
            Ok(None)
        } else {
            self.open().map(Some)
        }
    }

    /// The node.
    pub fn node(&self) -> Result<Node> {
        let Options { rpc, rpc_cookie, .. } = &self.options;
        let cookie = rpc_cookie.clone().or_else(|| net::cookie(self, rpc.as_deref()));
        Node::connect(rpc.as_deref(), cookie.as_deref(), &self.datadir(), &self.network)
    }

    /// The wallet meant, brought up to the node's chain and mempool.
    pub fn synced(&self) -> Result<(Store, Node, u32)> {
        let store = self.open()?;
        self.up_to_date(store)
    }

    /// The same, or a failure when another command has the wallet.
    pub fn synced_alone(&self) -> Result<(Store, Node, u32)> {
        let store = Store::open_alone(&self.wallets(), &self.wallet_name()?, &self.network)?;
        self.up_to_date(store)
    }

    fn up_to_date(&self, mut store: Store) -> Result<(Store, Node, u32)> {
        let node = self.node()?;
        let height = sync::sync(&mut store, &node, &self.network)?;
        Ok((store, node, height))
    }

    /// A date or a height.
    pub fn parse_birthday(text: &str) -> Result<Birthday> {
        match text.parse() {
            Ok(height) => Ok(Birthday::Height(height)),
            Err(_) => format::parse_date(text).map(Birthday::Time),
        }
    }

    /// Whether the answer is to be JSON.
    pub fn json(&self) -> bool {
        self.options.json
    }

    /// Whether a person reads standard output.
    pub fn tty(&self) -> bool {
        std::io::stdout().is_terminal() && !self.options.json
    }

    /// Prints an answer: as JSON, or as text for people.
    pub fn show(&self, value: &Value, text: impl FnOnce() -> String) {
        let text = if self.options.json { value.to_string() } else { text() };
        if !text.is_empty() {
            print(&text);
        }
    }

    /// Prints rows: as JSON, as a table on a terminal, else with tabs.
    pub fn show_rows(&self, value: &Value, titles: &[&str], rows: &[Vec<String>], none: &str) {
        self.show(value, || match (rows.is_empty(), self.tty()) {
            (true, true) => none.to_owned(),
            (false, true) => format::table(titles, rows),
            (_, false) => format::plain(rows),
        });
    }

    /// Says something to the person, aside from the answer.
    pub fn say(&self, text: &str) {
        eprintln!("{text}");
    }

    /// Says something that should not be overlooked.
    pub fn warn(&self, text: &str) {
        let plain =
            std::env::var_os("NO_COLOR").is_some() || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let colored = match self.options.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => !plain && std::io::stderr().is_terminal(),
        };
        if colored {
            eprintln!("\x1b[33mWarning: {text}\x1b[0m");
        } else {
            eprintln!("Warning: {text}");
        }
    }
}
