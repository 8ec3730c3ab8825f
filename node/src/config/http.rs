//! The options about what answers over HTTP: JSON-RPC, REST, metrics. Core's names and defaults, but for the metrics.

use clap::Args;

use super::flag;

/// See [`super::Config`].
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "RPC")]
pub struct Http {
    /// User with salt and hash of a password, as NAME:SALT$HASH; may be repeated
    #[arg(long, value_name = "NAME:SALT$HASH")]
    pub rpcauth: Vec<String>,
    /// User beside the cookie; --rpcauth keeps the password out of the configuration
    #[arg(long, value_name = "NAME")]
    pub rpcuser: Option<String>,
    /// Password of --rpcuser
    #[arg(long, value_name = "PASSWORD")]
    pub rpcpassword: Option<String>,
    /// Where the cookie is written; 0: nowhere [default: .cookie in the chain's folder]
    #[arg(long, value_name = "FILE|0")]
    pub rpccookiefile: Option<String>,
    /// Who can read the cookie: owner, group or all [default: owner]
    #[arg(long, value_name = "WHO")]
    pub rpccookieperms: Option<String>,
    /// Methods that a user may call, as NAME:METHOD,METHOD; may be repeated: then only what all of them name
    #[arg(long, value_name = "NAME:METHODS")]
    pub rpcwhitelist: Vec<String>,
    /// Users without --rpcwhitelist may call nothing [default: 1, without any --rpcwhitelist 0]
    #[arg(long, value_name = "0|1", value_parser = flag)]
    pub rpcwhitelistdefault: Option<bool>,
    /// Addresses that may call beside this machine's own (1.2.3.4, 1.2.3.4/24, 1.2.3.4/255.255.255.0); may be repeated
    #[arg(long, value_name = "SUBNET")]
    pub rpcallowip: Vec<String>,
    /// Address to listen on, with or without a port; only together with --rpcallowip; may be repeated [default: loopback]
    #[arg(long, value_name = "ADDR")]
    pub rpcbind: Vec<String>,
    /// Calls that run at once [default: 16]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub rpcthreads: Option<i64>,
    /// Calls that may wait [default: 64]
    #[arg(long, value_name = "N", allow_negative_numbers = true, hide = true)]
    pub rpcworkqueue: Option<i64>,
    /// Seconds that a link may be silent; 0: for ever [default: 30]
    #[arg(long, value_name = "SECONDS", hide = true)]
    pub rpcservertimeout: Option<u64>,
    /// Nothing: Core checks its own documentation with it
    #[arg(long, value_name = "0|1", value_parser = flag, hide = true)]
    pub rpcdoccheck: Option<bool>,
    /// Answer REST, to everybody who may call and without a password
    #[arg(long, value_name = "0|1", value_parser = flag, default_value = "0", action = clap::ArgAction::Set)]
    pub rest: bool,
    /// Serve /metrics for Prometheus, /healthy and /ready here, without a password; without an address on 127.0.0.1:9332
    #[arg(long, value_name = "ADDR[:PORT]", num_args = 0..=1, default_missing_value = "1")]
    pub metrics: Option<String>,
}
