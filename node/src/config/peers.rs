//! The options about links: proxies, which networks, whom to ask for peers, who may do what. Core's names and defaults.

use clap::ArgAction::Set;
use clap::Args;

use super::flag;

/// See [`super::Config`].
#[derive(Debug, Args)]
#[command(next_help_heading = "Peers")]
pub struct Peers {
    /// SOCKS5 proxy for all links, or those over one network (=ipv4, =ipv6, =onion, =cjdns after it); may be repeated
    #[arg(long, value_name = "ADDR[=NET]", num_args = 0..=1, default_missing_value = "")]
    pub proxy: Vec<String>,
    /// SOCKS5 proxy for onion services; 0: dial none [default: as --proxy, or Tor's own by --torcontrol]
    #[arg(long, value_name = "ADDR|0")]
    pub onion: Option<String>,
    /// Give each link through a proxy credentials of its own: Tor then takes another way for each
    #[arg(long, default_value = "1", value_name = "0|1", value_parser = flag, action = Set)]
    pub proxyrandomize: bool,
    /// Dial over this network only, of one's own accord (ipv4, ipv6, onion, cjdns); may be repeated
    #[arg(long, value_name = "NET")]
    pub onlynet: Vec<String>,
    /// Addresses in fc00::/8 are those of the CJDNS mesh, which this machine is part of
    #[arg(long, default_value = "0", value_name = "0|1", value_parser = flag, action = Set)]
    pub cjdnsreachable: bool,
    /// Look up the names of peers; 0: only a proxy resolves them
    #[arg(long, default_value = "1", value_name = "0|1", value_parser = flag, action = Set)]
    pub dns: bool,
    /// Ask the network's DNS seeds for peers if few are known [default: 1, with --connect 0]
    #[arg(long, value_name = "0|1", value_parser = flag)]
    pub dnsseed: Option<bool>,
    /// Ask the DNS seeds in any case
    #[arg(long, default_value = "0", value_name = "0|1", value_parser = flag, action = Set)]
    pub forcednsseed: bool,
    /// Dial the addresses that come with the program if no others are known
    #[arg(long, default_value = "1", value_name = "0|1", value_parser = flag, action = Set)]
    pub fixedseeds: bool,
    /// Ask this node for addresses, once; may be repeated
    #[arg(long, value_name = "ADDR")]
    pub seednode: Vec<String>,
    /// Address at which peers can reach this node; may be repeated
    #[arg(long, value_name = "ADDR")]
    pub externalip: Vec<String>,
    /// Learn from peers at which addresses they reach this node [default: 1 when listening without --proxy, --externalip]
    #[arg(long, value_name = "0|1", value_parser = flag)]
    pub discover: Option<bool>,
    /// Ask the router to let peers in (PCP, NAT-PMP) [default: 1 when listening without --proxy]
    #[arg(long, value_name = "0|1", value_parser = flag)]
    pub natpmp: Option<bool>,
    /// Offer this node as an onion service by Tor's control port [default: 1 when listening]
    #[arg(long, value_name = "0|1", value_parser = flag)]
    pub listenonion: Option<bool>,
    /// Tor's control port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9051")]
    pub torcontrol: String,
    /// Password for Tor's control port, where it wants one
    #[arg(long, value_name = "TEXT")]
    pub torpassword: Option<String>,
    /// Let peers at these addresses do more: bloomfilter, noban, forcerelay, relay, mempool, download, addr, all; in, out:
    /// those who dial us, those whom we dial on the operator's word; may be repeated
    #[arg(long, value_name = "[PERM,..@]SUBNET", num_args = 0..=1, default_missing_value = "")]
    pub whitelist: Vec<String>,
    /// Listen on this address too, and let those who come in there do more; may be repeated
    #[arg(long, value_name = "[PERM,..@]ADDR:PORT")]
    pub whitebind: Vec<String>,
    /// Peers of --whitelist and --whitebind without named permissions may send transactions [default: 1]
    #[arg(long, value_name = "0|1", value_parser = flag)]
    pub whitelistrelay: Option<bool>,
    /// And their transactions are relayed again though they are known
    #[arg(long, default_value = "0", value_name = "0|1", value_parser = flag, action = Set)]
    pub whitelistforcerelay: bool,
    /// Seconds that a ban lasts if `setban` names none
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    pub bantime: u64,
    /// Not supported: taken to be refused, since it would be missed
    #[arg(long, default_value = "0", value_name = "0|1", value_parser = flag, action = Set, hide = true)]
    pub privatebroadcast: bool,
    /// Make links; 0: none until `setnetworkactive true`
    #[arg(long, default_value = "1", value_name = "0|1", value_parser = flag, action = Set)]
    pub networkactive: bool,
}
