//! Valid regtest blocks, and mutants of them with one fault each, for any number of judges: what one says of a block,
//! all must say, in the same words. Built on the `bitcoin` crate alone: must not use groat_chain.
//!
//! Not here, for no regtest block can show them: `bad-txns-oversize` (such a block is `bad-blk-length` first),
//! `bad-txns-inputvalues-outofrange`, `bad-txns-fee-outofrange` and `bad-txns-accumulated-fee-outofrange` (they take
//! more money than there is), `bad-signet-blksig` (another network:
//! `tests/differential/signet.rs`).

mod activation;
mod blocks;
mod forks;
mod scripts;
mod transactions;

use bitcoin::block::Header;
use bitcoin::consensus::encode::{serialize, serialize_hex};
use bitcoin::hex::DisplayHex;
use bitcoin::opcodes::Opcode;
use bitcoin::opcodes::all::OP_PUSHNUM_1;
use bitcoin::script::ScriptBuf;
use bitcoin::{Block, BlockHash, OutPoint, Transaction, TxOut};
use serde_json::json;

use crate::bitcoind::Bitcoind;
use crate::regtest;

/// The time at which all judges live: that of height 1,000.
pub const NOW: u32 = regtest::GENESIS_TIME + 1_000 * regtest::SPACING;
/// Coinbases alone at the start of every scenario.
const START: u32 = 120;
/// Fee of the payment in every block, in satoshis.
const FEE: u64 = 1_000;

/// Something that judges blocks: a bitcoind, or Groat's ledger.
pub trait Judge {
    /// Hands a block in, in network serialization. Fine when it is the new tip or is kept for later; else the reject
    /// reason in Core's words.
    fn submit(&mut self, block: &[u8]) -> Result<(), String>;
    /// Hands a header in alone. Fine when it is known then and may be valid; else the reject reason in Core's words.
    fn header(&mut self, header: &Header) -> Result<(), String>;
    /// Does as the operator says with a block; an error when it does not know it.
    fn mark(&mut self, mark: Mark, block: BlockHash) -> Result<(), String>;
    /// Hash of the best block.
    fn tip(&mut self) -> BlockHash;
    /// MuHash of the coins at the tip, as Core displays it.
    fn muhash(&mut self) -> String;
}

/// What an operator may say of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It is invalid (`invalidateblock`).
    Invalid,
    /// It is not invalid, nor are its ancestors and descendants (`reconsiderblock`).
    Reconsidered,
    /// It comes before others of the same work (`preciousblock`).
    Precious,
}

/// What [`Judge::mark`] says of a block that is not known.
pub const UNKNOWN_BLOCK: &str = "Block not found";

impl Judge for Bitcoind {
    fn submit(&mut self, block: &[u8]) -> Result<(), String> {
        match self.rpc().call("submitblock", json!([block.to_lower_hex_string()])) {
            Ok(answer) => match answer.as_str() {
                None | Some("inconclusive") => Ok(()),
                Some(reason) => Err(reason.into()),
            },
            Err(error) => Err(error.message),
        }
    }

    fn header(&mut self, header: &Header) -> Result<(), String> {
        let answer = self.rpc().call("submitheader", json!([serialize_hex(header)]));
        answer.map(drop).map_err(|error| match error.message.starts_with("Must submit previous header") {
            true => "prev-blk-not-found".into(),
            false => error.message,
        })
    }

    fn mark(&mut self, mark: Mark, block: BlockHash) -> Result<(), String> {
        let method = match mark {
            Mark::Invalid => "invalidateblock",
            Mark::Reconsidered => "reconsiderblock",
            Mark::Precious => "preciousblock",
        };
        self.rpc().call(method, json!([block])).map(drop).map_err(|error| error.message)
    }

    fn tip(&mut self) -> BlockHash {
        let hash = self.call("getbestblockhash", json!([]));
        hash.as_str().expect("a hash is a string").parse().expect("bitcoind gives a block hash")
    }

    fn muhash(&mut self) -> String {
        self.call("gettxoutsetinfo", json!(["muhash"]))["muhash"].as_str().expect("muhash is a string").into()
    }
}

/// Blocks to hand in one after another to a judge that knows only the genesis block.
pub struct Scenario {
    /// What it is about.
    pub name: &'static str,
    /// Activation heights that differ from regtest's, by the names of `-testactivationheight`.
    pub activation: &'static [(&'static str, u32)],
    /// Whether the judges hold to BIP94, as `-test=bip94` makes a regtest do.
    pub bip94: bool,
    /// The blocks.
    pub steps: Vec<Step>,
}

/// One block to hand in.
pub struct Step {
    /// The rule it keeps or breaks.
    pub name: String,
    /// The block in network serialization.
    pub block: Vec<u8>,
    /// What a judge must answer.
    pub expected: Result<(), String>,
    /// The tip after it.
    pub tip: BlockHash,
}

impl Scenario {
    /// The options of a bitcoind that judges this scenario. With one thread it would judge scripts before the rest.
    pub fn options(&self) -> Vec<String> {
        let mut options = vec![format!("-mocktime={NOW}"), "-par=2".into()];
        options.extend(self.bip94.then(|| "-test=bip94".into()));
        options.extend(self.activation.iter().map(|(name, height)| format!("-testactivationheight={name}@{height}")));
        options
    }
}

/// Every scenario.
pub fn scenarios() -> Vec<Scenario> {
    vec![
        blocks::scenario(),
        transactions::scenario(),
        scripts::scenario(),
        forks::scenario(),
        activation::heights(),
        activation::repeated_coinbases(),
        blocks::timewarp(),
    ]
}

/// A scenario in the making: the chain that its valid blocks form, and the coins to spend on it.
struct Builder {
    scenario: Scenario,
    tip: BlockHash,
    height: u32,
    /// Outputs of OP_TRUE that the next block may spend.
    coins: Vec<(OutPoint, u64)>,
    /// Coinbases by height, from height 1 on.
    coinbases: Vec<(OutPoint, u64)>,
}

impl Builder {
    /// The start that scenarios share: coinbases alone, some of them mature.
    fn new(name: &'static str, activation: &'static [(&'static str, u32)]) -> Builder {
        let mut builder = Builder::bare(name, activation);
        for _ in 0..START {
            let block = builder.empty();
            builder.accept("a coinbase alone", &block);
        }
        builder
    }

    /// Stands on the genesis block.
    fn bare(name: &'static str, activation: &'static [(&'static str, u32)]) -> Builder {
        Builder {
            scenario: Scenario { name, activation, bip94: false, steps: vec![] },
            tip: regtest::genesis().block_hash(),
            height: 0,
            coins: vec![],
            coinbases: vec![],
        }
    }

    /// A valid block on the tip with nothing but a coinbase.
    fn empty(&self) -> Block {
        let height = self.height + 1;
        let reward = regtest::output(regtest::subsidy(height).to_sat(), anyone());
        let mut block =
            regtest::block(self.tip, regtest::time_at(height), vec![regtest::coinbase(height, 0, vec![reward])]);
        if self.scenario.activation.iter().any(|(name, start)| *name == "segwit" && height < *start) {
            block.txdata[0].input[0].witness = bitcoin::Witness::new();
        }
        block
    }

    /// A valid block on the tip with one payment, whose fee the coinbase takes.
    fn valid(&mut self) -> Block {
        let mut block = self.empty();
        let (coin, value) = self.coin();
        add(&mut block, pay(coin, value - FEE));
        block.txdata[0].output[0].value += bitcoin::Amount::from_sat(FEE);
        regtest::seal(&mut block);
        block
    }

    /// The most valuable OP_TRUE output, for good: it is given once.
    fn coin(&mut self) -> (OutPoint, u64) {
        let richest = (0..self.coins.len()).max_by_key(|place| self.coins[*place].1);
        self.coins.swap_remove(richest.expect("blocks make more coins than they spend"))
    }

    /// Puts outputs with these scripts, 100,000 satoshis each, into a block of their own, which becomes the tip.
    fn fund(&mut self, scripts: Vec<ScriptBuf>) -> Vec<(OutPoint, TxOut)> {
        let mut block = self.empty();
        let (coin, value) = self.coin();
        let outputs: Vec<TxOut> = scripts.into_iter().map(|script| regtest::output(100_000, script)).collect();
        let change = regtest::output(value - 100_000 * outputs.len() as u64, anyone());
        let all = outputs.iter().cloned().chain([change]).collect();
        let funding = regtest::transaction(vec![regtest::unsigned(coin)], all);
        let txid = funding.compute_txid();
        add(&mut block, funding);
        self.accept("funds what follows", &block);
        // Only the change is for anybody to take.
        self.coins.retain(|(coin, _)| coin.txid != txid || coin.vout as usize == outputs.len());
        (0..).map(|vout| OutPoint { txid, vout }).zip(outputs).collect()
    }

    /// The block is valid and the new tip.
    fn accept(&mut self, name: &str, block: &Block) {
        assert_eq!(block.header.prev_blockhash, self.tip, "{name}: a new tip stands on the tip");
        self.height += 1;
        self.tip = block.block_hash();
        for (index, transaction) in block.txdata.iter().enumerate() {
            let txid = transaction.compute_txid();
            for (vout, output) in (0..).zip(&transaction.output) {
                let coin = (OutPoint { txid, vout }, output.value.to_sat());
                if index > 0 && output.script_pubkey == anyone() {
                    self.coins.push(coin);
                } else if index == 0 && vout == 0 {
                    self.coinbases.push(coin);
                }
            }
        }
        if self.coins.is_empty() && self.height > 100 {
            self.coins.push(self.coinbases[self.height as usize - 100]);
        }
        self.step(name, serialize(block), Ok(()));
    }

    /// The block is refused with `reason` and changes nothing.
    fn refuse(&mut self, name: &str, block: &Block, reason: &str) {
        self.step(name, serialize(block), Err(reason.into()));
    }

    /// Records a step that leaves the tip where the builder has it.
    fn step(&mut self, name: &str, block: Vec<u8>, expected: Result<(), String>) {
        self.scenario.steps.push(Step { name: name.into(), block, expected, tip: self.tip });
    }

    /// A valid block with one payment: first its mutant, which `fault` makes of it, is refused, then it is accepted.
    fn case(&mut self, name: &str, reason: &str, fault: impl FnOnce(&mut Block)) {
        let block = self.valid();
        self.case_on(block, name, reason, fault);
    }

    /// The same with a given valid block.
    fn case_on(&mut self, block: Block, name: &str, reason: &str, fault: impl FnOnce(&mut Block)) {
        let mut mutant = block.clone();
        fault(&mut mutant);
        self.refuse(name, &mutant, reason);
        self.accept(&format!("valid beside: {name}"), &block);
    }

    /// Median time past of the tip: the sixth of the last eleven, which go up evenly.
    fn median_time_past(&self) -> u32 {
        regtest::time_at(self.height - 5)
    }
}

/// The script that anyone can spend.
fn anyone() -> ScriptBuf {
    code(&[OP_PUSHNUM_1])
}

/// A script of these opcodes.
fn code(opcodes: &[Opcode]) -> ScriptBuf {
    opcodes.iter().map(|opcode| opcode.to_u8()).collect::<Vec<u8>>().into()
}

/// A transaction that spends a coin without signature to two OP_TRUE outputs of `value` together.
fn pay(coin: OutPoint, value: u64) -> Transaction {
    let half = value / 2;
    let outputs = vec![regtest::output(half, anyone()), regtest::output(value - half, anyone())];
    regtest::transaction(vec![regtest::unsigned(coin)], outputs)
}

/// Adds a transaction and makes the block's frame true again.
fn add(block: &mut Block, transaction: Transaction) {
    block.txdata.push(transaction);
    regtest::seal(block);
}
