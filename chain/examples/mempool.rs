//! Fills a mempool with transactions and mines them: how fast they are taken in, what they take of memory by the pool's
//! own count and by the system's, how long a block template takes and how long the pool is locked when a block comes.
//! `cargo run --release -p groat-chain --example mempool -- [TRANSACTIONS]`

#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::sync::Arc;
use std::time::Instant;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, transaction};
use groat_chain::ledger::{Incoming, Ledger, Options};
use groat_chain::mempool::{BlockLimits, Follower, Limits, Mempool, Policy, stage};
use groat_chain::params::Params;
use groat_chain::pool::Pool;
use groat_chain::rules::pow::check_proof_of_work;
use groat_chain::script::VerdictCache;
use groat_chain::store::mem::MemStore;
use parking_lot::RwLock;

const NOW: u32 = 1_700_000_000;
/// Outputs of the transactions that split the coinbases.
const SPLIT: u64 = 2000;

fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51]).to_p2wsh()
}

fn spend(outpoint: OutPoint, outputs: u64, value: u64) -> Transaction {
    let output = TxOut { value: Amount::from_sat(value), script_pubkey: anyone() };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: outpoint,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[0x51]]),
        }],
        output: vec![output; outputs as usize],
    }
}

fn mine(ledger: &mut Ledger, height: u32, transactions: Vec<Transaction>) -> Transaction {
    let mut coinbase = spend(OutPoint::null(), 1, 5_000_000_000);
    coinbase.input[0].script_sig = bitcoin::script::Builder::new().push_int(height.into()).push_int(0).into_script();
    coinbase.input[0].witness = Witness::from_slice(&[[0; 32]]);
    let previous = ledger.tip();
    let params = ledger.params().clone();
    let header = bitcoin::block::Header {
        version: bitcoin::block::Version::from_consensus(0x2000_0000),
        prev_blockhash: previous,
        merkle_root: bitcoin::TxMerkleNode::all_zeros(),
        time: params.genesis.header.time + height,
        bits: params.genesis.header.bits,
        nonce: 0,
    };
    let mut block = Block { header, txdata: [vec![coinbase], transactions].concat() };
    let root = block.witness_root().expect("there is a coinbase");
    let commitment = Block::compute_witness_commitment(&root, &[0; 32]);
    let script = [&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed][..], commitment.as_byte_array()].concat();
    block.txdata[0].output.push(TxOut { value: Amount::ZERO, script_pubkey: script.into() });
    block.header.merkle_root = block.compute_merkle_root().expect("there is a coinbase");
    while check_proof_of_work(block.block_hash(), block.header.bits, &params).is_err() {
        block.header.nonce += 1;
    }
    let incoming = Incoming::decode(bitcoin::consensus::serialize(&block), &params).expect("it was just made");
    ledger.accept_block(incoming, None, NOW).expect("no disk").expect("it keeps the rules");
    assert_eq!(ledger.activate_fully().expect("no disk"), []);
    block.txdata.swap_remove(0)
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn main() {
    let count: u64 = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(100_000);
    let mut params = Params::by_name("regtest").expect("a known network");
    params.coinbase_maturity = 1;
    let (params, threads) = (Arc::new(params), Arc::new(Pool::new(0)));
    let options = Options { assumed_valid: None, table_bytes: 1 << 30, prune: None };
    let mut ledger = Ledger::open(params.clone(), Arc::new(MemStore::default()), threads, options).expect("memory");
    let pool = Arc::new(RwLock::new(Mempool::new(Policy::default(), params.genesis_hash)));
    let verdicts = Arc::new(VerdictCache::new(32 << 20, [1; 32]));
    let (now, returned) = (Box::new(|| u64::from(NOW)), Box::new(|_, _| ()));
    ledger.set_follower(Box::new(Follower { pool: pool.clone(), verdicts: verdicts.clone(), now, returned }));
    ledger.set_verdicts(verdicts.clone());

    let splits = count.div_ceil(SPLIT);
    let coinbases: Vec<_> = (1..=splits as u32).map(|height| mine(&mut ledger, height, Vec::new())).collect();
    let each = 5_000_000_000 / SPLIT - 10;
    let mut coins = Vec::new();
    for (number, coinbase) in coinbases.iter().enumerate() {
        let tx = spend(OutPoint::new(coinbase.compute_txid(), 0), SPLIT, each);
        coins.extend((0..SPLIT).map(|vout| OutPoint::new(tx.compute_txid(), vout as u32)));
        mine(&mut ledger, (splits as usize + number + 1) as u32, vec![tx]);
    }
    let offered: Vec<_> =
        (0..count).map(|number| Arc::new(spend(coins[number as usize], 2, each / 2 - 1000 - number % 1000))).collect();

    let (before, begun) = (resident(), Instant::now());
    for tx in &offered {
        let tx = Arc::new((**tx).clone());
        let staged = stage(tx, NOW.into(), Limits::Held, &pool.read(), &ledger).expect("no disk").expect("it is valid");
        staged.check_scripts(&verdicts).expect("anyone may");
        pool.write().insert(staged, NOW.into()).expect("there is room");
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{count} transactions without signatures taken in {seconds:.2} s: {:.0} a second", count as f64 / seconds);
    let (counted, measured) = (pool.read().memory() as u64, resident() - before);
    println!("memory: {} bytes each by the pool's count, {} by the system's", counted / count, measured / count);

    let begun = Instant::now();
    let selected = pool.read().select(&BlockLimits::default(), 1_000_000, NOW);
    println!("{} transactions chosen for a block in {:?}", selected.transactions.len(), begun.elapsed());
    let block = selected.transactions.iter().map(|chosen| (*chosen.tx).clone()).collect();
    let begun = Instant::now();
    mine(&mut ledger, (2 * splits + 1) as u32, block);
    println!("that block made and connected in {:?}; {} are left", begun.elapsed(), pool.read().len());
}
