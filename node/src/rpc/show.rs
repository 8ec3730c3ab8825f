//! Headers, blocks and transactions as JSON, with Core's keys in Core's order (`src/rpc/blockchain.cpp`,
//! `src/core_io.cpp`). Reads no disk.

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, CompactTarget, Target, Transaction, Txid, Work, Wtxid};
use groat_chain::block::Block;
use groat_chain::coins::Coin;
use groat_chain::params::{AddressSet, Params};
use groat_chain::rules::branch::median_time_past;
use groat_chain::rules::pow::derive_target;
use groat_chain::tree::{Id, Tree};
use hex::DisplayHex;
use serde::Serialize;

use super::number::{Btc, Real};
use super::script::{ScriptPubKey, asm};

/// How hard a target is, as a multiple of the easiest of the main network. Core: `GetDifficulty`.
pub fn difficulty(bits: CompactTarget) -> Real {
    let bits = bits.to_consensus();
    let exponent = (bits >> 24) as i32;
    // Powers of two are exact: one step is as good as Core's many.
    Real(f64::from(0xffff) / f64::from(bits & 0x00ff_ffff) * 256_f64.powi(29 - exponent))
}

/// A target as 64 hex digits.
pub fn target(bits: CompactTarget, params: &Params) -> String {
    derive_target(bits, params).unwrap_or(Target::ZERO).to_be_bytes().to_lower_hex_string()
}

/// Work as 64 hex digits.
pub fn work(work: Work) -> String {
    work.to_be_bytes().to_lower_hex_string()
}

/// Compact form as eight hex digits.
pub fn bits(bits: CompactTarget) -> String {
    format!("{:08x}", bits.to_consensus())
}

/// Hex of whole blocks: [`DisplayHex`] goes letter by letter, which takes longer than reading them from disk.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = vec![0; 2 * bytes.len()];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    String::from_utf8(text).expect("digits are ASCII")
}

/// A header. Core: `blockheaderToJSON`.
#[derive(Serialize)]
pub struct HeaderView {
    hash: String,
    confirmations: i64,
    height: u32,
    version: i32,
    #[serde(rename = "versionHex")]
    version_hex: String,
    merkleroot: String,
    time: u32,
    mediantime: u32,
    nonce: u32,
    bits: String,
    target: String,
    difficulty: Real,
    chainwork: String,
    #[serde(rename = "nTx")]
    n_tx: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    previousblockhash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nextblockhash: Option<String>,
}

impl HeaderView {
    /// Shows a header of the tree.
    pub fn new(tree: &Tree, id: Id, params: &Params) -> HeaderView {
        let (node, header) = (tree.node(id), tree.header(id));
        let active = tree.is_active(id);
        let tip = tree.node(tree.tip()).height;
        let next = active.then(|| tree.active(node.height + 1)).flatten();
        HeaderView {
            hash: node.hash.to_string(),
            confirmations: if active { i64::from(tip) - i64::from(node.height) + 1 } else { -1 },
            height: node.height,
            version: header.version.to_consensus(),
            version_hex: format!("{:08x}", header.version.to_consensus()),
            merkleroot: header.merkle_root.to_string(),
            time: node.time,
            mediantime: median_time_past(&tree.branch(id)),
            nonce: header.nonce,
            bits: bits(node.bits),
            target: target(node.bits, params),
            difficulty: difficulty(node.bits),
            chainwork: work(node.work),
            n_tx: node.tx_count,
            previousblockhash: node.parent().map(|parent| tree.node(parent).hash.to_string()),
            nextblockhash: next.map(|next| tree.node(next).hash.to_string()),
        }
    }
}

/// A block. Core: `blockToJSON`.
#[derive(Serialize)]
pub struct BlockView {
    #[serde(flatten)]
    header: HeaderView,
    strippedsize: usize,
    size: usize,
    weight: usize,
    coinbase_tx: CoinbaseView,
    tx: Transactions,
}

/// Core: `coinbaseTxToJSON`.
#[derive(Serialize)]
struct CoinbaseView {
    version: u32,
    locktime: u32,
    sequence: u32,
    coinbase: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    witness: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Transactions {
    Ids(Vec<String>),
    Whole(Vec<TransactionView>),
}

/// How much of a block's transactions to show.
pub enum Detail {
    /// Their ids.
    Ids,
    /// All but the outputs they spend; fees where the spent coins are known.
    Transactions(Option<Vec<Coin>>),
    /// The outputs they spend as well.
    Prevouts(Option<Vec<Coin>>),
}

impl BlockView {
    /// Shows a block that has a transaction at least.
    pub fn new(header: HeaderView, block: &Block, detail: Detail, addresses: AddressSet) -> BlockView {
        let coinbase = &block.transactions[0];
        let input = &coinbase.input[0];
        let (spent, prevouts) = match detail {
            Detail::Ids => (None, None),
            Detail::Transactions(spent) => (Some(spent), Some(false)),
            Detail::Prevouts(spent) => (Some(spent), Some(true)),
        };
        let tx = match prevouts {
            None => Transactions::Ids(block.txids.iter().map(Txid::to_string).collect()),
            Some(prevouts) => {
                let mut coins = spent.flatten();
                let ids = block.txids.iter().zip(&block.wtxids);
                let whole = block.transactions.iter().zip(ids).enumerate().map(|(number, (transaction, ids))| {
                    // The coins run in block order; the coinbase spends none.
                    let spent = coins.as_mut().filter(|_| number > 0).map(|coins| {
                        let rest = coins.split_off(transaction.input.len().min(coins.len()));
                        std::mem::replace(coins, rest)
                    });
                    TransactionView::new(transaction, ids, spent.as_deref(), prevouts, addresses)
                });
                Transactions::Whole(whole.collect())
            }
        };
        BlockView {
            header,
            strippedsize: block.stripped_size,
            size: block.size,
            weight: block.weight(),
            coinbase_tx: CoinbaseView {
                version: coinbase.version.0 as u32,
                locktime: coinbase.lock_time.to_consensus_u32(),
                sequence: input.sequence.0,
                coinbase: input.script_sig.as_bytes().to_lower_hex_string(),
                witness: input.witness.nth(0).map(|item| item.to_lower_hex_string()),
            },
            tx,
        }
    }
}

/// A transaction. Core: `TxToUniv`.
#[derive(Serialize)]
pub struct TransactionView {
    txid: String,
    hash: String,
    version: u32,
    size: usize,
    vsize: u64,
    weight: u64,
    locktime: u32,
    vin: Vec<Input>,
    vout: Vec<Output>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fee: Option<Btc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

#[derive(Serialize)]
struct Input {
    #[serde(skip_serializing_if = "Option::is_none")]
    coinbase: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    txid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vout: Option<u32>,
    #[serde(rename = "scriptSig", skip_serializing_if = "Option::is_none")]
    script_sig: Option<ScriptSig>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    txinwitness: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prevout: Option<Prevout>,
    sequence: u32,
}

#[derive(Serialize)]
struct ScriptSig {
    asm: String,
    hex: String,
}

#[derive(Serialize)]
struct Prevout {
    generated: bool,
    height: u32,
    value: Btc,
    #[serde(rename = "scriptPubKey")]
    script_pubkey: ScriptPubKey,
}

#[derive(Serialize)]
struct Output {
    value: Btc,
    n: usize,
    #[serde(rename = "scriptPubKey")]
    script_pubkey: ScriptPubKey,
}

impl TransactionView {
    /// Shows a transaction with its ids. `spent` are the coins of its inputs, in order, where they are known.
    pub fn new(
        transaction: &Transaction,
        (txid, wtxid): (&Txid, &Wtxid),
        spent: Option<&[Coin]>,
        prevouts: bool,
        addresses: AddressSet,
    ) -> TransactionView {
        let is_coinbase = transaction.is_coinbase();
        let weight = transaction.weight().to_wu();
        let vin = transaction.input.iter().enumerate().map(|(number, input)| Input {
            coinbase: is_coinbase.then(|| input.script_sig.as_bytes().to_lower_hex_string()),
            txid: (!is_coinbase).then(|| input.previous_output.txid.to_string()),
            vout: (!is_coinbase).then_some(input.previous_output.vout),
            script_sig: (!is_coinbase).then(|| ScriptSig {
                asm: asm(&input.script_sig, true),
                hex: input.script_sig.as_bytes().to_lower_hex_string(),
            }),
            txinwitness: input.witness.iter().map(|item| item.to_lower_hex_string()).collect(),
            prevout: spent.filter(|_| prevouts).and_then(|spent| spent.get(number)).map(|coin| Prevout {
                generated: coin.is_coinbase(),
                height: coin.height(),
                value: Btc(coin.value()),
                script_pubkey: ScriptPubKey::new(coin.script_pubkey(), addresses),
            }),
            sequence: input.sequence.0,
        });
        let vout = transaction.output.iter().enumerate().map(|(n, output)| Output {
            value: Btc(output.value),
            n,
            script_pubkey: ScriptPubKey::new(&output.script_pubkey, addresses),
        });
        let paid: Amount = transaction.output.iter().map(|output| output.value).sum();
        let fee = spent.and_then(|spent| spent.iter().map(Coin::value).sum::<Amount>().checked_sub(paid));
        TransactionView {
            txid: txid.to_string(),
            hash: wtxid.to_string(),
            version: transaction.version.0 as u32,
            size: transaction.total_size(),
            vsize: weight.div_ceil(4),
            weight,
            locktime: transaction.lock_time.to_consensus_u32(),
            vin: vin.collect(),
            vout: vout.collect(),
            fee: fee.map(Btc),
            hex: Some(serialize_hex(transaction)),
        }
    }

    /// Leaves the bytes out: who asks has them.
    pub fn without_hex(self) -> TransactionView {
        TransactionView { hex: None, ..self }
    }
}
