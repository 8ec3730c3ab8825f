//! What a method is, the table of all of them, and their help. Knows no JSON-RPC envelope.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::args::{Arg, Args, Kind};
use super::error::*;
use super::{Rpc, addresses, bans, blockchain, coins, control, fees, logging, mempool, mining, network, peerinfo};
use super::{rawtransactions, submit, template, zmq};

/// A result as JSON text, or an error.
pub type Answer = Result<Box<RawValue>, RpcError>;

/// A method of the RPC.
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// Under which heading `help` lists it; `hidden` is not listed.
    pub group: &'static str,
    /// Its arguments by position.
    pub args: &'static [Arg],
    /// What it does.
    pub about: &'static str,
    /// Carries it out, on a thread that may block.
    pub run: fn(&Rpc, &Args) -> Answer,
}

/// All methods, by the files they are in.
pub fn all() -> impl Iterator<Item = &'static Method> {
    let chain = [blockchain::METHODS, coins::METHODS, mining::METHODS, template::METHODS];
    let transactions = [mempool::METHODS, rawtransactions::METHODS, submit::METHODS, fees::METHODS];
    let peers = [addresses::METHODS, bans::METHODS, network::METHODS, peerinfo::METHODS];
    [control::METHODS, logging::METHODS, zmq::METHODS]
        .into_iter()
        .chain(chain)
        .chain(transactions)
        .chain(peers)
        .flatten()
}

/// Carries out a call.
pub fn call(rpc: &Rpc, name: &str, params: Value) -> Answer {
    // Core, too, says first of all that it is still starting.
    rpc.node()?;
    let Some(method) = all().find(|method| method.name == name) else {
        return Err(RpcError::new(RPC_METHOD_NOT_FOUND, "Method not found"));
    };
    match Args::new(method.args, params)? {
        Some(args) => {
            let _noted = rpc.calls.note(method.name);
            (method.run)(rpc, &args)
        }
        None => Err(RpcError::new(RPC_MISC_ERROR, method.help())),
    }
}

/// A result.
pub fn answer(value: impl Serialize) -> Answer {
    to_raw_value(&value).map_err(|error| RpcError::new(RPC_INTERNAL_ERROR, error.to_string()))
}

/// The error of a method that is told something it does not know: its help.
pub fn help_of(name: &str) -> RpcError {
    let help = all().find(|method| method.name == name).map(Method::help);
    RpcError::new(RPC_MISC_ERROR, help.unwrap_or_default())
}

/// The result of a method that has nothing to say.
pub fn done() -> Answer {
    Ok(RawValue::NULL.to_owned())
}

impl Method {
    /// Name and arguments in a line, as Core writes it: optional ones in brackets.
    pub fn usage(&self) -> String {
        let mut line = self.name.to_string();
        let mut optional = false;
        for arg in self.shown() {
            line += match (optional, arg.required) {
                (false, false) => " ( ",
                (true, true) => " ) ",
                _ => " ",
            };
            optional = !arg.required;
            match arg.kind {
                Kind::Text | Kind::Hex | Kind::Any => write!(line, "\"{}\"", arg.name()),
                Kind::Array(elements) => write!(line, "[{elements},...]"),
                Kind::Number | Kind::Bool => write!(line, "{}", arg.name()),
                Kind::Object(shown) | Kind::Loose(shown) => write!(line, "{shown}"),
            }
            .expect("a string takes what is written");
        }
        if optional { line + " )" } else { line }
    }

    /// The whole help.
    pub fn help(&self) -> String {
        let mut text = format!("{}\n\n{}\n", self.usage(), self.about);
        for (number, arg) in self.shown().enumerate() {
            if number == 0 {
                text += "\nArguments:\n";
            }
            let kind = match arg.kind {
                Kind::Text | Kind::Any => "string",
                Kind::Hex => "string, hex",
                Kind::Number => "numeric",
                Kind::Bool => "boolean",
                Kind::Array(_) => "json array",
                Kind::Object(_) => "json object",
                Kind::Loose(_) => "numeric, string or json",
            };
            let needed = if arg.required { "required" } else { "optional" };
            text += &format!("{}. {}    ({kind}, {needed}) {}\n", number + 1, arg.name(), arg.about);
        }
        text
    }

    fn shown(&self) -> impl Iterator<Item = &Arg> {
        self.args.iter().take_while(|arg| !arg.hidden)
    }
}
