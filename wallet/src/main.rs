//! `groat`: the wallet and control command line. It speaks JSON-RPC with a node, groatd or bitcoind, and knows nothing
//! of its inside.
//!
//! | file | what it holds |
//! |---|---|
//! | `cli`, `session` | the command line; what a command works with |
//! | `network`, `rpc` | the chain; the node |
//! | `keys`, `seed`, `store`, `condense` | words and descriptors; the secret at rest; the wallet's folder; long histories |
//! | `sync`, `filters`, `mempool` | blocks and mempool into the wallet |
//! | `wallets`, `receive`, `history`, `labels` | commands about a wallet and what it has |
//! | `send`, `build`, `summary`, `bump`, `psbt`, `message` | commands that make transactions and signatures |
//! | `net` | a network of one's own: its file, its nodes on this machine |
//! | `status`, `control` | what the node is doing; other commands about it, and about this program |
//! | `error`, `format`, `prompt` | exit codes; amounts, dates, tables; questions |

mod build;
mod bump;
mod cli;
mod condense;
mod control;
mod error;
mod filters;
mod format;
mod history;
mod keys;
mod labels;
mod mempool;
mod message;
mod net;
mod network;
mod prompt;
mod psbt;
mod receive;
mod rpc;
mod seed;
mod send;
mod session;
mod status;
mod store;
mod summary;
mod sync;
mod wallets;

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::json;

use crate::cli::{Cli, Command};
use crate::error::Result;
use crate::format::printable;
use crate::session::Session;

fn main() -> ExitCode {
    // Memory with words or keys in it must not be written to a core file, whatever happens.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        eprintln!("Warning: core files cannot be switched off: {error}");
    }
    let cli = Cli::parse();
    let json = cli.options.json;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if json => {
            eprintln!("{}", json!({"error": error.to_string(), "exit_code": error.number()}));
            error.exit_code()
        }
        Err(error) => {
            eprintln!("error: {}", printable(&error.to_string()));
            error.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let session = &Session::new(cli.options)?;
    match cli.command {
        Command::Create { name, words, keys } => wallets::create(session, &name, &words, &keys),
        Command::Restore { name, birthday, words_file, keys } => {
            wallets::restore(session, &name, birthday.as_deref(), words_file.as_deref(), &keys)
        }
        Command::Import { name, descriptor, change, birthday, kind } => {
            wallets::import(session, &name, &descriptor, change.as_deref(), birthday.as_deref(), kind)
        }
        Command::List => wallets::list(session),
        Command::Info => wallets::info(session),
        Command::Password { new_password_file } => wallets::password(session, new_password_file.as_deref()),
        Command::Backup { what, folder } => wallets::backup(session, what, folder.as_deref()),
        Command::Delete { name, force } => wallets::delete(session, &name, force),
        Command::Receive { new, amount, label, qr } => {
            receive::receive(session, new, amount.as_deref(), label.as_deref(), qr)
        }
        Command::Addresses { used } => receive::addresses(session, used),
        Command::Balance => history::balance(session),
        Command::History { limit } => history::history(session, limit),
        Command::Coins { lock, unlock } => history::coins(session, &lock, &unlock),
        Command::Sync { from } => history::sync(session, from.as_deref()),
        Command::Label { reference, text, import, export } => {
            labels::label(session, reference.as_deref(), text.as_deref(), import.as_deref(), export)
        }
        Command::Send { payments, fee, from, dry_run } => send::send(session, &payments, &fee, &from, dry_run),
        Command::Bump { txid, fee } => bump::bump(session, &txid, &fee),
        Command::Cancel { txid, fee } => bump::cancel(session, &txid, &fee),
        Command::Psbt(command) => psbt::run(session, &command),
        Command::SignMessage { address, message } => message::sign(session, &address, &message),
        Command::VerifyMessage { address, message, signature } => {
            message::verify(session, &address, &message, &signature)
        }
        Command::Net(command) => net::run(session, &command),
        Command::Status { watch } => status::status(session, watch),
        Command::Peers => control::peers(session),
        Command::Rpc { method, arguments } => control::rpc(session, &method, &arguments),
        Command::Stop => control::stop(session),
        Command::Completions { shell } => control::completions(shell),
        Command::Man { folder } => control::man(folder.as_deref()),
    }
}
