//! How much of a core the protocol takes when many peers are linked and transactions keep coming, without sockets: all
//! peers dialled us, each is told of each transaction and asks for it. With a second argument, each peer announces so many
//! percent of the transactions itself, so that hardly two are told the same.
//!
//! `cargo run --release -p groat-net --features sim --example relay -- PEERS [PERCENT]`

use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Amount, ScriptBuf, Transaction, TxIn, TxOut, absolute, transaction};
use groat_chain::params::{Params, RegtestOptions};
use groat_net::addr::{Host, NetAddr, Network};
use groat_net::message::{Message, Version};
use groat_net::peer::{LinkKind, Permissions};
use groat_net::protocol::{Input, Output, PeerId, Protocol, Work};
use groat_net::sim::{Chain, World};
use groat_net::slots::Slots;
use groat_net::timers::Micros;

const PER_SECOND: u64 = 10;
const SECONDS: u64 = 60;

struct Bench {
    protocol: Protocol,
    chain: Chain,
    now: Micros,
    /// What the peers were told or given, not yet answered.
    sent: Vec<(PeerId, Arc<Message>)>,
    spent: Duration,
}

impl Bench {
    fn tell(&mut self, input: Input) {
        let mut out = Vec::new();
        #[expect(clippy::disallowed_methods, reason = "what is measured is the time of the machine")]
        let begun = Instant::now();
        self.protocol.handle(self.now, input, &self.chain, &mut out);
        self.spent += begun.elapsed();
        self.sent.extend(out.into_iter().filter_map(|output| match output {
            Output::Send { to, message } => Some((to, message)),
            _ => None,
        }));
    }

    fn say(&mut self, peer: PeerId, message: Message) {
        self.tell(Input::Message { peer, wire_len: message.weight(), message });
    }

    fn take_spent(&mut self) -> f64 {
        std::mem::take(&mut self.spent).as_secs_f64()
    }
}

fn transaction(n: u64) -> Arc<Transaction> {
    Arc::new(Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::from_consensus(2000),
        input: vec![TxIn::default()],
        output: vec![TxOut { value: Amount::from_sat(n), script_pubkey: ScriptBuf::from(vec![0; 150]) }],
    })
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().expect("a number"));
    let (peers, percent) = (arguments.next().unwrap_or(5000), arguments.next().unwrap_or(0));
    let params = Arc::new(Params::regtest(&RegtestOptions::default()));
    let now = Micros::from_seconds(u64::from(params.genesis.header.time) + 60);
    let mut config = World::config(&params);
    config.dialling.slots = Slots::with_total(2 * usize::try_from(peers).expect("a number of peers"));
    let (protocol, chain) = (Protocol::new(config), Chain::new(params));
    let mut bench = Bench { protocol, chain, now, sent: Vec::new(), spent: Duration::ZERO };
    for n in 0..peers {
        let (peer, addr) = (PeerId(n), NetAddr { host: Host::V4([20, 0, (n >> 8) as u8, n as u8]), port: 8333 });
        let (kind, permissions) = (LinkKind::Inbound, Permissions::default());
        bench.tell(Input::Connected { peer, addr, kind, permissions, network: Network::Ipv4, bind: None });
        bench.say(peer, Message::Version(Box::new(hello(addr, n))));
        bench.say(peer, Message::WtxidRelay);
        bench.say(peer, Message::Verack);
    }
    println!("{peers} peers linked in {:.3} s", bench.take_spent());
    bench.sent.clear();

    let (mut announcing, mut serving, mut hearing) = (0.0, 0.0, 0.0);
    let (mut announced, mut served) = (0, 0);
    let end = now + Duration::from_secs(SECONDS);
    let mut next_tx = (now, 0);
    while bench.now < end {
        let deadline = bench.protocol.deadline().unwrap_or(end);
        bench.now = next_tx.0.min(deadline).max(bench.now);
        if bench.now == next_tx.0 {
            let tx = transaction(next_tx.1);
            let item = Inventory::WTx(tx.compute_wtxid());
            let (_, told) = bench.chain.perform(Work::Transaction(tx), bench.now);
            told.into_iter().for_each(|input| bench.tell(input));
            announcing += bench.take_spent();
            for peer in (0..peers).filter(|peer| (peer * 7 + next_tx.1 * 13) % 100 < percent) {
                bench.say(PeerId(peer), Message::Inv(vec![item]));
            }
            hearing += bench.take_spent();
            next_tx = (next_tx.0 + Duration::from_millis(1000 / PER_SECOND), next_tx.1 + 1);
        } else {
            bench.tell(Input::Tick);
            announcing += bench.take_spent();
        }
        for (peer, message) in std::mem::take(&mut bench.sent) {
            match &*message {
                Message::Inv(items) => {
                    announced += items.len();
                    bench.say(peer, Message::GetData(items.clone()));
                }
                Message::Ping(nonce) => bench.say(peer, Message::Pong(*nonce)),
                _ => {}
            }
        }
        serving += bench.take_spent();
        served += bench.sent.iter().filter(|(_, message)| matches!(**message, Message::Tx(_))).count();
        bench.sent.clear();
    }
    let part = |seconds: f64| 100.0 * seconds / SECONDS as f64;
    println!("{PER_SECOND} tx/s for {SECONDS} s: {announced} announcements, {served} transactions served");
    println!(
        "of one core: announcing {:.2} %, hearing {:.2} %, answering {:.2} %; {:.1} us a second and peer",
        part(announcing),
        part(hearing),
        part(serving),
        (announcing + hearing + serving) * 1e6 / SECONDS as f64 / peers as f64,
    );
}

fn hello(addr: NetAddr, nonce: u64) -> Version {
    Version {
        version: 70016,
        services: 0,
        time: 0,
        receiver: addr,
        nonce: nonce + 1,
        user_agent: "/bench/".into(),
        start_height: 0,
        relay: true,
    }
}
