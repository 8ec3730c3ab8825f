//! How peers talk: headers, blocks and transactions pass between nodes that do not trust each other.
//!
//! This crate knows no disk, no RPC and no consensus rule beyond proof of work. Its heart is a value:
//! [`protocol::Protocol`] holds no socket, clock, thread or OS randomness. Who drives it (the hub of a node, or the
//! simulator) keeps to this contract:
//!
//! - **One call, one input.** [`Protocol::handle`](protocol::Protocol::handle) takes the time, an
//!   [`Input`](protocol::Input) and a [`View`](view::View) of the chain, and appends [`Output`](protocol::Output)s, which
//!   are carried out in order. After each call [`Protocol::deadline`](protocol::Protocol::deadline) says when
//!   [`Input::Tick`](protocol::Input::Tick) is due.
//! - **Time** is the node's wall clock in microseconds, which a test may mock and which may go back: deadlines then come
//!   later, nothing breaks.
//! - **The view** is what the chain is now. It may be ahead of what the protocol was told: the protocol decides from the
//!   view and announces from events. It must not change during a call.
//! - **Work that only the ledger can do** leaves as [`Output::Chain`](protocol::Output::Chain) with a token, and each
//!   comes back once as [`Input::ChainDone`](protocol::Input::ChainDone), in any order, also when the peer it was for is
//!   gone. When it comes back the view must show its effect: accepted headers, a stored block. A new tip is told by
//!   [`Input::TipChanged`](protocol::Input::TipChanged), a stored block that turns out to be invalid by
//!   [`Input::BlockRefused`](protocol::Input::BlockRefused). Out of the initial download each block that joined the chain
//!   is told by [`Input::BlockConnected`](protocol::Input::BlockConnected), after the tip that it came with.
//!   The pool's transactions are told by [`Input::TxAccepted`](protocol::Input::TxAccepted), each before the answer to the
//!   work that brought it.
//!   A block that extends the tip is told by [`Input::BlockStored`](protocol::Input::BlockStored) once it is judged on its
//!   own, so that peers have it while it is connected here.
//! - **Messages of one peer take effect in order**: while the ledger works for a peer, what that peer sends waits, and its
//!   ping is answered after all that came before. No peer waits for another's work. Blocks that we asked for do not wait:
//!   they go to the ledger at once. When a peer has sent too much that waits, it is not read any more
//!   ([`Output::PauseRead`](protocol::Output::PauseRead)); messages that were read already may still be handed in.
//! - **Links** are numbered by the driver, each number once. A link that the protocol ends is forgotten at once; what the
//!   driver says of it afterwards is ignored.
//! - **Same seed, same inputs, same outputs.**
//!
//! The map, from the ground up. Each imports only what stands above it, but for two that all share: `peer`, where each
//! keeps its part of a peer's state, and `protocol`, whose words and whose call they take part in.
//!
//! | module | what it holds |
//! |---|---|
//! | [`peer`] | one peer and the state that each module keeps of it |
//! | [`protocol`] | inputs, outputs, and the one `match` that says which module takes which message |
//! | [`limits`], [`timers`] | every size; every duration and the table of deadlines |
//! | [`addr`], [`bans`] | addresses on every network, and their groups; whom the operator refuses |
//! | [`permissions`] | what an operator lets some peers do |
//! | `bloom`, [`message`] | bloom filters; every message and its payload |
//! | [`wire`] | framing: version 1, version 2 (BIP324), which of them |
//! | [`view`] | what gossip may read of the chain |
//! | `guard`, `ping`, `handshake` | misbehaviour; keeping alive; version to verack |
//! | `headers`, `chainsync` | who has which chain, the low-work defence; outbound peers that stay behind |
//! | `blocks`, `compact` | fetching blocks; compact blocks (BIP152), received and sent |
//! | `txrelay` | announcing and serving transactions |
//! | `recent`, `orphans`, `requests`, `txdownload` | fetching them: what was refused; what waits for its parents; whom to ask |
//! | [`upload`], `filtered`, `serve`, `filters` | what may be sent in a day; serving light clients (BIP37), blocks, filters (BIP157) |
//! | `announce` | telling of new blocks |
//! | [`addrman`], [`local`], `gossip` | the peer book; our own addresses; addresses between peers |
//! | [`slots`], `seeds`, [`dial`], `surplus` | who is let in and who has to go; the first addresses; whom to dial; extra peers |
//! | [`driver`] | sockets, clock and OS randomness: what the protocol runs on outside the simulator |
//! | `sim` | the virtual network (feature `sim`) |

pub mod addr;
pub mod addrman;
mod announce;
pub mod bans;
mod blocks;
mod bloom;
mod chainsync;
mod compact;
pub mod dial;
pub mod driver;
mod filtered;
mod filters;
mod gossip;
mod guard;
mod handshake;
mod headers;
pub mod limits;
pub mod local;
pub mod message;
mod orphans;
pub mod peer;
pub mod permissions;
mod ping;
pub mod protocol;
mod recent;
mod requests;
mod seeds;
mod serve;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod slots;
mod surplus;
pub mod timers;
mod txdownload;
mod txrelay;
pub mod upload;
pub mod view;
pub mod wire;

pub use handshake::PROTOCOL_VERSION;
pub use message::GenTxid;
pub use txrelay::Relayed;
