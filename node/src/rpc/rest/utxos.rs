//! `getutxos`: which of some outputs are unspent, in the manner of BIP64.

use bitcoin::consensus::encode::{Decodable, VarInt, serialize};
use bitcoin::{BlockHash, OutPoint};
use groat_chain::coins::Coin;
use hex::FromHex;
use serde::Serialize;

use super::super::Rpc;
use super::super::coins::MEMPOOL_HEIGHT;
use super::super::http::Reply;
use super::super::number::Btc;
use super::super::script::ScriptPubKey;
use super::{Asked, Format, Refusal, bad, failed, json_of, number};

/// Outputs that one question may name. Core's name and value.
const MAX_GETUTXOS_OUTPOINTS: usize = 15;

/// What is asked for.
struct Wanted {
    check_mempool: bool,
    outpoints: Vec<OutPoint>,
}

/// The coins that there are, and the block as of which.
struct Found {
    coins: Vec<Option<Coin>>,
    tip: BlockHash,
    height: u32,
}

pub fn getutxos(rpc: &Rpc, asked: &Asked) -> Result<Reply, Refusal> {
    let wanted = wanted(asked)?;
    let many = wanted.outpoints.len();
    if many > MAX_GETUTXOS_OUTPOINTS {
        let most = MAX_GETUTXOS_OUTPOINTS;
        return Err(bad(format!("Error: max outpoints exceeded (max: {most}, tried: {many})")));
    }
    let found = look(rpc, wanted)?;
    let unspent = || found.coins.iter().flatten();
    let node = rpc.node()?;
    asked.give(
        || {
            let mut bitmap = vec![0_u8; found.coins.len().div_ceil(8)];
            for (at, coin) in found.coins.iter().enumerate() {
                bitmap[at / 8] |= u8::from(coin.is_some()) << (at % 8);
            }
            let mut bytes = [&serialize(&found.height)[..], &serialize(&found.tip), &serialize(&bitmap)].concat();
            bytes.extend(serialize(&VarInt::from(unspent().count())));
            for coin in unspent() {
                // A version, which is always 0, comes first.
                bytes.extend([serialize(&0_u32), serialize(&coin.height()), serialize(&coin.to_output())].concat());
            }
            Ok(bytes)
        },
        || {
            #[derive(Serialize)]
            struct Utxo {
                height: u32,
                value: Btc,
                #[serde(rename = "scriptPubKey")]
                script_pubkey: ScriptPubKey,
            }
            #[derive(Serialize)]
            #[serde(rename_all = "camelCase")]
            struct Utxos {
                chain_height: u32,
                chaintip_hash: String,
                bitmap: String,
                utxos: Vec<Utxo>,
            }
            let show = |coin: &Coin| Utxo {
                height: coin.height(),
                value: Btc(coin.value()),
                script_pubkey: ScriptPubKey::new(coin.script_pubkey(), node.params().address_set),
            };
            json_of(Utxos {
                chain_height: found.height,
                chaintip_hash: found.tip.to_string(),
                bitmap: found.coins.iter().map(|coin| if coin.is_some() { '1' } else { '0' }).collect(),
                utxos: unspent().map(show).collect(),
            })
        },
    )
}

/// Reads the question: from the path, or from the body as bytes or hex.
fn wanted(asked: &Asked) -> Result<Wanted, Refusal> {
    let empty = || bad("Error: empty request");
    let unreadable = || bad("Parse error");
    let path = asked.path.get(1..).filter(|path| !path.is_empty());
    if asked.body.is_empty() && path.is_none() {
        return Err(empty());
    }
    let mut wanted = Wanted { check_mempool: false, outpoints: Vec::new() };
    if let Some(path) = path {
        for (at, part) in path.split('/').enumerate() {
            if at == 0 && part == "checkmempool" {
                wanted.check_mempool = true;
                continue;
            }
            let (txid, n) = part.split_once('-').ok_or_else(unreadable)?;
            let (Ok(txid), Some(vout)) = (txid.parse(), number(n)) else { return Err(unreadable()) };
            wanted.outpoints.push(OutPoint { txid, vout });
        }
        if wanted.outpoints.is_empty() {
            return Err(empty());
        }
    }
    let body = match asked.format {
        Format::Bin => asked.body.to_vec(),
        Format::Hex => {
            let digits: String =
                asked.body.iter().map(|byte| char::from(*byte)).filter(|c| !c.is_whitespace()).collect();
            // What is no hex is nothing, as with Core.
            Vec::from_hex(&digits).unwrap_or_default()
        }
        Format::Json if wanted.outpoints.is_empty() => return Err(empty()),
        Format::Json | Format::Unknown => Vec::new(),
    };
    if !body.is_empty() {
        if path.is_some() {
            return Err(bad("Combination of URI scheme inputs and raw post data is not allowed"));
        }
        wanted = parse(&body).ok_or_else(unreadable)?;
    }
    Ok(wanted)
}

/// A flag, a count, outputs: as BIP64 and Core's documents have it. Core itself reads a body's length as the flag, and the
/// flag as the count, so that nobody can have relied on what it answers.
fn parse(body: &[u8]) -> Option<Wanted> {
    let (check_mempool, mut rest) = body.split_first()?;
    let count = VarInt::consensus_decode(&mut rest).ok()?.0;
    let outpoints = (0..count).map(|_| OutPoint::consensus_decode(&mut rest).ok()).collect::<Option<_>>()?;
    Some(Wanted { check_mempool: *check_mempool != 0, outpoints })
}

/// Looks in the ledger's thread, between two blocks.
fn look(rpc: &Rpc, wanted: Wanted) -> Result<Found, Refusal> {
    let node = rpc.node()?;
    let pool = wanted.check_mempool.then(|| node.mempool().clone());
    let found = node.with_ledger(move |ledger| {
        let mut coins = ledger.coins(&wanted.outpoints)?;
        if let Some(pool) = pool.as_ref().map(|pool| pool.read()) {
            for (outpoint, coin) in wanted.outpoints.iter().zip(&mut coins) {
                let made = pool.get(&outpoint.txid).and_then(|entry| entry.tx.output.get(outpoint.vout as usize));
                let coin_or_made = coin.take().or_else(|| made.map(|output| Coin::new(output, MEMPOOL_HEIGHT, false)));
                *coin = coin_or_made.filter(|_| pool.spender(outpoint).is_none());
            }
        }
        let (tip, tree) = (ledger.tip(), ledger.tree());
        let tree = tree.read();
        let height = tree.get(&tip).map_or(0, |id| tree.node(id).height);
        Ok(Found { coins, tip, height })
    });
    found.map_err(failed)
}
