//! `getdescriptoractivity`: what came to the scripts of some descriptors, and what went, in some blocks and in the mempool.
//! Core: `src/rpc/blockchain.cpp`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bitcoin::{BlockHash, Script, ScriptBuf, Transaction};
use groat_chain::coins::Coin;
use groat_chain::params::AddressSet;
use serde::Serialize;

use super::Rpc;
use super::args::{Arg, Args, Kind, hash, text};
use super::blockchain::{block_and_spent, block_not_found};
use super::coins;
use super::error::*;
use super::method::{Answer, Method, answer};
use super::number::Btc;
use super::outputscript::scan_scripts;
use super::script::ScriptPubKey;

/// See [`super::method::all`].
pub const METHODS: &[Method] = &[Method {
    name: "getdescriptoractivity",
    group: "blockchain",
    args: &[
        Arg::required("blockhashes", Kind::Array("\"blockhash\""), "Blocks of the active chain, in any order."),
        Arg::required("scanobjects", Kind::Array("scanobjects"), "As for scantxoutset."),
        Arg::optional("include_mempool", Kind::Bool, "Whether to look at the mempool too; default true."),
    ],
    about: "What the scripts of some descriptors received and spent in some blocks, which scanblocks may have found.",
    run: getdescriptoractivity,
}];

/// The block of an event; none in the mempool.
#[derive(Clone, Serialize)]
struct Place {
    blockhash: String,
    height: u32,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Event {
    Spend {
        amount: Btc,
        #[serde(flatten)]
        place: Option<Place>,
        spend_txid: String,
        spend_vin: usize,
        prevout_txid: String,
        prevout_vout: u32,
        prevout_spk: ScriptPubKey,
    },
    Receive {
        amount: Btc,
        #[serde(flatten)]
        place: Option<Place>,
        txid: String,
        vout: usize,
        output_spk: ScriptPubKey,
    },
}

/// What is looked for, and what was found of it.
struct Search {
    scripts: HashSet<ScriptBuf>,
    addresses: AddressSet,
    events: Vec<Event>,
}

impl Search {
    /// Looks at a transaction; `spent`: the coins that it spends, by input.
    fn look(&mut self, tx: &Transaction, spent: &[Coin], place: Option<&Place>) {
        let txid = tx.compute_txid().to_string();
        let shown = |script: &Script| ScriptPubKey::new(script, self.addresses);
        let wanted = |script: &Script| self.scripts.contains(script);
        let spends = tx.input.iter().zip(spent).enumerate().filter(|(_, (_, coin))| wanted(coin.script_pubkey()));
        let spends = spends.map(|(number, (input, coin))| Event::Spend {
            amount: Btc(coin.value()),
            place: place.cloned(),
            spend_txid: txid.clone(),
            spend_vin: number,
            prevout_txid: input.previous_output.txid.to_string(),
            prevout_vout: input.previous_output.vout,
            prevout_spk: shown(coin.script_pubkey()),
        });
        let receipts = tx.output.iter().enumerate().filter(|(_, output)| wanted(&output.script_pubkey));
        let receipts = receipts.map(|(number, output)| Event::Receive {
            amount: Btc(output.value),
            place: place.cloned(),
            txid: txid.clone(),
            vout: number,
            output_spk: shown(&output.script_pubkey),
        });
        let found: Vec<Event> = spends.chain(receipts).collect();
        self.events.extend(found);
    }
}

fn getdescriptoractivity(rpc: &Rpc, args: &Args) -> Answer {
    #[derive(Serialize)]
    struct Activity {
        activity: Vec<Event>,
    }
    let node = rpc.node()?;
    let mut blocks = BTreeMap::new();
    {
        let tree = node.tree().read();
        for named in args.get(0).as_array().into_iter().flatten() {
            let id = tree.get(&hash::<BlockHash>(text(named)?, "blockhash")?).ok_or_else(block_not_found)?;
            if !tree.is_active(id) {
                return Err(RpcError::new(RPC_INVALID_PARAMETER, "Block is not in main chain"));
            }
            let entry = tree.node(id);
            blocks.insert(entry.height, (id, Place { blockhash: entry.hash.to_string(), height: entry.height }));
        }
    }
    let addresses = node.params().address_set;
    let mut search = Search { scripts: scan_scripts(args.get(1), addresses)?, addresses, events: Vec::new() };
    let stopping = node.stopping();
    for (id, place) in blocks.into_values() {
        if *stopping.borrow() {
            return Err(RpcError::new(RPC_CLIENT_NOT_CONNECTED, "Shutting down"));
        }
        let (block, spent) = block_and_spent(node, id)?;
        let mut rest = &spent[..];
        for tx in &block.transactions {
            let inputs = if tx.is_coinbase() { 0 } else { tx.input.len() };
            let (coins, after) = rest.split_at(inputs.min(rest.len()));
            search.look(tx, coins, Some(&place));
            rest = after;
        }
    }
    if args.bool(2) != Some(false) {
        look_at_mempool(rpc, &mut search)?;
    }
    answer(Activity { activity: search.events })
}

fn look_at_mempool(rpc: &Rpc, search: &mut Search) -> Result<(), RpcError> {
    /// Transactions whose coins the ledger is asked for at once.
    const STRIDE: usize = 100;
    let node = rpc.node()?;
    let transactions: Vec<Arc<Transaction>> = node.mempool().read().iter().map(|entry| entry.tx.clone()).collect();
    for some in transactions.chunks(STRIDE) {
        let inputs = some.iter().flat_map(|tx| &tx.input);
        let found = coins::find(node, inputs.map(|input| input.previous_output).collect())?;
        let mut rest = &found[..];
        for tx in some {
            let (coins, after) = rest.split_at(tx.input.len());
            rest = after;
            // One whose coins are gone has left the pool meanwhile, for a block or for another transaction.
            if let Some(coins) = coins.iter().cloned().collect::<Option<Vec<_>>>() {
                search.look(tx, &coins, None);
            }
        }
    }
    Ok(())
}
