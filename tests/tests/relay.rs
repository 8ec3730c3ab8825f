//! Transactions and compact blocks between groatd and real bitcoinds, both ways: what one takes all get, and a new block
//! passes as a list of what everybody has already.

use std::path::Path;
use std::time::Instant;

use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Block, OutPoint, ScriptBuf, Transaction};
use groat_tests::bitcoind::{Bitcoind, peers};
use groat_tests::groatd::{Groatd, repeat};
use groat_tests::regtest;
use groat_tests::running::{PATIENCE, Running};
use serde_json::{Value, json};

use crate::peers::{dial, finds_no_fault, link, listening, wait_for_tip};

/// Satoshis that each payment leaves to the miner.
const FEE: u64 = 10_000;

/// The script that anybody spends by giving it: OP_1.
fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51])
}

/// A bitcoind, a groatd linked with it, and another bitcoind that has dialled groatd. All have a chain of today whose first
/// coinbases are mature and anybody's.
struct Line {
    first: Bitcoind,
    node: Running,
    last: Bitcoind,
    coins: Vec<(OutPoint, u64)>,
    _data: tempfile::TempDir,
}

/// Blocks that pay to the hash of OP_1, mined by this bitcoind.
fn mine(bitcoind: &Bitcoind, count: u32) -> String {
    let script = anyone().to_p2wsh().to_hex_string();
    let mined = bitcoind.call("generatetodescriptor", json!([count, format!("raw({script})")]));
    mined.as_array().unwrap().last().unwrap().as_str().unwrap().to_owned()
}

impl Line {
    fn new(folder: &Path) -> Line {
        let (connect, first) = listening(folder, true);
        let hash = mine(&first, 120);
        let data = tempfile::tempdir().unwrap();
        let mut node = Running::start(&Groatd::new("regtest", data.path()), &[&connect]);
        node.wait_for_tip(&hash);
        let last = Bitcoind::start(folder, &["-debug=net".into()]);
        dial(&last, &node, true);
        wait_for_tip(&last, &hash);
        let coins = (1..=20)
            .map(|height| {
                let hash = first.call("getblockhash", json!([height]));
                let hex = first.call("getblock", json!([hash, 0]));
                let block: Block = deserialize_hex(hex.as_str().unwrap()).unwrap();
                (OutPoint::new(block.txdata[0].compute_txid(), 0), block.txdata[0].output[0].value.to_sat())
            })
            .collect();
        Line { first, node, last, coins, _data: data }
    }

    fn payment(&mut self) -> Transaction {
        let (coin, value) = self.coins.pop().unwrap();
        let mut input = regtest::unsigned(coin);
        input.witness.push(anyone().as_bytes());
        regtest::transaction(vec![input], vec![regtest::output(value - FEE, anyone().to_p2wsh())])
    }

    fn pools(&self) -> [(&'static str, Value); 3] {
        [
            ("the first bitcoind", self.first.call("getrawmempool", json!([]))),
            ("groatd", self.node.rpc.call("getrawmempool", json!([])).unwrap()),
            ("the last bitcoind", self.last.call("getrawmempool", json!([]))),
        ]
    }

    /// Waits until all three pools hold this.
    fn all_have(&self, tx: &Transaction) {
        let id = json!(tx.compute_txid().to_string());
        let begun = Instant::now();
        loop {
            let pools = self.pools();
            let lacking = pools.iter().find(|(_, pool)| !pool.as_array().unwrap().contains(&id));
            let Some((who, _)) = lacking else { return };
            assert!(begun.elapsed() < PATIENCE, "{who} has no {id} after {PATIENCE:?}; {}", repeat());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    fn end(self) {
        finds_no_fault(&self.first);
        finds_no_fault(&self.last);
        self.node.stop();
    }
}

#[test]
fn transactions_and_compact_blocks_pass_both_ways_through_groatd() {
    let Some(folder) = peers() else { return };
    let mut line = Line::new(&folder);
    // The first blocks teach both sides who is quick.
    for round in 0..6 {
        let tx = line.payment();
        let (from, to) = if round % 2 == 0 { (&line.first, &line.last) } else { (&line.last, &line.first) };
        from.call("sendrawtransaction", json!([serialize_hex(&tx)]));
        line.all_have(&tx);
        let hash = mine(if round < 3 { from } else { to }, 1);
        line.node.wait_for_tip(&hash);
        wait_for_tip(&line.first, &hash);
        wait_for_tip(&line.last, &hash);
    }
    for (who, bitcoind) in [("first", &line.first), ("last", &line.last)] {
        let link = link(bitcoind);
        for way in ["bytessent_per_msg", "bytesrecv_per_msg"] {
            let compact = link[way]["cmpctblock"].as_u64().unwrap_or(0);
            assert!(compact > 0, "{way} of the {who} bitcoind has no cmpctblock: {link}; {}", repeat());
        }
        let full = link["bytesrecv_per_msg"]["block"].as_u64().unwrap_or(0);
        assert!(
            who == "last" || full == 0,
            "the first bitcoind got whole blocks of {full} bytes: {link}; {}",
            repeat()
        );
    }
    line.end();
}
