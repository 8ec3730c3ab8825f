//! The options about who is told of what: ZeroMQ and commands. Core's names and defaults.

use clap::Args;

use crate::zmq::{Notification, Topic};

/// Core: `DEFAULT_ZMQ_SNDHWM`.
const DEFAULT_ZMQ_SNDHWM: i64 = 1000;

/// See [`super::Config`].
#[derive(Debug, Args)]
#[command(next_help_heading = "Notifications")]
pub struct Notify {
    /// Command run when a warning is raised; %s: what it says
    #[arg(long, value_name = "CMD")]
    pub alertnotify: Option<String>,
    /// Command run for each new tip after the first sync; %s: its hash
    #[arg(long, value_name = "CMD")]
    pub blocknotify: Option<String>,
    /// Command run once the node has started
    #[arg(long, value_name = "CMD")]
    pub startupnotify: Option<String>,
    /// Command run, and waited for, before the node stops; may be repeated
    #[arg(long, value_name = "CMD")]
    pub shutdownnotify: Vec<String>,
    /// Publish the hash of each new tip by ZeroMQ here (tcp://HOST:PORT or unix:PATH); may be repeated, as all of these
    #[arg(long, value_name = "ADDR")]
    pub zmqpubhashblock: Vec<String>,
    /// Publish the ids of new transactions and of those in blocks
    #[arg(long, value_name = "ADDR")]
    pub zmqpubhashtx: Vec<String>,
    /// Publish the block of each new tip
    #[arg(long, value_name = "ADDR")]
    pub zmqpubrawblock: Vec<String>,
    /// Publish new transactions and those in blocks
    #[arg(long, value_name = "ADDR")]
    pub zmqpubrawtx: Vec<String>,
    /// Publish which blocks join and leave the chain and which transactions the pool, in order
    #[arg(long, value_name = "ADDR")]
    pub zmqpubsequence: Vec<String>,
    /// Messages that may wait for a subscriber; 0: no bound but that of bytes
    #[arg(long, value_name = "N", default_value_t = DEFAULT_ZMQ_SNDHWM)]
    pub zmqpubhashblockhwm: i64,
    /// The same for ids of transactions
    #[arg(long, value_name = "N", default_value_t = DEFAULT_ZMQ_SNDHWM)]
    pub zmqpubhashtxhwm: i64,
    /// The same for blocks
    #[arg(long, value_name = "N", default_value_t = DEFAULT_ZMQ_SNDHWM)]
    pub zmqpubrawblockhwm: i64,
    /// The same for transactions
    #[arg(long, value_name = "N", default_value_t = DEFAULT_ZMQ_SNDHWM)]
    pub zmqpubrawtxhwm: i64,
    /// The same for the sequence
    #[arg(long, value_name = "N", default_value_t = DEFAULT_ZMQ_SNDHWM)]
    pub zmqpubsequencehwm: i64,
}

impl Notify {
    /// What is to be published where, in Core's order.
    pub fn zmq(&self) -> anyhow::Result<Vec<Notification>> {
        let options = |topic| match topic {
            Topic::HashBlock => (&self.zmqpubhashblock, self.zmqpubhashblockhwm),
            Topic::HashTx => (&self.zmqpubhashtx, self.zmqpubhashtxhwm),
            Topic::RawBlock => (&self.zmqpubrawblock, self.zmqpubrawblockhwm),
            Topic::RawTx => (&self.zmqpubrawtx, self.zmqpubrawtxhwm),
            Topic::Sequence => (&self.zmqpubsequence, self.zmqpubsequencehwm),
        };
        let all = Topic::ALL.into_iter().flat_map(|topic| {
            let (addresses, most) = options(topic);
            addresses
                .iter()
                .filter(|address| *address != "0")
                .map(move |address| Notification::new(topic, address, most))
        });
        all.collect()
    }
}
