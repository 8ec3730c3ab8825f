//! Methods about bans. Core: `setban` and its kind in `src/rpc/net.cpp`.

use groat_net::addr::Host;
use groat_net::bans::Subnet;
use groat_net::protocol::Command;
use serde::Serialize;

use super::Rpc;
use super::args::{Arg, Args, Kind};
use super::error::*;
use super::method::{Answer, Method, answer, done};
use crate::clock;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[
    Method { name: "clearbanned", group: "network", args: &[], about: "Takes all bans back.", run: clearbanned },
    Method { name: "listbanned", group: "network", args: &[], about: "The bans.", run: listbanned },
    Method {
        name: "setban",
        group: "network",
        args: &[
            Arg::required("subnet", Kind::Text, "An address, or a subnet as address/bits or address/mask."),
            Arg::required("command", Kind::Text, "add, or remove."),
            Arg::optional("bantime", Kind::Number, "Seconds it lasts; 0: as --bantime says."),
            Arg::optional("absolute", Kind::Bool, "bantime is when it ends, in seconds since 1970."),
        ],
        about: "Bans addresses, or takes a ban back. Links with them end.",
        run: setban,
    },
];

fn clearbanned(rpc: &Rpc, _: &Args) -> Answer {
    rpc.node()?.with_hub(|hub| hub.command(Command::ClearBans))?;
    done()
}

fn listbanned(rpc: &Rpc, _: &Args) -> Answer {
    #[derive(Serialize)]
    struct Banned {
        address: String,
        ban_created: u64,
        banned_until: u64,
        ban_duration: u64,
        time_remaining: u64,
    }
    let now = clock::micros().seconds();
    let bans = rpc.node()?.with_hub(|hub| hub.protocol().bans().clone())?;
    let lasting = bans.iter().filter(|(_, ban)| now <= ban.until).map(|(subnet, ban)| Banned {
        address: subnet.to_string(),
        ban_created: ban.created,
        banned_until: ban.until,
        ban_duration: ban.until.saturating_sub(ban.created),
        time_remaining: ban.until.saturating_sub(now),
    });
    answer(lasting.collect::<Vec<_>>())
}

fn setban(rpc: &Rpc, args: &Args) -> Answer {
    let (text, now) = (args.text(0).unwrap_or_default(), clock::micros().seconds());
    let add = match args.text(1) {
        Some("add") => true,
        Some("remove") => false,
        _ => return Err(super::method::help_of("setban")),
    };
    let no_such = |code, text: &str| Err(RpcError::new(code, text));
    let node = rpc.node()?;
    let host: Option<Host> = text.parse().ok();
    let host = host.map(|host| node.with_hub(move |hub| hub.host(host))).transpose()?;
    let Some(subnet) = host.map(Subnet::from).or_else(|| text.parse::<Subnet>().ok()) else {
        return no_such(RPC_CLIENT_INVALID_IP_OR_SUBNET, "Error: Invalid IP/Subnet");
    };
    let banned = node.with_hub(move |hub| match host {
        // A single address is banned by every ban on a subnet that it is in.
        Some(host) if add => hub.protocol().bans().holds_for(&host, now),
        _ => hub.protocol().bans().iter().any(|(other, ban)| *other == subnet && now < ban.until),
    })?;
    if !add {
        if !banned {
            let text = "Error: Unban failed. Requested address/subnet was not previously manually banned.";
            return no_such(RPC_CLIENT_INVALID_IP_OR_SUBNET, text);
        }
        node.with_hub(move |hub| hub.command(Command::Unban(subnet)))?;
        return done();
    }
    if banned {
        return no_such(RPC_CLIENT_NODE_ALREADY_ADDED, "Error: IP/Subnet already banned");
    }
    let (time, absolute) = (args.int::<i64>(2)?.unwrap_or(0), args.bool(3).unwrap_or_default());
    let until = match u64::try_from(time) {
        Ok(time) if absolute && time >= now => time,
        _ if absolute => return no_such(RPC_INVALID_PARAMETER, "Error: Absolute timestamp is in the past"),
        Ok(time) if time > 0 => now.saturating_add(time),
        _ => now.saturating_add(rpc.config.ban_time),
    };
    node.with_hub(move |hub| hub.command(Command::Ban { subnet, until }))?;
    done()
}
