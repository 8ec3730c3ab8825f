//! Real blocks: every rule on their bodies, with the coins they spend and all scripts where those are known.

use super::{network_and_numbers, read};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, CompactTarget, OutPoint, ScriptBuf, Transaction};
use groat_chain::block::Block;
use groat_chain::coins::Coin;
use groat_chain::params::{Buried, Params, RegtestOptions};
use groat_chain::rejection::Rejection;
use groat_chain::rules::branch::Branch;
use groat_chain::rules::connect::{connect_block, needs_bip30_check, subsidy};
use groat_chain::rules::deployment::{is_active, script_flags};
use groat_chain::rules::header::contextual_check_header;
use groat_chain::rules::{block as body, signet};
use groat_chain::script::{Flags, Sighashes, verify_input};
use groat_tests::data::groat_data;
use std::collections::HashMap;
use std::path::Path;

/// A branch of which nothing is known but its height and about when it ended.
struct About {
    height: u32,
    time: u32,
}

impl Branch for About {
    fn height(&self) -> u32 {
        self.height
    }
    fn time(&self, height: u32) -> u32 {
        self.time - 600 * (self.height - height).min(2_000)
    }
    fn bits(&self, _: u32) -> CompactTarget {
        panic!("no rule on bodies asks for bits")
    }
    fn version(&self, _: u32) -> i32 {
        panic!("no rule on bodies asks for versions")
    }
}

/// The branch that a block builds on, as far as it can be guessed: its median time is not far before the block.
fn before(block: &Block, height: u32) -> About {
    About { height: height - 1, time: block.header.time - 1 + 5 * 600 }
}

fn decode(path: &Path) -> Block {
    let bytes = read(path);
    let block = Block::decode(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(block.size, bytes.len(), "{}", path.display());
    block
}

/// The rules that need no coins.
fn check_alone(name: &str, block: &Block, height: u32, params: &Params) {
    assert_eq!(body::check_block(block, params), Ok(()), "{name}");
    assert_eq!(body::contextual_check_block(block, &before(block, height), params), Ok(()), "{name}");
}

/// The outputs that a block spends, in block order.
fn spent(path: &Path) -> Vec<Coin> {
    let text = String::from_utf8(read(path)).unwrap();
    let coin = |line: &str| {
        let cells: Vec<_> = line.split(',').collect();
        let script = ScriptBuf::from_hex(cells[1]).unwrap();
        let height = if cells[2].is_empty() { 1 } else { cells[2].parse().unwrap() };
        Coin::from_parts(cells[0].parse().unwrap(), script.as_bytes(), height, cells[4] == "1")
    };
    text.lines().skip(1).map(coin).collect()
}

/// Runs every script of a block.
fn run_scripts(name: &str, block: &Block, mut coins: &[Coin], flags: Flags) -> usize {
    let all = coins.len();
    for (tx, txid) in block.transactions.iter().zip(&block.txids).skip(1) {
        let (own, rest) = coins.split_at(tx.input.len());
        let sighashes = Sighashes::new(tx, own);
        for index in 0..own.len() {
            let verdict = verify_input(&sighashes, index, flags, None);
            assert_eq!(verdict, Ok(()), "{name}: transaction {txid} input {index}");
        }
        coins = rest;
    }
    all
}

/// Cost of the signature operations as another implementation counts it.
fn other_sigop_cost(block: &Block, coins: &[Coin]) -> u64 {
    let mut by_outpoint = HashMap::new();
    let outpoints = block.transactions.iter().skip(1).flat_map(|tx| &tx.input).map(|input| input.previous_output);
    by_outpoint.extend(outpoints.zip(coins.iter().map(Coin::to_output)));
    let cost = |tx: &Transaction| tx.total_sigop_cost(|outpoint: &OutPoint| by_outpoint.get(outpoint).cloned()) as u64;
    block.transactions.iter().map(cost).sum()
}

#[test]
fn blocks_with_their_spent_outputs_keep_every_rule() {
    let (mut blocks, mut inputs) = (0, 0);
    for path in groat_data("blocks-with-spent-outputs", ".block") {
        let (name, params, numbers) = network_and_numbers(&path);
        let (block, height, coins) = (decode(&path), numbers[0], spent(&path.with_extension("spent.csv")));
        check_alone(&name, &block, height, &params);
        let branch = before(&block, height);
        let connected = connect_block(&block, &coins, true, &branch, &params, false)
            .unwrap_or_else(|rejection| panic!("{name}: {rejection}"));
        let taken: Amount = block.transactions[0].output.iter().map(|output| output.value).sum();
        assert_eq!(taken, connected.fees + subsidy(height, &params), "{name}: subsidy and fees");
        assert_eq!(connected.sigop_cost, other_sigop_cost(&block, &coins), "{name}: sigop cost");
        inputs += run_scripts(&name, &block, &coins, connected.flags);
        blocks += 1;
        if let Some((last, short)) = coins.split_last() {
            let missing = connect_block(&block, short, false, &branch, &params, false);
            assert_eq!(missing, Err(Rejection::BadTxnsInputsMissingorspent), "{name}: without its last coin");
            let poorer = Coin::from_parts(last.value().to_sat() - 1, last.script_pubkey().as_bytes(), 1, false);
            let poorer = [short, &[poorer]].concat();
            let verdict = connect_block(&block, &poorer, true, &branch, &params, false).err();
            let expected = [Some(Rejection::BadCbAmount), Some(Rejection::BadTxnsInBelowout)];
            assert!(expected.contains(&verdict), "{name}: one satoshi less gives {verdict:?}");
        }
    }
    println!("{blocks} blocks, {inputs} inputs");
}

#[test]
fn single_blocks_keep_the_rules_on_bodies() {
    let mut blocks = 0;
    for path in ["single-blocks", "contiguous-chains"].iter().flat_map(|folder| groat_data(folder, ".block")) {
        let (name, params, numbers) = network_and_numbers(&path);
        check_alone(&name, &decode(&path), numbers[0], &params);
        blocks += 1;
    }
    println!("{blocks} blocks");
}

#[test]
fn a_changed_body_of_a_real_block_is_seen() {
    for path in groat_data("single-blocks", ".block") {
        let (name, params, numbers) = network_and_numbers(&path);
        let raw: bitcoin::Block = bitcoin::consensus::deserialize(&read(&path)).unwrap();
        let decode = |block: &bitcoin::Block| Block::decode(&bitcoin::consensus::serialize(block)).unwrap();
        let mut shorter = raw.clone();
        shorter.txdata.pop();
        assert_eq!(body::check_body(&decode(&shorter)), Err(Rejection::BadTxnMrklRoot), "{name}: a transaction less");
        let repeated = raw.txdata.len();
        if repeated > 1 && !repeated.is_multiple_of(2) {
            let mut longer = raw.clone();
            longer.txdata.push(raw.txdata[repeated - 1].clone());
            assert_eq!(body::check_body(&decode(&longer)), Err(Rejection::BadTxnsDuplicate), "{name}: the last twice");
        }
        let mut witness = raw.clone();
        let changed = witness.txdata.iter_mut().skip(1).flat_map(|tx| &mut tx.input);
        if let Some(input) = changed.into_iter().find(|input| !input.witness.is_empty()) {
            input.witness.push([1]);
            let block = decode(&witness);
            let verdict = body::contextual_check_block(&block, &before(&block, numbers[0]), &params);
            assert_eq!(verdict, Err(Rejection::BadWitnessMerkleMatch), "{name}: another witness");
        }
        if is_active(Buried::Bip34, numbers[0], &params) {
            let block = decode(&raw);
            let verdict = body::contextual_check_block(&block, &before(&block, numbers[0] + 1), &params);
            assert_eq!(verdict, Err(Rejection::BadCbHeight), "{name}: another height");
        }
    }
}

#[test]
fn repeated_coinbases_are_allowed_in_two_blocks_only() {
    let params = Params::main();
    let mut by_coinbase: HashMap<_, Vec<(u32, Block)>> = HashMap::new();
    for path in groat_data("consensus-oddities", ".block") {
        let (name, _, numbers) = network_and_numbers(&path);
        let block = decode(&path);
        check_alone(&name, &block, numbers[0], &params);
        by_coinbase.entry(block.txids[0]).or_default().push((numbers[0], block));
    }
    for pair in by_coinbase.values_mut() {
        pair.sort_by_key(|(height, _)| *height);
        let [(first_height, first), (height, repeat)] = pair.as_slice() else { panic!("a coinbase comes twice") };
        assert!(needs_bip30_check(*first_height, first.hash, None, &params), "height {first_height}");
        assert!(!needs_bip30_check(*height, repeat.hash, None, &params), "height {height}: the exception");
        assert!(needs_bip30_check(*height, first.hash, None, &params), "height {height}: another block");
        let verdict = connect_block(repeat, &[], false, &before(repeat, *height), &params, true);
        assert_eq!(verdict, Err(Rejection::BadTxnsBip30), "height {height}: were it not the exception");
    }
}

#[test]
fn the_transaction_that_breaks_bip16_is_valid_in_its_block_only() {
    for path in groat_data("consensus-oddities", "exception-tx.json") {
        let data: serde_json::Value = serde_json::from_slice(&read(&path)).unwrap();
        let tx: Transaction = bitcoin::consensus::encode::deserialize_hex(data["raw"].as_str().unwrap()).unwrap();
        let height = data["block_height"].as_u64().unwrap() as u32;
        let coin = |output: &serde_json::Value| {
            let script = ScriptBuf::from_hex(output["script_pubkey"].as_str().unwrap()).unwrap();
            Coin::from_parts(output["value_sat"].as_u64().unwrap(), script.as_bytes(), 1, false)
        };
        let coins: Vec<_> = data["prevouts"].as_array().unwrap().iter().map(coin).collect();
        let params = Params::main();
        let sighashes = Sighashes::new(&tx, &coins);
        let verdict = |hash| verify_input(&sighashes, 0, script_flags(height, hash, &params), None).is_ok();
        assert!(verdict(params.script_flag_exceptions[0].0), "in its block");
        assert!(!verdict(params.genesis_hash), "in another block");
    }
}

/// The blocks in a file of frames: magic, length, block.
fn frames(path: &Path, params: &Params) -> Vec<Block> {
    let bytes = read(path);
    let (mut rest, mut blocks) = (bytes.as_slice(), Vec::new());
    while !rest.is_empty() {
        assert_eq!(rest[..4], params.magic, "{}: frame {}", path.display(), blocks.len());
        let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        blocks.push(Block::decode(&rest[8..8 + length]).unwrap());
        rest = &rest[8 + length..];
    }
    blocks
}

/// The chains from a first block on: name, parameters, blocks.
fn chains() -> Vec<(String, Params, Vec<Block>)> {
    let files = groat_data("contiguous-chains", ".blk").into_iter();
    files
        .map(|path| {
            let (name, params, numbers) = network_and_numbers(&path);
            let blocks = frames(&path, &params);
            assert_eq!((numbers[0], numbers[1] as usize + 1), (0, blocks.len()), "{name}: blocks from the first on");
            (name, params, blocks)
        })
        .collect()
}

/// A branch of whole blocks.
struct Blocks<'a>(&'a [Block]);

impl Branch for Blocks<'_> {
    fn height(&self) -> u32 {
        self.0.len() as u32 - 1
    }
    fn time(&self, height: u32) -> u32 {
        self.0[height as usize].header.time
    }
    fn bits(&self, height: u32) -> CompactTarget {
        self.0[height as usize].header.bits
    }
    fn version(&self, height: u32) -> i32 {
        self.0[height as usize].header.version.to_consensus()
    }
}

#[test]
fn chains_connect_from_their_first_block_on() {
    for (name, params, blocks) in chains() {
        let mut coins: HashMap<OutPoint, Coin> = HashMap::new();
        let mut inputs = 0;
        for height in 1..blocks.len() {
            let (block, branch) = (&blocks[height], Blocks(&blocks[..height]));
            let name = format!("{name}: height {height}");
            assert_eq!(contextual_check_header(&block.header, &branch, &params, u32::MAX), Ok(()), "{name}");
            assert_eq!(body::check_block(block, &params), Ok(()), "{name}");
            assert_eq!(body::contextual_check_block(block, &branch, &params), Ok(()), "{name}");
            let mut spent = Vec::new();
            for (number, (tx, txid)) in block.transactions.iter().zip(&block.txids).enumerate() {
                if number > 0 {
                    spent.extend(tx.input.iter().map(|input| coins.remove(&input.previous_output).unwrap()));
                }
                for (vout, output) in tx.output.iter().enumerate() {
                    if !body::is_unspendable(&output.script_pubkey) {
                        let coin = Coin::new(output, height as u32, number == 0);
                        let old = coins.insert(OutPoint::new(*txid, vout as u32), coin);
                        assert!(old.is_none(), "{name}: nothing is overwritten");
                    }
                }
            }
            let connected = connect_block(block, &spent, true, &branch, &params, false)
                .unwrap_or_else(|rejection| panic!("{name}: {rejection}"));
            inputs += run_scripts(&name, block, &spent, connected.flags);
        }
        println!("{name}: {} blocks, {inputs} inputs", blocks.len());
    }
}

#[test]
fn signet_blocks_carry_solutions() {
    let mut solved = 0;
    for (name, params, blocks) in chains().into_iter().filter(|(_, params, _)| params.signet_challenge.is_some()) {
        for block in &blocks {
            assert_eq!(signet::check_solution(block, &params), Ok(()), "{name}: {}", block.hash);
        }
        for block in &blocks[1..] {
            let changed = |change: &dyn Fn(&mut bitcoin::Block)| {
                let txdata = block.transactions.clone();
                let mut changed = bitcoin::Block { header: block.header, txdata };
                change(&mut changed);
                let block = Block::decode(&bitcoin::consensus::serialize(&changed)).unwrap();
                signet::check_solution(&block, &params)
            };
            let (hash, refused) = (block.hash, Err(Rejection::BadSignetBlksig));
            assert_eq!(changed(&|block| block.header.nonce ^= 1), Ok(()), "{hash}: the nonce is not signed");
            assert_eq!(changed(&|block| block.header.time ^= 1), refused, "{hash}: the time is");
            let value = |block: &mut bitcoin::Block| block.txdata[0].output[0].value += Amount::ONE_SAT;
            assert_eq!(changed(&value), refused, "{hash}: so is the coinbase");
            assert_eq!(changed(&|block| drop(block.txdata[0].output.pop())), refused, "{hash}: without commitment");
            let break_solution = |block: &mut bitcoin::Block| {
                let outputs = &mut block.txdata[0].output;
                let output = outputs.iter_mut().rev().find(|output| output.script_pubkey.is_op_return()).unwrap();
                let mut script = output.script_pubkey.to_bytes();
                *script.last_mut().unwrap() ^= 1;
                output.script_pubkey = ScriptBuf::from_bytes(script);
            };
            assert_eq!(changed(&break_solution), refused, "{hash}: a changed solution");
            solved += 1;
        }
        let other = Params::signet(Some(ScriptBuf::from_bytes(vec![0])));
        let verdict = signet::check_solution(&blocks[1], &other);
        assert_eq!(verdict, Err(Rejection::BadSignetBlksig), "another challenge");
        let anyone = Params::signet(Some(ScriptBuf::from_bytes(vec![0x51])));
        let regtest = Params::regtest(&RegtestOptions::default());
        assert_eq!(signet::check_solution(&blocks[1], &regtest), Ok(()), "no challenge");
        let hash = blocks[1].hash.to_byte_array();
        assert_ne!(hash, anyone.genesis_hash.to_byte_array(), "the first block alone is free");
    }
    println!("{solved} solutions");
}
