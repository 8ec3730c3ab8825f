//! Methods about the server itself: stop, help, uptime, what runs. Core: `src/rpc/server.cpp`, `src/rpc/node.cpp`.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;

use super::Rpc;
use super::args::{Arg, Args, Kind};
use super::error::{RPC_INVALID_PARAMETER, RPC_MISC_ERROR, RpcError};
use super::method::{self, Answer, Method, answer, done};
use crate::clock;

/// See [`method::all`].
pub const METHODS: &[Method] = &[
    Method {
        name: "getrpcinfo",
        group: "control",
        args: &[],
        about: "The calls that run at the moment, and where the log is.",
        run: getrpcinfo,
    },
    Method {
        name: "help",
        group: "control",
        args: &[Arg::optional("command", Kind::Text, "A method; without it all methods are listed.")],
        about: "Tells of all methods, or of one.",
        run: help,
    },
    Method {
        name: "stop",
        group: "control",
        args: &[Arg::hidden("wait", Kind::Number)],
        about: "Stops the node in order: what it holds in memory is written.",
        run: stop,
    },
    Method { name: "uptime", group: "control", args: &[], about: "Seconds since the server began.", run: uptime },
    Method {
        name: "setmocktime",
        group: "hidden",
        args: &[Arg::required("timestamp", Kind::Number, "Seconds since 1970; 0: the clock runs again.")],
        about: "Sets the node's time, on regtest.",
        run: setmocktime,
    },
    Method {
        name: "syncwithvalidationinterfacequeue",
        group: "hidden",
        args: &[],
        about: "Waits until all that the ledger was asked for is done.",
        run: |rpc, _| {
            rpc.node()?.wait_until_idle()?;
            done()
        },
    },
    Method { name: "echo", group: "hidden", args: ECHO, about: "Gives its arguments back.", run: echo },
    Method { name: "echojson", group: "hidden", args: ECHO, about: "Gives its arguments back.", run: echo },
];

const ECHO: &[Arg] = &[
    Arg::optional("arg0", Kind::Any, ""),
    Arg::optional("arg1", Kind::Any, ""),
    Arg::optional("arg2", Kind::Any, ""),
    Arg::optional("arg3", Kind::Any, ""),
    Arg::optional("arg4", Kind::Any, ""),
    Arg::optional("arg5", Kind::Any, ""),
    Arg::optional("arg6", Kind::Any, ""),
    Arg::optional("arg7", Kind::Any, ""),
    Arg::optional("arg8", Kind::Any, ""),
    Arg::optional("arg9", Kind::Any, ""),
];

/// The longest that `stop` may be told to wait.
const MAX_STOP_WAIT: Duration = Duration::from_secs(60);

/// The calls that run.
#[derive(Default)]
pub struct Calls(Mutex<Vec<(&'static str, Instant)>>);

/// A call that runs until this is dropped.
pub struct Noted<'a> {
    calls: &'a Calls,
    call: (&'static str, Instant),
}

impl Calls {
    /// Notes that a call begins.
    pub fn note(&self, method: &'static str) -> Noted<'_> {
        let call = (method, Instant::now());
        self.0.lock().push(call);
        Noted { calls: self, call }
    }

    /// How many run.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        let mut calls = self.calls.0.lock();
        if let Some(at) = calls.iter().position(|call| *call == self.call) {
            calls.remove(at);
        }
    }
}

fn getrpcinfo(rpc: &Rpc, _: &Args) -> Answer {
    #[derive(Serialize)]
    struct Call {
        method: &'static str,
        /// Microseconds.
        duration: u64,
    }
    #[derive(Serialize)]
    struct RpcInfo {
        active_commands: Vec<Call>,
        logpath: String,
    }
    let calls = rpc.calls.0.lock();
    let shown = calls.iter().map(|(method, begun)| Call { method, duration: begun.elapsed().as_micros() as u64 });
    answer(RpcInfo {
        active_commands: shown.collect(),
        logpath: rpc.config.folder.join("debug.log").display().to_string(),
    })
}

fn help(_: &Rpc, args: &Args) -> Answer {
    if let Some(name) = args.text(0).filter(|name| !name.is_empty()) {
        let method = method::all().find(|method| method.name == name);
        return answer(method.map_or_else(|| format!("help: unknown command: {name}"), Method::help));
    }
    let mut methods: Vec<&Method> = method::all().filter(|method| method.group != "hidden").collect();
    methods.sort_by_key(|method| (method.group, method.name));
    let mut text = String::new();
    for group in methods.chunk_by(|one, next| one.group == next.group) {
        let (first, rest) = group[0].group.split_at(1);
        text += &format!("== {}{rest} ==\n", first.to_uppercase());
        group.iter().for_each(|method| text += &format!("{}\n", method.usage()));
        text.push('\n');
    }
    answer(text.trim_end())
}

fn stop(rpc: &Rpc, args: &Args) -> Answer {
    let wait = args.int::<u32>(0)?;
    rpc.node()?.stop();
    if let Some(milliseconds) = wait {
        std::thread::sleep(Duration::from_millis(milliseconds.into()).min(MAX_STOP_WAIT));
    }
    answer("Groat stopping")
}

fn setmocktime(rpc: &Rpc, args: &Args) -> Answer {
    let node = rpc.node()?;
    if node.params().name != "regtest" {
        let text = "setmocktime is for regression testing (-regtest mode) only";
        return Err(RpcError::new(RPC_MISC_ERROR, text));
    }
    let time = args.int::<i64>(0)?.unwrap_or(-1);
    let seconds = u32::try_from(time).map_err(|_| {
        let text = format!("Mocktime must be in the range [0, {}], not {time}.", u32::MAX);
        RpcError::new(RPC_INVALID_PARAMETER, text)
    })?;
    clock::set(seconds);
    // The hub wakes up for a question, and then sees which of its deadlines have come.
    node.peers()?;
    done()
}

fn uptime(rpc: &Rpc, _: &Args) -> Answer {
    answer(rpc.begun.elapsed().as_secs())
}

fn echo(_: &Rpc, args: &Args) -> Answer {
    answer(args.all())
}

/// The node went away under a call.
impl From<crate::handle::Stopped> for RpcError {
    fn from(stopped: crate::handle::Stopped) -> RpcError {
        RpcError::new(RPC_MISC_ERROR, stopped.to_string())
    }
}
