//! Compact blocks and parts of blocks as `groatd` serves them over a socket: the hub, the ledger's thread and the threads
//! that read blocks, with a peer that speaks for itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bitcoin::bip152::BlockTransactionsRequest;
use bitcoin::consensus::deserialize;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Block, BlockHash};
use groat_net::addr::{Host, NetAddr};
use groat_net::message::{Message, Version};
use groat_net::peer::{NODE_NETWORK, NODE_WITNESS};
use groat_net::wire::{Codec, Encoded};
use groat_tests::groatd::{Groatd, repeat};
use groat_tests::regtest::MAGIC;
use groat_tests::running::{PATIENCE, Running};
use serde_json::json;

const ADDRESS: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

/// A link to a node, over version 1 of the transport.
struct Link {
    stream: TcpStream,
    codec: Codec,
    heard: Vec<Message>,
}

impl Link {
    fn new(node: &Running) -> Link {
        let stream = TcpStream::connect(node.peers).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut link = Link { stream, codec: Codec::v1(MAGIC), heard: Vec::new() };
        link.say(&Message::Version(Box::new(Version {
            version: 70_016,
            services: NODE_NETWORK | NODE_WITNESS,
            time: 0,
            receiver: NetAddr { host: Host::V6([0; 16]), port: 0 },
            nonce: 1,
            user_agent: "/test/".into(),
            start_height: 0,
            relay: true,
        })));
        link.say(&Message::Verack);
        link
    }

    fn say(&mut self, message: &Message) {
        self.codec.send(&Encoded::new(message));
        self.stream.write_all(&self.codec.take_outgoing()).unwrap();
    }

    /// The next message that `meant` makes something of.
    fn wait_for<T>(&mut self, what: &str, meant: impl Fn(&Message) -> Option<T>) -> T {
        let begun = Instant::now();
        let mut bytes = [0; 65536];
        loop {
            for message in std::mem::take(&mut self.heard) {
                if let Some(found) = meant(&message) {
                    return found;
                }
            }
            assert!(begun.elapsed() < PATIENCE, "no {what} in {PATIENCE:?}; {}", repeat());
            // Nothing comes for a while, or the link has ended: the time shows.
            let Ok(count) = self.stream.read(&mut bytes) else { continue };
            let mut received = Vec::new();
            self.codec.receive(&bytes[..count], &mut received).unwrap();
            self.heard.extend(received.into_iter().map(|one| one.message));
        }
    }
}

#[test]
fn a_new_block_is_pushed_and_its_parts_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let node = Running::start(&Groatd::new("regtest", folder.path()), &["--peerbloomfilters"]);
    let generate = |count: u32| -> Vec<BlockHash> {
        let hashes = node.rpc.call("generatetoaddress", json!([count, ADDRESS])).unwrap();
        hashes.as_array().unwrap().iter().map(|hash| hash.as_str().unwrap().parse().unwrap()).collect()
    };
    let old = generate(12);
    let mut link = Link::new(&node);
    link.wait_for("sendcmpct", |message| matches!(message, Message::SendCmpct { version: 2, .. }).then_some(()));
    link.say(&Message::SendCmpct { announce: 1, version: 2 });
    let whole = |link: &mut Link, item: Inventory| -> Block {
        link.say(&Message::GetData(vec![item]));
        link.wait_for("block", |message| match message {
            Message::Block(bytes) => Some(deserialize(bytes).unwrap()),
            _ => None,
        })
    };
    let parts = |link: &mut Link, hash: BlockHash, indexes: &[u64]| {
        link.say(&Message::GetBlockTxn(BlockTransactionsRequest { block_hash: hash, indexes: indexes.to_vec() }));
    };

    // A block is pushed to who has its parent.
    let tip = whole(&mut link, Inventory::WitnessBlock(old[11]));
    link.say(&Message::Headers(vec![tip.header]));
    link.say(&Message::Ping(1));
    link.wait_for("pong", |message| (*message == Message::Pong(1)).then_some(()));
    let peers = node.rpc.call("getpeerinfo", json!([])).unwrap();
    assert_eq!((&peers[0]["bip152_hb_from"], &peers[0]["bip152_hb_to"]), (&json!(true), &json!(false)), "{peers}");
    let new = generate(1)[0];
    let pushed = link.wait_for("cmpctblock", |message| match message {
        Message::CmpctBlock(block) => Some(block.clone()),
        _ => None,
    });
    assert_eq!((pushed.header.block_hash(), pushed.short_ids.len(), pushed.prefilled_txs.len()), (new, 0, 1));

    // Its transactions come from memory, those of the block below from disk.
    let block = whole(&mut link, Inventory::WitnessBlock(new));
    assert_eq!(block.txdata[0], pushed.prefilled_txs[0].tx);
    for block in [&block, &tip] {
        parts(&mut link, block.block_hash(), &[0]);
        let served = link.wait_for("blocktxn", |message| match message {
            Message::BlockTxn(served) => Some(served.clone()),
            _ => None,
        });
        assert_eq!((served.block_hash, &served.transactions), (block.block_hash(), &block.txdata));
    }
    link.say(&Message::GetData(vec![Inventory::CompactBlock(old[11])]));
    let served = link.wait_for("cmpctblock", |message| match message {
        Message::CmpctBlock(block) => Some(block.clone()),
        _ => None,
    });
    assert_eq!(served.header, tip.header);

    // Deep blocks come whole; without witnesses who asks so.
    assert_eq!(whole(&mut link, Inventory::CompactBlock(old[0])).block_hash(), old[0]);
    parts(&mut link, old[0], &[0]);
    let deep = link.wait_for("block", |message| match message {
        Message::Block(bytes) => Some(deserialize::<Block>(bytes).unwrap()),
        _ => None,
    });
    assert_eq!(deep.block_hash(), old[0]);
    let stripped = whole(&mut link, Inventory::Block(new));
    assert!(!block.txdata[0].input[0].witness.is_empty() && stripped.txdata[0].input[0].witness.is_empty());
    assert!(stripped.check_merkle_root());
    node.stop();
}
